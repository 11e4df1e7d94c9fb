"""A sweep that runs as displays show it: each running stage, how far all is, and what has ended."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sweeps.executors import Event
from sweeps.progress import Clock, Progress, RunningStage, epochs_at, whose
from sweeps.records import TrialRecord, smallest_near_dense
from sweeps.stages import Stage, StageFolder
from sweeps.stages.sparse import SparseSpec
from sweeps.stages.training import TrainingSpec
from sweeps.state import State

FRONT_ROWS = 10  # of the front shown while the sweep runs; all of it is printed at the end


class Overview:
    """What displays show of one run of a sweep.

    Args:
        state: the study's state, which changes as stages end.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._clock = Clock()
        self._best: dict[str, Any] | None = None  # the row of the best trial
        self._best_of = (0, False)  # of how many complete trials, and whether the dense network is known
        self._began = time.monotonic()

    def at_start(self, stage: Stage, folder: StageFolder) -> RunningStage:
        """A stage before its first event, given its folder, which may hold epochs of an earlier run."""
        trials = self._state.shown_with(stage)
        shared = stage.kind in ("sparse", "early", "curve", "latency") and stage.spec.pass_number == 1
        shown = RunningStage(
            name=stage.name,
            trials=(),
            beside=None if trials else self._state.name_beside(stage),
            strength=trials[0].strength if trials else getattr(stage.spec, "strength", 0.0),
            ratio=None if shared or not trials else trials[0].ratio or None,  # 0: a budget, not applied yet
            epoch=float(self._state.stage(stage.key).epochs_done),
            epochs=stage.epochs,
        )
        for row in folder.history() if shown.epoch else []:
            shown = _after_epoch(stage, shown, row)
        return shown

    def after(self, event: Event, stage: Stage, shown: RunningStage) -> RunningStage:
        """A stage after an event of its training."""
        self._clock.note(stage, event)
        shown = replace(shown, epoch=epochs_at(event), images_per_second=_images_per_second(stage, event))
        return _after_epoch(stage, shown, event.row) if event.kind == "epoch" else shown

    def with_trials(self, stage: Stage, shown: RunningStage) -> RunningStage:
        """A running stage with the trials that are waiting for it now."""
        trials = self._state.shown_with(stage)
        return replace(shown, trials=tuple(trial.number for trial in trials))

    def name(self, stage: Stage) -> str:
        """A stage in words, with whom it is for."""
        trials = [trial.number for trial in self._state.shown_with(stage)]
        return f"{whose(trials, self._state.name_beside(stage))}: {stage.name}"

    def forget(self, stage: Stage) -> None:
        """Note that a stage has ended."""
        self._clock.forget(stage)

    def progress(
        self, running: Sequence[tuple[Stage, RunningStage]], *, idle: int, retries: int, page: str | None
    ) -> Progress:
        """The whole sweep now.

        Args:
            running: the stages that are being computed, as they were shown last.
            idle: workers that have nothing to do.
            retries: how often a worker was lost, and its stage went on.
            page: the address on W&B; None if there is none.
        """
        state = self._state
        left = state.epochs_ahead()
        current = dict.fromkeys(left, 0.0)  # epochs that are not kept yet
        for stage, shown in running:
            if stage.kind in current:
                current[stage.kind] += max(0.0, shown.epoch - state.stage(stage.key).epochs_done)
        done, (rows, size) = state.epochs_done, state.front(FRONT_ROWS)
        complete, dense = state.count("complete"), state.stage(state.dense.key).metrics
        if (complete, bool(dense)) != self._best_of:  # it is looked for in all trials
            self._best_of = (complete, bool(dense))
            best = smallest_near_dense(state.record())
            self._best = best.row() if best else None
        ahead = {kind: left[kind] - current[kind] for kind in left}
        return Progress(
            trials_done=complete + state.count("stopped"),
            trials_stopped=state.count("stopped"),
            trials_failed=state.count("failed"),
            goal=state.goal,
            epochs_done=done + sum(current.values()),
            epochs_total=done + sum(left.values()),
            seconds_left=self._seconds_left(ahead, len(running)),
            running=[self.with_trials(stage, shown) for stage, shown in running],
            front=rows,
            front_size=size,
            objectives=list(state.config.search.objectives),
            seconds=time.monotonic() - self._began,
            idle=idle,
            retries=retries,
            dense_accuracy=dense.get("val_accuracy"),
            best=self._best,
            page=page,
        )

    def _seconds_left(self, epochs: dict[str, float], workers: int) -> float | None:
        seconds = 0.0
        for kind, count in epochs.items():
            rate = self._clock.seconds_per_epoch(kind)
            if rate is None:
                return None
            seconds += count * rate
        return seconds / max(1, workers)


def news(trial: TrialRecord) -> str:
    """A line on how a trial ended."""
    if trial.state in ("failed", "stopped"):
        return f"trial {trial.number} {trial.state}: {trial.reason}"
    row = trial.row()
    return (
        f"trial {trial.number} done: λ {row['lambda']:.3g}, ratio {row['ratio']:g}, "
        f"{row['params']:,} parameters, validation {row['val_accuracy']:.1%}"
    )


def _after_epoch(stage: Stage, shown: RunningStage, row: Mapping[str, Any]) -> RunningStage:
    """The stage after an epoch, given the epoch's row of the history."""
    if isinstance(stage.spec, SparseSpec) and stage.spec.target is not None:
        shown = replace(shown, strength=row["lambda"])
    if "val_accuracy" in row:
        shown = replace(shown, accuracy=row["val_accuracy"], measured=int(row["epoch"]))
    return shown


def _images_per_second(stage: Stage, event: Event) -> float | None:
    assert isinstance(stage.spec, TrainingSpec), "only training has steps"
    return event.pace * stage.spec.recipe.batch_size or None
