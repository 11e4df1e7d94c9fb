"""What a worker is given: a stage, a place to compute it, and somebody to report to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sweeps.records import Row
from sweeps.stages import Stage, Store


@dataclass(frozen=True)
class Job:
    """A stage to compute.

    Attributes:
        store: where its folder is, and those of the stages that it starts from.
        data_path, data_dir: where the data set is; the spec holds its fingerprint.
    """

    stage: Stage
    store: Store
    data_path: Path | None = None
    data_dir: Path | None = None

    @property
    def key(self) -> str:
        """The stage's key."""
        return self.stage.key


@dataclass(frozen=True)
class Place:
    """Where one stage is computed: "cpu" or "cuda:<n>", with so many threads."""

    device: str
    threads: int

    def __str__(self) -> str:
        return f"{self.device} with {self.threads} thread{'s' * (self.threads > 1)}"


@dataclass(frozen=True)
class Watch:
    """How a stage reports while it runs.

    Attributes:
        epoch: called with the newest row of the history after each epoch that is computed, not for those
            found done.
        step: called with (epoch, steps done, steps) within one.
        warning: called with a sentence on what was damaged and how the stage goes on.
        stop: whether to end after the epoch in hand, or while waiting for another process to end.
    """

    epoch: Callable[[Row], None] = lambda row: None
    step: Callable[[int, int, int], None] = lambda epoch, step, steps: None
    warning: Callable[[str], None] = lambda text: None
    stop: Callable[[], bool] = lambda: False
