"""What a study has found so far: the records that all tables, files, reports and W&B runs are made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from sweeps.config import MEASURED, Config

StageState = Literal["missing", "partial", "done", "failed"]
TrialState = Literal["running", "complete", "stopped", "failed"]
ContenderKind = Literal["dense", "trial", "uniform", "scratch", "random"]
Row = dict[str, Any]
Histogram = dict[str, list[Any]]

FACTS = ("params", "macs", "val_accuracy", "test_accuracy")
"""The metrics of a network that tables, files and fronts show."""

POINT = 0.01  # accuracy within one point of the dense network's counts as near
_ROUNDING = 1e-9  # an accuracy of exactly one point less is within one point


class StageSource(Protocol):
    """Reads the long parts of a stage when they are needed."""

    @property
    def checkpoint(self) -> Path:
        """The file of the network, once the stage is done, if it is on this disk."""

    def network(self) -> Path | None:
        """The file of the network of a finished stage, fetched if need be; None if there is none."""

    def history(self) -> list[Row]:
        """A row per finished epoch."""

    def times(self) -> list[float]:
        """When each epoch ended, in seconds since 1970; fewer than there are epochs where it is not known."""

    def seconds(self) -> float:
        """The seconds spent on the epochs so far; 0 if unknown."""

    def gamma_layers(self) -> dict[str, Histogram]:
        """The histogram of γ of each layer at the end of sparse training; empty for other stages."""


@dataclass(frozen=True)
class _Beginning:
    """The first epochs of a stage."""

    whole: StageSource
    epochs: int

    @property
    def checkpoint(self) -> Path:
        return self.whole.checkpoint

    def network(self) -> Path | None:
        return None

    def history(self) -> list[Row]:
        return self.whole.history()[: self.epochs]

    def times(self) -> list[float]:
        return self.whole.times()[: self.epochs]

    def seconds(self) -> float:
        return self.whole.seconds() if self.epochs else 0.0

    def gamma_layers(self) -> dict[str, Histogram]:
        return {}


@dataclass(frozen=True)
class StageRecord:
    """One stage as its folder holds it.

    Attributes:
        name: the stage's name in its trial: "sparse", "prune", "finetune", and "sparse-2", … in later passes.
        kind: "sparse", "early", "prune", "finetune" or "curve".
        key: the hash of the spec.
        spec: everything that the result depends on.
        state: how far it is.
        epochs_done: epochs that need not be computed again.
        result: the content of result.json without the histograms per layer: metrics (params, macs,
            val_accuracy, test_accuracy and what the kind adds; for a curve only its rows), seconds,
            environment, and when it ended, in seconds since 1970 (not in results of earlier versions); None
            before the stage is done.
        failure: reason and detail; None unless the stage failed.
        source: reads the rest.
    """

    name: str
    kind: str
    key: str
    spec: dict[str, Any]
    state: StageState
    epochs_done: int
    result: dict[str, Any] | None
    failure: dict[str, Any] | None
    source: StageSource

    @property
    def metrics(self) -> dict[str, Any]:
        """The metrics of a finished stage; empty before that."""
        return self.result["metrics"] if self.result else {}

    @property
    def history(self) -> list[Row]:
        """A row per finished epoch, read from the file at each call.

        Each holds epoch (from 1), epochs, lr, lambda, loss, train_accuracy, val_accuracy and test_accuracy
        where they were measured, near_zero (fraction of prunable |γ| < 0.01) and gamma, a histogram
        {"counts": [n], "edges": [n + 1]}.
        """
        return self.source.history()

    @property
    def times(self) -> list[float]:
        """When each epoch ended, in seconds since 1970, read at each call; fewer where it is not known."""
        return self.source.times()

    @property
    def gamma_layers(self) -> dict[str, Histogram]:
        """The histogram of γ of each layer at the end of sparse training, read at each call."""
        return self.source.gamma_layers()

    def until(self, epoch: int) -> StageRecord:
        """The stage as it was after an epoch; 0 for before it began."""
        return replace(
            self,
            state="partial" if epoch else "missing",
            epochs_done=epoch,
            result=None,
            failure=None,
            source=_Beginning(self.source, epoch),
        )

    @property
    def pass_number(self) -> int:
        """The pass of multi-pass slimming that the stage belongs to, from 1."""
        return int(self.spec.get("pass_number", 1))


@dataclass(frozen=True)
class Stop:
    """When and why a trial was stopped early.

    Attributes:
        epoch: of its last fine-tuning, after which it was stopped; 0 for right after pruning.
        reason: in words, with the trials that it was judged by.
        estimate: its parameters and MACs, which are exact, and the accuracy on the validation split that it
            was expected to reach; this is what the sampler learns of it.
    """

    epoch: int
    reason: str
    estimate: dict[str, float]


@dataclass(frozen=True)
class TrialRecord:
    """One trial: its point in the search space, and how far its chain of stages is.

    Attributes:
        number: from 0.
        params: the trial's values by the dotted paths of the search space.
        config: the study's config with these values.
        state: how far it is.
        reason: why it failed or was stopped; None unless it was.
        stages: its chain, in order; the last one gives the trial's network. Of a trial that was stopped, it
            ends with the epoch after which it was, even if another trial needs the stage to its end.
        stop: when and why it was stopped; None unless it was.
    """

    number: int
    params: dict[str, Any]
    config: Config
    state: TrialState
    reason: str | None
    stages: tuple[StageRecord, ...]
    stop: Stop | None = None

    def first(self, kind: str) -> StageRecord:
        """The first stage of a kind; every chain has "sparse", "prune" and "finetune" stages.

        Raises:
            LookupError: the trial has no such stage.
        """
        return self._of_kind(kind)[0]

    def last(self, kind: str) -> StageRecord:
        """The last stage of a kind, which differs from the first if there are several passes.

        Raises:
            LookupError: the trial has no such stage.
        """
        return self._of_kind(kind)[-1]

    def _of_kind(self, kind: str) -> list[StageRecord]:
        found = [stage for stage in self.stages if stage.kind == kind]
        if not found:  # not StopIteration, which would end a caller's generator
            raise LookupError(f"trial {self.number} has no {kind} stage")
        return found

    @property
    def epochs_saved(self) -> int:
        """The epochs of its last fine-tuning that were not trained, as the trial was stopped."""
        return self.config.finetune.epochs - self.stop.epoch if self.stop else 0

    @property
    def metrics(self) -> dict[str, Any]:
        """The metrics of the trial's network; empty until it is finished."""
        return self.stages[-1].metrics

    @property
    def strength(self) -> float:
        """λ; where it is adjusted to a target, its last value, and 0 before the first epoch."""
        if self.config.sparse.target is None:
            return self.config.sparse.lambda_
        history = self.first("sparse").history
        return float(history[-1]["lambda"]) if history else 0.0

    @property
    def ratio(self) -> float:
        """The fraction of channels removed; where a budget decides it, 0 before the first pruning."""
        if self.config.prune.budget is None:
            return self.config.prune.ratio
        found = self.first("prune").metrics
        return round(1 - found["kept"] / found["prunable"], 4) if found else 0.0

    def row(self) -> Row:
        """The facts of a finished trial that tables, files and fronts show."""
        return {
            "trial": self.number,
            "lambda": self.strength,
            "ratio": self.ratio,
            **{
                path: value
                for path, value in self.params.items()
                if path not in ("sparse.lambda", "prune.ratio")
            },
            **self.facts(),
        }

    def facts(self) -> Row:
        """Size and accuracy of a finished trial, and what its study judges it by besides.

        The latency is left out otherwise: it is the only fact that another run would not reproduce.
        """
        search = self.config.search
        judged = [name for name in MEASURED if name in search.objectives or name in search.constraints]
        return {name: self.metrics[name] for name in (*FACTS, *judged)}

    @property
    def measured(self) -> Row:
        """The latencies in milliseconds and the bytes of the file; None where they are not measured yet."""
        return {name: self.metrics.get(name) for name in MEASURED}


@dataclass(frozen=True)
class ContenderRecord:
    """A control of a trial, or a repeat of a trial or of the dense network with another seed.

    Attributes:
        kind: "dense" or "trial" for a repeat, else the kind of control.
        trial: the trial that it repeats or is a control of; None for the dense network.
        seed: the seed of its random draws.
        state: how far it is.
        reason: why it failed; None unless it did.
        stages: its chain, in order; the last one gives its network.
    """

    kind: ContenderKind
    trial: int | None
    seed: int
    state: TrialState
    reason: str | None
    stages: tuple[StageRecord, ...]

    @property
    def metrics(self) -> dict[str, Any]:
        """The metrics of its network; empty until it is finished."""
        return self.stages[-1].metrics

    @property
    def epochs(self) -> int:
        """The training epochs of its network; see `epochs_trained`."""
        return epochs_trained(self.stages, self.kind)

    @property
    def name(self) -> str:
        """What it is: "uniform control of trial 3 (seed 0)", "trial 3 again (seed 1)"."""
        what = "dense network" if self.trial is None else f"trial {self.trial}"
        if self.kind in ("dense", "trial"):
            return f"{what} again (seed {self.seed})"
        return f"{self.kind} control of {what} (seed {self.seed})"


@dataclass(frozen=True)
class StudyRecord:
    """A whole study.

    Attributes:
        name: the study's name.
        uid: drawn when the study began; distinguishes it from an earlier one of the same name.
        config: the study's config.
        goal: how many trials it is to have.
        dense: the unpruned baseline: the sparse stage at λ = 0.
        trials: by number.
        front: numbers of the trials that no other trial dominates.
        contenders: controls and repeats, which are known once the goal is reached; before that, the complete
            ones from a time when the goal was lower.
        curves: accuracy right after pruning over the ratio, by the key of the sparse stage whose network is
            pruned; without those of failed sparse stages.
        latencies: the measurements of networks on the study's machine, by the key of the stage that made the
            network; their metrics are also among those of that stage.
        damage: a sentence on each file of a stage that cannot be used.
    """

    name: str
    uid: str
    config: Config
    goal: int
    dense: StageRecord
    trials: list[TrialRecord]
    front: list[int]
    contenders: list[ContenderRecord] = field(default_factory=list)
    curves: dict[str, StageRecord] = field(default_factory=dict)
    latencies: dict[str, StageRecord] = field(default_factory=dict)
    damage: tuple[str, ...] = ()

    @property
    def ended(self) -> bool:
        """Whether there is nothing left to compute: trials, baseline, curves, controls and repeats."""
        states = [one.state for one in self.trials] + [one.state for one in self.contenders]
        stages = [self.dense, *self.curves.values()]
        ended = "running" not in states and all(stage.state in ("done", "failed") for stage in stages)
        return ended and len(self.trials) >= self.goal

    @property
    def complete(self) -> list[TrialRecord]:
        """The trials that reached the end of their chain, by number."""
        return [trial for trial in self.trials if trial.state == "complete"]

    @property
    def stopped(self) -> list[TrialRecord]:
        """The trials that were stopped early, by number."""
        return [trial for trial in self.trials if trial.state == "stopped"]

    @property
    def epochs_saved(self) -> int:
        """The epochs of fine-tuning that were not trained, as trials were stopped; shared ones count once."""
        complete = {trial.stages[-1].key for trial in self.complete}
        saved: dict[str, int] = {}
        for trial in self.stopped:
            key = trial.stages[-1].key
            if key not in complete:
                saved[key] = min(trial.epochs_saved, saved.get(key, trial.epochs_saved))
        return sum(saved.values())


def epochs_trained(stages: Sequence[StageRecord], kind: ContenderKind = "trial") -> int:
    """The training epochs of a chain's network; for a "scratch" control, only those of its new weights.

    An early stage does not count, as it repeats epochs of the sparse stage.
    """
    own = stages[-1:] if kind == "scratch" else stages
    return sum(stage.spec["recipe"]["epochs"] for stage in own if stage.kind in ("sparse", "finetune"))


def best_trial(study: StudyRecord) -> TrialRecord | None:
    """The trial of `smallest_near_dense`, else the most accurate that is smaller than the dense network."""
    near = smallest_near_dense(study)
    return near or max(_smaller(study), key=lambda trial: float(trial.metrics["val_accuracy"]), default=None)


def smallest_near_dense(study: StudyRecord) -> TrialRecord | None:
    """The trial of the smallest network within a point of the dense one's accuracy, if smaller than it."""
    near = [
        trial
        for trial in _smaller(study)
        if study.dense.metrics["val_accuracy"] - trial.metrics["val_accuracy"] <= POINT + _ROUNDING
    ]
    return min(
        near, key=lambda trial: (trial.metrics["params"], -trial.metrics["val_accuracy"]), default=None
    )


def _smaller(study: StudyRecord) -> list[TrialRecord]:
    dense, allows = study.dense.metrics, study.config.search.allows
    return [
        trial
        for trial in study.complete
        if dense and trial.metrics["params"] < dense["params"] and allows(trial.metrics)
    ]
