"""How far a sweep is, and how long it will take."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sweeps.executors import Event
from sweeps.stages import Stage

MOST_TRIALS = 6  # trial numbers listed for a stage


@dataclass(frozen=True)
class RunningStage:
    """A stage that a worker is computing, as a display shows it.

    Attributes:
        name: the stage's name in its trials.
        trials: numbers of the trials that wait for it; for a curve, the first trial with its network; empty
            for the dense baseline, controls and repeats.
        strength: λ, the latest value if it changes.
        ratio: the trial's ratio; None for a sparse stage or a curve, which trials of any ratio share.
        epoch: epochs done, including the fraction of the current one.
        epochs: all epochs of the stage.
        accuracy: on the validation split, after epoch `measured`.
        measured: the epoch of the last measurement; 0 before the first.
        images_per_second: in training; None before it is known.
        beside: the name of the control or repeat that it is for, if no trial waits for it.
        where: what computes it.
        retry: how often its worker was lost.
    """

    name: str
    trials: tuple[int, ...]
    strength: float
    ratio: float | None
    epoch: float
    epochs: int
    accuracy: float | None = None
    measured: int = 0
    images_per_second: float | None = None
    beside: str | None = None
    where: str = ""
    retry: int = 0


@dataclass(frozen=True)
class Progress:
    """The whole sweep at one moment.

    Attributes:
        trials_done: with those that were stopped early.
        seconds_left: None until an epoch has been timed.
        running: the stages that are being computed.
        front: the first rows of the front.
        front_size: how many rows the front has.
        objectives: names of the metrics by which trials are compared, which are columns of the front.
        seconds: since this run of the sweep began.
        idle: workers that have nothing to do.
        retries: how often a worker was lost in this run, and its stage went on.
        dense_accuracy: of the dense network on the validation split; None until it is trained.
        best: the row of the smallest network within a point of that; None if there is none.
        page: the address on W&B; None if there is none.
    """

    trials_done: int
    trials_failed: int
    goal: int
    epochs_done: float
    epochs_total: float
    seconds_left: float | None
    running: Sequence[RunningStage]
    front: Sequence[dict[str, Any]]
    front_size: int
    objectives: Sequence[str] = ()
    trials_stopped: int = 0
    seconds: float = 0.0
    idle: int = 0
    retries: int = 0
    dense_accuracy: float | None = None
    best: dict[str, Any] | None = None
    page: str | None = None


class ProgressFile:
    """progress.json in a study's folder, by which other processes see a sweep that runs, while it does.

    It is worth nothing afterwards: it is not waited for, and where it cannot be written the sweep goes on.
    """

    EVERY = 0.5  # seconds between two versions

    def __init__(self, study: Path) -> None:
        self._path = study / "progress.json"
        self._written = -self.EVERY

    def write(self, progress: Progress) -> None:
        """Replace what the file holds, unless that is too new."""
        now = time.monotonic()
        if now - self._written < self.EVERY:
            return
        self._written = now
        aside = self._path.with_name(f".{self._path.name}")
        with suppress(OSError):
            aside.write_text(json.dumps(asdict(progress)))
            aside.replace(self._path)

    def remove(self) -> None:
        """Delete the file at the end of the run."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def read(self, since: float) -> Progress | None:
        """What the file holds; None if there is none, or only one from before a moment of the file system."""
        try:
            if self._path.stat().st_mtime < since:
                return None
            content = json.loads(self._path.read_bytes())
            running = [
                RunningStage(**{**stage, "trials": tuple(stage["trials"])}) for stage in content["running"]
            ]
            return Progress(**{**content, "running": running})
        except (OSError, ValueError, TypeError, LookupError):
            return None


def listed(trials: Sequence[int]) -> str:
    """The numbers of trials, as many as there is room for."""
    more = len(trials) - MOST_TRIALS
    numbers = ", ".join(map(str, trials[:MOST_TRIALS]))
    return f"{numbers} and {more} more" if more > 0 else numbers


def whose(trials: Sequence[int], beside: str | None) -> str:
    """Whom a stage is for, in words: its trials, else the control or repeat that it is a stage of."""
    if trials:
        return f"trial{'s' * (len(trials) > 1)} {listed(trials)}"
    return beside or "dense network"


@dataclass
class Clock:
    """Times epochs by kind of stage from the events of the executor."""

    _seen: dict[str, tuple[float, float]] = field(default_factory=dict)  # key -> (moment, epochs done)
    _spent: dict[str, float] = field(default_factory=dict)
    _epochs: dict[str, float] = field(default_factory=dict)

    def note(self, stage: Stage, event: Event) -> None:
        """Note the progress of a running stage."""
        done = epochs_at(event)
        now = time.monotonic()
        if stage.key in self._seen:
            moment, before = self._seen[stage.key]
            if done > before:
                self._spent[stage.kind] = self._spent.get(stage.kind, 0.0) + now - moment
                self._epochs[stage.kind] = self._epochs.get(stage.kind, 0.0) + done - before
        self._seen[stage.key] = (now, done)

    def forget(self, stage: Stage) -> None:
        """Note that a stage has ended."""
        self._seen.pop(stage.key, None)

    def seconds_per_epoch(self, kind: str) -> float | None:
        """The mean so far, over all kinds where this one has not been timed; None before the first."""
        if self._epochs.get(kind, 0) > 0:
            return self._spent[kind] / self._epochs[kind]
        total = sum(self._epochs.values())
        return sum(self._spent.values()) / total if total > 0 else None


def epochs_at(event: Event) -> float:
    """Epochs done at an event, including the fraction of the current one."""
    if event.kind == "step":
        return event.epoch - 1 + event.step / event.steps
    return float(event.epoch)
