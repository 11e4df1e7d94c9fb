"""How a study's front has grown, trial by trial."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sweeps.pareto import Front, covered, reference
from sweeps.records import StudyRecord, TrialRecord


@dataclass(frozen=True)
class Step:
    """The front after a trial.

    Attributes:
        trial: it, whether it changed the front or not.
        epochs: trained so far, those of the dense network too; stages that trials share count once.
        front_size: how many networks are on the front.
        volume: the hypervolume, as in pareto.json: a fraction; None without a dense network to compare with.
    """

    trial: TrialRecord
    epochs: int
    front_size: int
    volume: float | None


def growth(study: StudyRecord, trials: Iterable[TrialRecord]) -> Iterator[Step]:
    """The front after each of some trials of a study, in the order of their numbers."""
    search = study.config.search
    objectives = {str(name): direction for name, direction in search.objectives.items()}
    bound = reference(study.dense.metrics, objectives)
    front, counted, epochs = Front(objectives), {study.dense.key}, study.dense.epochs_done
    volume = None if bound is None else 0.0
    for trial in trials:
        epochs += sum(stage.epochs_done for stage in trial.stages if stage.key not in counted)
        counted |= {stage.key for stage in trial.stages}
        counts = trial.state == "complete" and search.allows(trial.metrics)
        if counts and front.add(trial.number, trial.metrics) and bound is not None:
            rows = [study.trials[number].metrics for number in front.numbers()]
            volume = covered(rows, objectives, bound)
        yield Step(trial, epochs, len(front.numbers()), volume)
