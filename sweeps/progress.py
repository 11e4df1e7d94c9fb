"""How far a sweep is and how long it will still take."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sweeps.config import Config
from sweeps.executors import Event
from sweeps.snapshot import Plan
from sweeps.space import count_points
from sweeps.stages import Kind, Stage, Store

SPARSE_SECTIONS = ("data", "model", "sparse", "seed")  # what a sparse stage depends on


@dataclass(frozen=True)
class RunningStage:
    """A stage that a worker is computing, as a display shows it.

    `accuracy` is on the validation split, after epoch `measured`.
    """

    kind: Kind
    trials: tuple[int, ...]
    lambda_: float
    ratio: float | None
    epoch: float
    epochs: int
    accuracy: float | None
    measured: int = 0
    images_per_second: float | None = None


@dataclass(frozen=True)
class Progress:
    """The whole sweep at one moment. `seconds_left` is None until an epoch has been timed."""

    trials_done: int
    trials_failed: int
    goal: int
    epochs_done: float
    epochs_total: float
    seconds_left: float | None
    running: Sequence[RunningStage]
    front: Sequence[dict[str, Any]]


@dataclass
class Clock:
    """Times epochs by kind from the events of the executor."""

    _seen: dict[str, tuple[float, float]] = field(default_factory=dict)  # key -> (moment, epochs done)
    _spent: dict[str, float] = field(default_factory=dict)
    _epochs: dict[str, float] = field(default_factory=dict)

    def note(self, stage: Stage, event: Event) -> None:
        """Take in where a running stage is."""
        done = epochs_at(event)
        now = time.monotonic()
        if stage.key in self._seen:
            moment, before = self._seen[stage.key]
            if done > before:
                self._spent[stage.kind] = self._spent.get(stage.kind, 0.0) + now - moment
                self._epochs[stage.kind] = self._epochs.get(stage.kind, 0.0) + done - before
        self._seen[stage.key] = (now, done)

    def seconds_per_epoch(self, kind: Kind) -> float | None:
        """The mean so far; a kind not seen yet is taken to be like the others."""
        if self._epochs.get(kind, 0) > 0:
            return self._spent[kind] / self._epochs[kind]
        total = sum(self._epochs.values())
        return sum(self._spent.values()) / total if total > 0 else None


def epochs_at(event: Event) -> float:
    """Epochs done at an event, the fraction of the one in hand included."""
    if event.kind == "step":
        return event.epoch - 1 + event.step / event.steps
    return float(event.epoch)


def epochs_ahead(config: Config, plan: Plan, store: Store) -> dict[Kind, float]:
    """Training epochs still to compute, trials not asked for yet included as far as can be known."""
    left: dict[Kind, float] = {"sparse": 0.0, "finetune": 0.0}
    for stage in plan.stages():
        if stage.kind != "prune" and not _has_failed(stage, store):
            left[stage.kind] += stage.epochs - store.epochs_done(stage)
    unasked = max(0, config.search.trials - len(plan.chains))
    left["finetune"] += unasked * config.finetune.epochs
    left["sparse"] += min(unasked, _sparse_points(config) - _sparse_seen(plan)) * config.sparse.epochs
    return left


def _has_failed(stage: Stage | None, store: Store) -> bool:
    """Whether the stage or one that it starts from has failed, so that it will not be computed."""
    return stage is not None and (store.state(stage) == "failed" or _has_failed(stage.parent, store))


def _sparse_points(config: Config) -> float:
    """How many different sparse trainings the space holds; infinite where it is continuous."""
    entries = {
        path: entry for path, entry in config.search.space.items() if path.split(".")[0] in SPARSE_SECTIONS
    }
    return count_points(entries) or float("inf") if entries else 1


def _sparse_seen(plan: Plan) -> int:
    return len({stages[0].key for stages in plan.chains.values()})
