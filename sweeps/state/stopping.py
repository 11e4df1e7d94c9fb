"""Which trials of a study are stopped early.

A trial is judged by the trials that had ended for certain when it was sampled, those up to its number less
`search.ahead`, and by no others. So the same trials are stopped after the same epochs with any number of
workers and after any interruption. What is settled stays, though a failed trial may succeed later.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from sweeps.config import Config
from sweeps.records import StageRecord, Stop, TrialRecord
from sweeps.stages import DamagedStageError, Stage
from sweeps.stopping import Course, Yardstick


class Stopping:
    """The verdicts on a study's trials.

    Args:
        config: the study's config.
        ends: what is settled, by the number of the trial.
    """

    def __init__(self, config: Config, ends: Mapping[int, Stop | None]) -> None:
        self._stops = config.search.stopping is not None
        self._ahead = config.search.ahead
        self._ends = ends
        self._yardstick = Yardstick(config.search)
        self._included = 0  # trials in the yardstick
        self._waiting: deque[int] = deque()  # trials without a yardstick, in order
        self._yardsticks: dict[int, Yardstick] = {}  # of open trials
        self._complete: dict[str, int] = {}  # the first complete trial in it with a last stage, by its key
        self._judged: dict[int, int] = {}  # the last epoch in which an open trial was judged
        self._measured: dict[str, dict[int, float]] = {}  # accuracies by epoch, by the key of the stage
        self._read: dict[str, int] = {}  # how many epochs of a stage that includes

    def add(self, number: int) -> None:
        """Add the next trial."""
        if self._stops and number not in self._ends:
            self._waiting.append(number)

    def awaits(self, number: int) -> bool:
        """Whether a trial cannot be judged yet, as an earlier one has to be computed again."""
        return number in self._waiting

    def give_yardsticks(self, trials: Sequence[TrialRecord], ended: int) -> list[int]:
        """Fix what waiting trials are judged by, where all trials have ended that it depends on.

        Args:
            trials: by number.
            ended: how many trials have ended before the first that has not.

        Returns:
            The trials that can be judged now and could not before.
        """
        given = []
        while self._waiting and self._waiting[0] - self._ahead < ended:
            number = self._waiting.popleft()
            while self._included <= number - self._ahead:
                self._include(trials[self._included])
            self._yardsticks[number] = self._yardstick
            given.append(number)
        return given

    def judge(self, trial: TrialRecord) -> Stop | None:
        """Whether a trial is stopped, and after which of its epochs so far."""
        number, prune = trial.number, trial.last("prune")
        if number in self._ends:
            return self._ends[number]
        yardstick = self._yardsticks.get(number)
        if yardstick is None or not prune.metrics:
            return None
        if self._complete.get(trial.stages[-1].key, number) <= number - self._ahead:
            return None  # its network is there already
        course = self._course(trial)
        for epoch in sorted(course.accuracies):
            if self._judged.get(number, -1) < epoch < course.epochs:
                self._judged[number] = epoch
                facts = {name: prune.metrics[name] for name in ("params", "macs")}
                if stop := yardstick.judge(facts, course, epoch):
                    return stop
        return None

    def forget(self, number: int) -> None:
        """Forget what is kept for a trial that has ended."""
        self._yardsticks.pop(number, None)
        self._judged.pop(number, None)

    def note_epoch(self, stage: Stage, row: Mapping[str, Any]) -> None:
        """Note an epoch of a stage."""
        if self._stops and stage.kind == "finetune":
            self._note(stage.key, row)

    def _note(self, key: str, row: Mapping[str, Any]) -> None:
        self._read[key] = row["epoch"]
        measured = self._measured.setdefault(key, {})
        if "val_accuracy" in row:
            measured[row["epoch"]] = float(row["val_accuracy"])

    def _course(self, trial: TrialRecord) -> Course:
        start = {0: float(trial.last("prune").metrics["val_accuracy"])}
        return Course(trial.config.finetune.epochs, start | self._accuracies(trial.stages[-1]))

    def _accuracies(self, tuned: StageRecord) -> dict[int, float]:
        """What was measured in the epochs of a fine-tuning, which are read if they are not known yet."""
        if tuned.epochs_done > self._read.get(tuned.key, 0):
            try:
                for row in tuned.history:
                    self._note(tuned.key, row)
            except DamagedStageError:
                return {}
        return self._measured.get(tuned.key, {})

    def _include(self, trial: TrialRecord) -> None:
        self._included += 1
        if trial.state == "complete":
            self._complete.setdefault(trial.stages[-1].key, trial.number)
            whole, course = trial.first("sparse").metrics, self._course(trial)
            self._yardstick = self._yardstick.with_trial(trial.number, trial.metrics, whole, course)
        for kept in (self._measured, self._read):
            kept.pop(trial.stages[-1].key, None)
