"""What the driver needs of a place that computes stages, and the news that it gets from there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from sweeps.jobs import Job

EventKind = Literal["step", "epoch", "warning", "done", "stopped", "failed", "lost"]


@dataclass(frozen=True)
class Event:
    """News of a stage.

    Attributes:
        key: of the stage.
        kind: "step", "epoch" and "warning" while it runs; then one of "done", "stopped" (asked to,
            resumable), "failed" (the computation said so, and would again) or "lost" (its process or machine
            is gone, and the stage can go on elsewhere).
        epoch, step, steps: how far it is, for "step" and "epoch".
        pace: steps per second, evaluation left out, for "step"; 0 until it is known.
        row: of the history, without its histogram, for "epoch".
        reason, detail: one sentence for "warning", "failed" and "lost", and a traceback where there is one.
    """

    key: str
    kind: EventKind
    epoch: int = 0
    step: int = 0
    steps: int = 0
    pace: float = 0.0
    row: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    detail: str = ""

    @property
    def ends(self) -> bool:
        """Whether no further news of this start of the stage will come."""
        return self.kind in ("done", "stopped", "failed", "lost")


class Executor(Protocol):
    """A place that computes stages. It decides which device and how many threads each of them gets."""

    def capacity(self) -> int:
        """How many stages can be started now."""

    def start(self, job: Job) -> str:
        """Begin a stage and say where, for the log; `capacity` must not be 0."""

    def stop(self, key: str) -> None:
        """Ask a stage to end after the epoch in hand; one that is not running is left alone."""

    def poll(self, timeout: float) -> list[Event]:
        """The news, in order for each stage, waiting for some up to `timeout` seconds.

        A stage has freed its place when the event that ends it is returned.
        """

    def close(self) -> None:
        """End all stages at once, without news of it; their checkpoints stay."""
