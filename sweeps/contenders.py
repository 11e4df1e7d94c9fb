"""Controls of points of the front, and repeats of both with further seeds.

They depend on the front alone, so a resumed study finds the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from slimnet.precision import Precision
from sweeps.config import Config, Lengths
from sweeps.networks import Networks
from sweeps.records import ContenderKind, TrialRecord
from sweeps.stages import Stage, chain, control, dense_stage


@dataclass(frozen=True)
class Contender:
    """A network that is trained once the goal is reached, for comparison.

    Attributes:
        kind: "dense" and "trial" are repeats with another seed; the others are controls.
        trial: the number of the trial that it repeats or is a control of; None for the dense network.
        seed: the seed of its random draws.
        stages: its chain.
    """

    kind: ContenderKind
    trial: int | None
    seed: int
    stages: tuple[Stage, ...]


def chosen_points(front: Sequence[TrialRecord], count: int, best: TrialRecord | None) -> list[TrialRecord]:
    """Points of the front that get controls and repeats: spread over its sizes, including the best one.

    Args:
        front: its trials, by size.
        count: how many to choose at most.
        best: the trial that the study recommends.
    """
    if len(front) <= count:
        return list(front)
    places = [round(place * (len(front) - 1) / max(1, count - 1)) for place in range(count)]
    if best in front and (wanted := front.index(best)) not in places:
        nearest = min(range(count), key=lambda index: abs(places[index] - wanted))
        places[nearest] = wanted
    return [front[place] for place in places]


def contenders(
    config: Config,
    points: Sequence[TrialRecord],
    precision: Precision,
    data: str | None,
    networks: Networks | None,
    size: Callable[[Stage], int | None],
) -> Iterator[Contender]:
    """The controls of some finished trials, and repeats of them, of their controls and of the dense network.

    Where pruning chooses the widths, a trial's network has another size with every seed, and its uniform
    control has the size for its seed: it is included once the repeat has a network, and never if that failed.

    Args:
        config: the study's config.
        points: the trials.
        precision, data, networks: as for `sweeps.stages.chain`.
        size: returns the parameters of a stage's network; None until it is finished.
    """
    for further in range(config.confirm.seeds):
        if further and points:
            again = config.model_copy(update={"seed": config.seed + further})
            yield Contender("dense", None, again.seed, (dense_stage(again, precision, data, networks),))
        for trial in points:
            again = trial.config.model_copy(update={"seed": trial.config.seed + further})
            params: int | None = trial.metrics["params"]
            if further:
                stages = chain(again, precision, data, networks)
                params = size(stages[-1])
                yield Contender("trial", trial.number, again.seed, stages)
            for kind in config.controls.chosen():
                if kind == "random" and trial.config.finetune.weights == "fresh":
                    continue  # with fresh weights only the widths matter: it would equal the trial
                if kind == "uniform" and params is None:
                    continue
                stages = control(kind, again, precision, data, networks, params=params)
                yield Contender(kind, trial.number, again.seed, stages)


def narrow_epochs_to_come(config: Config) -> float:
    """At most how many epochs uniform controls train, before it is known which they are."""
    points = min(config.confirm.points, config.search.trials)
    return float(config.most_epochs * points * config.confirm.seeds * config.controls.uniform)


def epochs_to_come(config: Config) -> dict[str, float]:
    """At most how many epochs all contenders train, by kind of stage, before it is known which they are."""
    points, further = min(config.confirm.points, config.search.trials), config.confirm.seeds - 1
    repeats = points * further
    random = points * (further + 1) * (config.controls.random and config.inherits)
    scratch = points * (further + 1) * config.controls.scratch
    most = config.lengths

    def in_passes(epochs: Callable[[Lengths], int]) -> int:
        """Epochs in all passes of repeats, and in the later ones after random channels."""
        later = random * max((one.passes - 1) * epochs(one) for one in most)
        return repeats * max(one.passes * epochs(one) for one in most) + later

    tuned = (repeats + random) * max(one.passes * one.finetune for one in most)
    return {
        "sparse": float(
            config.most_epochs * further + narrow_epochs_to_come(config) + in_passes(lambda one: one.sparse)
        ),
        "early": float(in_passes(lambda one: one.early)),
        "finetune": float(tuned + scratch * config.most_epochs),
    }
