"""The loop of a sweep: trials become stages, workers compute them, and Optuna and W&B get the results."""

from __future__ import annotations

import itertools
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from sweeps.config import Config
from sweeps.console import Console
from sweeps.executors import Event, Executor
from sweeps.interruption import Interruption
from sweeps.jobs import Job
from sweeps.progress import Clock, Progress, ProgressFile, RunningStage, epochs_at
from sweeps.records import StudyRecord, TrialRecord, smallest_near_dense
from sweeps.stages import Stage, Store
from sweeps.stages.sparse import SparseSpec
from sweeps.stages.training import TrainingSpec
from sweeps.state import State
from sweeps.study import Point, Study
from sweeps.study.database import REASON, Entry
from sweeps.study.mirror import Mirroring, mirrored
from sweeps.study.sampling import Sampling
from sweeps.study.storage import Storage, chosen_storage
from sweeps.tracking import Tracker

POLL_SECONDS = 0.25
FRONT_ROWS = 10  # of the front shown while the sweep runs; all of it is printed at the end
UNTOLD = 1.0  # seconds that the mirror may need for the last trials before the user is told
SIGNALLED = 5.0  # seconds that it may need after a signal
ASLEEP = 60.0  # seconds between two looks at the workers, after which this process itself was stopped

logger = logging.getLogger("sweeps.driver")


@dataclass
class _Running:
    """A stage that is being computed, as the display shows it."""

    stage: Stage
    shown: RunningStage
    heard: float = field(default_factory=time.monotonic)  # when it last reported anything
    stalled: bool = False
    spared: bool = False  # ended on purpose, as its trial was stopped


class Driver:
    """One run of a sweep, from the study as it is to its goal or an interruption.

    Args:
        state: the study's state.
        study: the record that new trials are added to.
        sampling: draws the points of new trials; up to date with the study, as `resume` returns it.
        mirror: passes the study on to Optuna's.
        executor: computes stages.
        tracker: passes the study on to W&B.
        console: shows progress.
        interruption: the signals received so far.
        data_dir: the folder of the data sets; the user's cache if not given.
    """

    def __init__(
        self,
        state: State,
        study: Study,
        sampling: Sampling,
        mirror: Mirroring,
        executor: Executor,
        tracker: Tracker,
        console: Console,
        interruption: Interruption,
        data_dir: Path | None = None,
    ) -> None:
        self._state = state
        self._study = study
        self._sampling = sampling
        self._mirror = mirror
        self._executor = executor
        self._tracker = tracker
        self._console = console
        self._interruption = interruption
        self._data_dir = data_dir
        self._published = ProgressFile(study.folder)
        self._clock = Clock()
        self._told = state.ended_in_order()  # trials whose results the sampler and Optuna know
        self._running: dict[str, _Running] = {}
        self._lost: dict[str, int] = {}  # how often the worker of a stage was lost
        self._aside: set[int] = set()  # trials that were stopped from their W&B pages
        self._best: dict[str, Any] | None = None  # the row of the best trial
        self._best_of = (0, False)  # of how many complete trials, and whether the dense network is known
        self._stop_level = 0
        self._began = self._looked = time.monotonic()

    def run(self) -> StudyRecord:
        """Work until the goal is reached or a signal ends it; returns the study as it is then."""
        self._tracker.update(self._state.record())
        self._say(self._mirror.update())
        try:
            while self._work():
                for event in self._executor.poll(POLL_SECONDS):
                    self._take(event)
                self._end_stalled()
                self._say(self._mirror.update())
                for warning in self._tracker.news():
                    self._console.error(warning)
                for number in self._tracker.stopped():
                    self._set_aside(number)
                progress = self._progress()
                self._console.show(progress)
                self._published.write(progress)
        finally:
            self._executor.close()  # stages are still running after an error
            self._published.remove()
        self._say(self._mirror.close(self._waiting()))
        self._tracker.update(self._state.record())
        return self._state.record()

    def _waiting(self) -> Callable[[str], bool]:
        """Whether to wait on for the storage of trials: after one signal not for long, after two no more."""
        began, told = time.monotonic(), False

        def wait_on(storage: str) -> bool:
            nonlocal told
            waited = time.monotonic() - began
            if waited > UNTOLD and not told:
                told = True
                self._console.note(
                    f"waiting for {storage}, which lacks the last trials; Ctrl-C leaves them to the next run"
                )
            level = self._interruption.level
            return level == 0 or (level == 1 and waited < SIGNALLED)

        return wait_on

    def _work(self) -> bool:
        """Do what can be done now; False if no stage is running afterwards."""
        self._check_signals()
        if self._stop_level < 2:
            self._tell_and_ask()
        if self._stop_level == 0:
            self._start_stages()
        return bool(self._running)

    # Trials

    def _tell_and_ask(self) -> None:
        """Tell results in the order of the trials, and ask for the next trial as soon as possible.

        A trial is asked for exactly when fewer than `search.ahead` are open, so that what the sampler has
        seen does not depend on timing.
        """
        search = self._state.config.search
        while True:
            self._tell()
            full = self._state.asked - self._told >= search.ahead or self._state.asked >= search.trials
            if full or self._stop_level:
                return
            self._ask()

    def _tell(self) -> None:
        while self._told < self._state.asked:
            trial = self._state.trial(self._told)
            if trial.state == "running":
                return
            settle(self._study, trial)
            self._sampling.tell(trial.number, objective_values(trial), violations(trial))
            self._mirror.tell(_entry(trial, self._study.points[trial.number]))
            self._told += 1

    def _ask(self) -> None:
        point = self._sampling.ask()
        self._study.add(point)
        trial = self._state.add(point)
        self._mirror.add(_open_entry(trial, point))
        self._publish([trial] if trial.state != "running" else [])

    def _publish(self, ended: Sequence[TrialRecord] = ()) -> None:
        """Update W&B, print which trials have ended, and end the training of those that were stopped."""
        self._tracker.update(self._state.record())
        for trial in ended:
            self._console.event(_news(trial))
            running = self._running.get(trial.stages[-1].key)
            if trial.stop and running and not self._state.is_needed(running.stage):
                running.spared = True
                self._executor.kill(running.stage.key)  # rather than after one more epoch

    # Stages

    def _start_stages(self) -> None:
        for stage in itertools.chain(
            self._state.ready(), self._state.ready_curves(), self._state.ready_latencies()
        ):
            if stage.key in self._running or self._is_aside(stage):
                continue
            if self._executor.capacity() == 0:
                return
            self._start(stage)

    def _start(self, stage: Stage) -> None:
        store = self._state.store
        folder = store.folder(stage)
        folder.prepare(stage)
        shown = _shown(stage, self._state)
        for row in folder.history() if shown.epoch else []:
            shown = _after_epoch(stage, shown, row)
        known = self._state.stage(stage.key).epochs_done
        where = self._executor.start(Job.of(stage, store, self._state.config, self._data_dir, known))
        logger.info("%s %s starts on %s", stage.name, stage.key, where)
        shown = replace(shown, where=where, retry=self._lost.get(stage.key, 0))
        self._running[stage.key] = _Running(stage, shown)

    def _set_aside(self, number: int) -> None:
        """Stop a trial after its current epoch, until the next run of the study."""
        self._aside.add(number)
        self._console.event(f"trial {number} stopped from its W&B page; the next run goes on with it")
        for key, running in self._running.items():
            if self._is_aside(running.stage):
                self._executor.stop(key)

    def _is_aside(self, stage: Stage) -> bool:
        """Whether only trials that were set aside wait for a stage."""
        users = {trial.number for trial in self._state.users(stage)} if self._aside else set()
        return bool(users) and users <= self._aside and not self._state.contenders_of(stage)

    def _take(self, event: Event) -> None:
        """Handle an event."""
        running = self._running[event.key]
        stage = running.stage
        running.heard = time.monotonic()
        if event.ends:
            if event.kind == "lost" and running.spared:
                event = replace(event, kind="stopped", reason="as its trial was")
            elif event.kind == "lost" and running.stalled:
                minutes = self._state.config.stall_minutes
                event = replace(event, reason=f"no progress for {minutes:g} minutes, so it was ended")
            del self._running[event.key]
            logger.info("%s %s %s %s", stage.name, stage.key, event.kind, event.reason)
            self._end(stage, event)
        elif event.kind == "warning":
            logger.warning("%s %s: %s", stage.name, stage.key, event.reason)
            self._console.event(f"{stage.name} {stage.key}: {event.reason}")
        elif event.kind != "alive":
            self._clock.note(stage, event)
            running.shown = replace(
                running.shown, epoch=epochs_at(event), images_per_second=_images_per_second(stage, event)
            )
            if event.kind == "epoch":
                running.shown = _after_epoch(stage, running.shown, event.row)
                logger.info("%s %s epoch %d of %d", stage.name, stage.key, event.epoch, stage.epochs)
                self._publish(self._state.advance(stage, event.row))
                self._console.epoch(self._show(running))

    def _end(self, stage: Stage, event: Event) -> None:
        """Handle the end of a stage, whatever its outcome."""
        self._clock.forget(stage)
        folder = self._state.store.folder(stage)
        fails = event.kind == "failed"
        if event.kind in ("lost", "blocked"):
            self._lost[stage.key] = self._lost.get(stage.key, 0) + 1
            retries = max(self._state.config.retries, event.kind == "blocked")
            fails = self._lost[stage.key] > retries
            if event.kind == "blocked":
                fails = fails or not self._compute_again(stage.inputs[event.detail], event.reason)
            elif not fails:
                self._console.event(
                    f"{stage.name} {stage.key}: {event.reason}; it goes on from its last epoch "
                    f"(retry {self._lost[stage.key]} of {retries})"
                )
        if fails and folder.state() != "done":
            times = self._lost.get(stage.key, 1)
            reason = event.reason if times == 1 else f"{event.reason} ({times} times)"
            folder.fail(reason, "" if event.kind == "blocked" else event.detail)
            self._console.event(f"{stage.name} {stage.key} failed: {reason}")
        self._publish(self._reload(stage))

    def _end_stalled(self) -> None:
        """End the stages that have reported nothing for too long; they are then lost, and go on."""
        now = time.monotonic()
        slept, self._looked = now - self._looked > ASLEEP, now
        for key, running in self._running.items():
            if slept:
                running.heard = now  # they may have been stopped with this process
            elif now - running.heard > 60 * self._state.config.stall_minutes and not running.stalled:
                running.stalled = True
                self._executor.kill(key, hangs=True)

    def _compute_again(self, stage: Stage, reason: str) -> bool:
        """Have a finished stage whose network cannot be read computed anew.

        Returns:
            False if only curves and measurements need it, for which a finished trial is not trained again.
        """
        if not self._state.is_needed(stage):
            return False
        if stage.key not in self._running and self._state.stage(stage.key).state == "done":
            self._tell_of(stage, self._state.store.folder(stage).give_up_network(reason))
            self._reload(stage)
        return True  # else another that needs it has said so before

    def _reload(self, stage: Stage) -> list[TrialRecord]:
        """Read a stage's folder again, and say what of it is damaged; returns the trials that have ended."""
        known = len(self._state.damage)
        ended = self._state.reload(stage)
        self._tell_of(stage, self._state.damage[known:])
        return ended

    def _say(self, sentences: Sequence[str]) -> None:
        for sentence in sentences:
            logger.info(sentence)
            self._console.event(sentence)

    def _tell_of(self, stage: Stage, damage: Sequence[str]) -> None:
        for sentence in damage:
            logger.warning("%s %s: %s", stage.name, stage.key, sentence)
            self._console.event(f"{stage.name} {stage.key}: {sentence}")

    # Interruption and display

    def _check_signals(self) -> None:
        level = self._interruption.level
        if level <= self._stop_level:
            return
        self._stop_level = level
        if level == 1:
            self._console.event("stopping after the current epochs; interrupt again to stop at once")
            for key in self._running:
                self._executor.stop(key)
        else:
            self._executor.close()
            for running in self._running.values():
                self._reload(running.stage)
            self._running.clear()

    def _progress(self) -> Progress:
        left = self._state.epochs_ahead()
        current = dict.fromkeys(left, 0.0)  # parts of epochs
        for running in self._running.values():
            if running.stage.kind in current:
                current[running.stage.kind] += running.shown.epoch % 1
        done = self._state.epochs_done
        rows, size = self._state.front(FRONT_ROWS)
        complete, dense = self._state.count("complete"), self._state.stage(self._state.dense.key).metrics
        if (complete, bool(dense)) != self._best_of:  # it is looked for in all trials
            self._best_of = (complete, bool(dense))
            best = smallest_near_dense(self._state.record())
            self._best = best.row() if best else None
        return Progress(
            trials_done=complete + self._state.count("stopped"),
            trials_stopped=self._state.count("stopped"),
            trials_failed=self._state.count("failed"),
            goal=self._state.goal,
            epochs_done=done + sum(current.values()),
            epochs_total=done + sum(left.values()),
            seconds_left=self._seconds_left({kind: left[kind] - current[kind] for kind in left}),
            running=[self._show(running) for running in self._running.values()],
            front=rows,
            front_size=size,
            seconds=time.monotonic() - self._began,
            idle=self._executor.idle(),
            retries=sum(self._lost.values()),
            dense_accuracy=dense.get("val_accuracy"),
            best=self._best,
            page=self._tracker.page,
        )

    def _show(self, running: _Running) -> RunningStage:
        """A running stage with the trials that are waiting for it now."""
        trials = self._state.shown_with(running.stage)
        return replace(running.shown, trials=tuple(trial.number for trial in trials))

    def _seconds_left(self, epochs: dict[str, float]) -> float | None:
        seconds = 0.0
        for kind, count in epochs.items():
            rate = self._clock.seconds_per_epoch(kind)
            if rate is None:
                return None
            seconds += count * rate
        return seconds / max(1, len(self._running))


def resume(
    study: Study, config: Config, runs: Path, storage: Storage | None = None
) -> tuple[State, Sampling, Mirroring]:
    """What a driver starts from: the study's state, its sampler, and the mirror of its record.

    Damaged files of stages are set aside; `State.damage` tells of them.

    Args:
        study: its record.
        config: its config.
        runs: the folder of the studies.
        storage: where the Optuna study is kept; the one that the config means if not given.
    """
    store = Store(runs, config.stages)
    store.note_user()
    state = State(config, study, store, mend=True)
    sampling, entries = Sampling(config.search, config.seed), []
    told = state.ended_in_order()
    for number, point in enumerate(study.points):
        trial = state.trial(number)
        sampling.add(point)
        if number < told:
            settle(study, trial)
            sampling.tell(number, objective_values(trial), violations(trial))
            entries.append(_entry(trial, point))
        else:
            entries.append(_open_entry(trial, point))
    facts = json.loads(json.dumps(asdict(study.facts)))  # as databases give them back
    storage = storage or chosen_storage(config, study.folder)
    return state, sampling, mirrored(storage, config, facts, entries)


def objective_values(trial: TrialRecord) -> tuple[float, ...] | None:
    """The objectives of a trial, in the config's order, as the sampler learns them.

    Of a trial that was stopped they are estimated, as samplers learn nothing from one without values; None if
    it failed or is still running.
    """
    if trial.stop is None and trial.state != "complete":
        return None
    facts = trial.stop.estimate if trial.stop else trial.facts()
    return tuple(float(facts[name]) for name in trial.config.search.objectives)


def violations(trial: TrialRecord) -> dict[str, float]:
    """How far a trial is off each constraint, as the sampler learns it; empty if it failed or is running."""
    if trial.stop is None and trial.state != "complete":
        return {}
    return trial.config.search.violations(trial.stop.estimate if trial.stop else trial.facts())


def settle(study: Study, trial: TrialRecord) -> None:
    """Record for good whether a trial was stopped; one that failed may be tried again."""
    if trial.state != "failed":
        study.settle(trial.number, trial.stop)


def _entry(trial: TrialRecord, point: Point) -> Entry:
    """A trial that has ended, as the Optuna study holds it; one that was stopped has no values there."""
    is_complete = trial.state == "complete"
    objectives = trial.config.search.objectives
    facts = trial.facts() if is_complete else {REASON: trial.reason}
    notes = {name: fact for name, fact in facts.items() if name not in objectives}
    return replace(
        _open_entry(trial, point),
        values=objective_values(trial) if is_complete else None,
        state=trial.state,
        violations=violations(trial) if is_complete else {},
        notes={**_keys(trial), **notes},
    )


def _open_entry(trial: TrialRecord, point: Point) -> Entry:
    """A trial that the sampler has not seen the end of."""
    return Entry(trial.number, point, None, "running", notes=_keys(trial))


def _keys(trial: TrialRecord) -> dict[str, str]:
    """The keys of a trial's stages, by which their folders are found."""
    return {f"stage.{stage.name}": stage.key for stage in trial.stages}


def _shown(stage: Stage, state: State) -> RunningStage:
    """A stage as the display shows it before its first event."""
    trials = state.shown_with(stage)
    shared = stage.kind in ("sparse", "early", "curve", "latency") and stage.spec.pass_number == 1
    return RunningStage(
        name=stage.name,
        trials=(),
        beside=None if trials else state.name_beside(stage),
        strength=trials[0].strength if trials else getattr(stage.spec, "strength", 0.0),
        ratio=(trials[0].ratio or None) if trials and not shared else None,  # 0: a budget, not applied yet
        epoch=float(state.stage(stage.key).epochs_done),
        epochs=stage.epochs,
    )


def _after_epoch(stage: Stage, shown: RunningStage, row: Mapping[str, Any]) -> RunningStage:
    """The stage as the display shows it after an epoch, given the epoch's row of the history."""
    if isinstance(stage.spec, SparseSpec) and stage.spec.target is not None:
        shown = replace(shown, strength=row["lambda"])
    if "val_accuracy" in row:
        shown = replace(shown, accuracy=row["val_accuracy"], measured=int(row["epoch"]))
    return shown


def _images_per_second(stage: Stage, event: Event) -> float | None:
    assert isinstance(stage.spec, TrainingSpec), "only training has steps"
    return event.pace * stage.spec.recipe.batch_size or None


def _news(trial: TrialRecord) -> str:
    """A line on how a trial ended."""
    if trial.state in ("failed", "stopped"):
        return f"trial {trial.number} {trial.state}: {trial.reason}"
    row = trial.row()
    return (
        f"trial {trial.number} done: λ {row['lambda']:g}, ratio {row['ratio']:g}, "
        f"{row['params']:,} parameters, validation {row['val_accuracy']:.1%}"
    )
