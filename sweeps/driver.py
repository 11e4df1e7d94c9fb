"""The loop of a sweep: trials to stages, stages to workers, results to Optuna and to those who look on."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps.config import Config
from sweeps.console import Console
from sweeps.executors import Event, Executor
from sweeps.interruption import Interruption
from sweeps.machine import Slot
from sweeps.progress import Clock, Progress, RunningStage, epochs_ahead, epochs_at
from sweeps.results import StudyRecord, TrialRecord
from sweeps.snapshot import Plan, Reader, plan_stages, take
from sweeps.stages import Stage, Store
from sweeps.study import Asked, Study
from sweeps.tracking import Tracker
from sweeps.worker import Job

POLL_SECONDS = 0.25

logger = logging.getLogger("sweeps.driver")


@dataclass
class Driver:
    """One run of a sweep, from the study as it is to its goal or an interruption."""

    config: Config
    runs: Path
    data_dir: Path | None
    study: Study
    executor: Executor
    tracker: Tracker
    console: Console
    interruption: Interruption

    def __post_init__(self) -> None:
        self._store = Store(self.runs)
        self._reader = Reader(self._store)
        self._clock = Clock()
        self._asked: list[Asked] = self.study.trials()
        self._plan = self._plan_stages()
        self._running: dict[str, tuple[Stage, Event | None]] = {}
        self._stop_level = 0
        self._record = self._take_record()

    def run(self) -> StudyRecord:
        """Work until the goal is reached or a signal ends it; returns the study as it then stands."""
        try:
            while self._work():
                for event in self.executor.poll(POLL_SECONDS):
                    self._take_event(event)
                self.console.show(self._progress())
        finally:
            self.executor.kill()  # where an error has left stages running
        self._refresh()
        return self._record

    def _work(self) -> bool:
        """Do what can be done now; False when no stage is running after it."""
        self._heed_signals()
        if self._stop_level < 2:
            self._tell_and_ask()
        if self._stop_level == 0:
            self._start_stages()
        return bool(self._running)

    # Trials

    def _tell_and_ask(self) -> None:
        """Tell results in the order of the trials, and ask for the next trial as soon as one may be asked.

        A trial is asked for when fewer than `search.ahead` are open, never later and never sooner, so that
        what the sampler has seen does not depend on timing.
        """
        while True:
            opened = [trial for trial in self._asked if trial.state == "running"]
            if len(self._asked) < self.config.search.trials and len(opened) < self.config.search.ahead:
                if self._stop_level:
                    return
                self.study.ask()
                self._refresh_trials()
                continue
            if not opened or not self._tell(opened[0]):
                return
            self._refresh_trials()

    def _tell(self, trial: Asked) -> bool:
        """Tell Optuna of a trial if it has ended."""
        record = next(record for record in self._record.trials if record.number == trial.number)
        if record.state == "running":
            return False
        self.study.tell(trial.number, record.metrics if record.state == "complete" else None)
        return True

    def _refresh_trials(self) -> None:
        self._asked = self.study.trials()
        self._plan = self._plan_stages()
        self._refresh()

    def _plan_stages(self) -> Plan:
        return plan_stages(self.config, self._asked, self.study.precision, self.study.data)

    def _refresh(self) -> None:
        before = {trial.number: trial.state for trial in self._record.trials}
        self._record = self._take_record()
        self.tracker.update(self._record)
        for trial in self._record.trials:
            if trial.state != "running" and before.get(trial.number, "running") == "running":
                self.console.event(_news(trial))

    def _take_record(self) -> StudyRecord:
        return take(self.config, self.runs, self._asked, self._plan, self.study.uid, self._reader)

    # Stages

    def _start_stages(self) -> None:
        free = list(self.executor.free_slots())
        for stage in self._ready():
            if not free:
                return
            self._start(stage, free.pop(0))

    def _ready(self) -> Iterator[Stage]:
        """Stages that can start, in the order of their trials."""
        for stage in self._plan.stages():
            if stage.key in self._running or self._store.state(stage) in ("done", "failed"):
                continue
            if stage.parent is None or self._store.state(stage.parent) == "done":
                yield stage

    def _start(self, stage: Stage, slot: Slot) -> None:
        job = Job.of(stage, self._store, slot, data_path=self.config.data.path, data_dir=self.data_dir)
        logger.info("%s %s starts on %s with %d threads", stage.kind, stage.key, slot.device, slot.threads)
        self.executor.start(job, slot)
        self._running[stage.key] = (stage, None)

    def _take_event(self, event: Event) -> None:
        stage, _ = self._running[event.key]
        if event.kind == "warning":
            logger.warning("%s %s: %s", stage.kind, stage.key, event.reason)
            self.console.event(f"{stage.kind} {stage.key}: {event.reason}")
            return
        if event.kind in ("step", "epoch"):
            self._clock.note(stage, event)
            self._running[event.key] = (stage, event)
            if event.kind == "epoch":
                logger.info("%s %s epoch %d of %d", stage.kind, stage.key, event.epoch, stage.epochs)
                self._refresh()
                self.console.epoch(self._describe(stage, event))
            return
        del self._running[event.key]
        logger.info("%s %s %s %s", stage.kind, stage.key, event.kind, event.reason)
        if event.kind == "failed" and self._store.state(stage) != "done":
            self._store.fail(stage, event.reason, event.detail)
            self.console.event(f"{stage.kind} {stage.key} failed: {event.reason}")
        self._refresh()

    # Interruption and display

    def _heed_signals(self) -> None:
        level = self.interruption.level
        if level > self._stop_level:
            self._stop_level = level
            if level == 1:
                self.console.event("stopping after the epochs in hand; once more to stop at once")
                self.executor.stop()
            else:
                self.executor.kill()
                self._running.clear()

    def _progress(self) -> Progress:
        left = epochs_ahead(self.config, self._plan, self._store)
        rates = {kind: self._clock.seconds_per_epoch(kind) for kind in left}
        in_hand = {"sparse": 0.0, "finetune": 0.0}
        for stage, event in self._running.values():
            if event is not None and event.kind == "step":
                in_hand[stage.kind] += event.step / event.steps
        workers = max(1, len(self._running))
        seconds = None
        if all(rate is not None for rate in rates.values()):
            seconds = sum((left[kind] - in_hand[kind]) * (rates[kind] or 0) for kind in left) / workers
        done = sum(self._store.epochs_done(stage) for stage in self._plan.stages())
        ended = [trial.state for trial in self._record.trials]
        rows = {trial.number: trial.row() for trial in self._record.complete}
        return Progress(
            trials_done=ended.count("complete"),
            trials_failed=ended.count("failed"),
            goal=self._record.goal,
            epochs_done=done + sum(in_hand.values()),
            epochs_total=done + sum(left.values()),
            seconds_left=seconds,
            running=[self._describe(stage, event) for stage, event in self._running.values()],
            front=[rows[number] for number in self._record.front],
        )

    def _describe(self, stage: Stage, event: Event | None) -> RunningStage:
        users = [n for n, stages in self._plan.chains.items() if any(s.key == stage.key for s in stages)]
        root: Any = stage
        while root.parent is not None:
            root = root.parent
        prune = stage if stage.kind == "prune" else stage.parent
        history = self._reader.read(stage).history
        last: dict[str, Any] = next((row for row in reversed(history) if "val_accuracy" in row), {})
        steered = self._reader.read(root).history if root.spec.get("target") else []
        return RunningStage(
            kind=stage.kind,
            trials=tuple(users),
            lambda_=steered[-1]["lambda"] if steered else root.spec["lambda"],
            ratio=prune.spec["prune"]["ratio"] if prune is not None else None,
            epoch=epochs_at(event) if event is not None else float(len(history)),
            epochs=stage.epochs,
            accuracy=last.get("val_accuracy"),
            measured=last.get("epoch", 0),
            images_per_second=event.pace * stage.spec["recipe"]["batch_size"]
            if event and event.pace
            else None,
        )


def _news(trial: TrialRecord) -> str:
    """How a trial ended, in a line."""
    if trial.state == "failed":
        return f"trial {trial.number} failed: {trial.reason}"
    row = trial.row()
    return (
        f"trial {trial.number} done: λ {row['lambda']:g}, ratio {row['ratio']:g}, "
        f"{row['params']:,} parameters, validation {row['val_accuracy']:.1%}"
    )
