"""The loop of a sweep: trials become stages, workers compute them, and Optuna and W&B get the results.

`resuming` makes what it starts from, `telling` what others learn of a trial, and `overview` what is shown.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from slimnet.wording import duration
from sweeps.console import Console
from sweeps.executors import Event, Executor, ExecutorDiedError
from sweeps.interruption import Interruption
from sweeps.jobs import Job
from sweeps.overview import Overview, news
from sweeps.progress import Progress, ProgressFile, RunningStage
from sweeps.records import StudyRecord, TrialRecord
from sweeps.stages import Stage
from sweeps.state import State
from sweeps.study import Study
from sweeps.study.mirror import Mirroring
from sweeps.study.sampling import Sampling
from sweeps.telling import ended_entry, open_entry, tell
from sweeps.tracking import Tracker

POLL_SECONDS = 0.25
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
        sampling: draws the points of new trials; up to date with the study, as `resuming.resume` returns it.
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
        self._overview = Overview(state)
        self._told = state.ended_in_order()  # trials whose results the sampler and Optuna know
        self._running: dict[str, _Running] = {}
        self._lost: dict[str, int] = {}  # how often the worker of a stage was lost
        self._aside: set[int] = set()  # trials that were stopped from their W&B pages
        self._stop_level = 0
        self._looked = time.monotonic()

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
        except ExecutorDiedError as error:
            if not self._interruption.level:
                raise
            self._console.error(error.reason)  # a signal has ended this run before, which says how to go on
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
            tell(trial, self._study, self._sampling)
            self._mirror.tell(ended_entry(trial, self._study.points[trial.number]))
            self._told += 1

    def _ask(self) -> None:
        point = self._sampling.ask()
        self._study.add(point)
        trial = self._state.add(point)
        self._mirror.add(open_entry(trial, point))
        self._publish([trial] if trial.state != "running" else [])

    def _publish(self, ended: Sequence[TrialRecord] = ()) -> None:
        """Update W&B, print which trials have ended, and end the training of those that were stopped."""
        self._tracker.update(self._state.record())
        for trial in ended:
            self._console.event(news(trial))
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
        shown = self._overview.at_start(stage, folder)
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
                silent = duration(60 * self._state.config.stall_minutes)
                event = replace(event, reason=f"no progress for {silent}, so it was ended")
            del self._running[event.key]
            logger.info("%s %s %s %s", stage.name, stage.key, event.kind, event.reason)
            self._end(stage, event)
        elif event.kind == "warning":
            logger.warning("%s %s: %s", stage.name, stage.key, event.reason)
            self._console.event(f"{self._overview.name(stage)}: {event.reason}")
        elif event.kind != "alive":
            running.shown = self._overview.after(event, stage, running.shown)
            if event.kind == "epoch":
                logger.info("%s %s epoch %d of %d", stage.name, stage.key, event.epoch, stage.epochs)
                self._publish(self._state.advance(stage, event.row))
                self._console.epoch(self._overview.with_trials(stage, running.shown))

    def _end(self, stage: Stage, event: Event) -> None:
        """Handle the end of a stage, whatever its outcome."""
        self._overview.forget(stage)
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
                    f"{self._overview.name(stage)}: {event.reason}; it goes on from its last epoch "
                    f"(retry {self._lost[stage.key]} of {retries})"
                )
        if fails and folder.state() != "done":
            times = self._lost.get(stage.key, 1)
            reason = event.reason if times == 1 else f"{event.reason} ({times} times)"
            folder.fail(reason, "" if event.kind == "blocked" else event.detail)
            if not self._state.users(stage):  # else trials fail with it, which is told of each
                self._console.event(f"{self._overview.name(stage)} failed: {reason}")
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
            self._console.event(f"{self._overview.name(stage)}: {sentence}")

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
        return self._overview.progress(
            [(running.stage, running.shown) for running in self._running.values()],
            idle=self._executor.idle(),
            retries=sum(self._lost.values()),
            page=self._tracker.page,
        )
