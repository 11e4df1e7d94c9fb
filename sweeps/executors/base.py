"""The interface of executors, which compute stages, and the events that they report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from slimnet.errors import SlimnetError
from sweeps.jobs import Job

EventKind = Literal["alive", "step", "epoch", "warning", "done", "stopped", "failed", "lost", "blocked"]


@dataclass(frozen=True)
class Event:
    """Something that happened to a stage.

    Attributes:
        key: the stage's key.
        kind: "alive", "step", "epoch" and "warning" while it runs; then one of "done", "stopped" (on request;
            it can be resumed), "failed" (by an error that would occur again), "lost" (its process or machine
            died; the stage can be resumed elsewhere) or "blocked" (the network of an input is damaged).
        epoch, step, steps: the current epoch, from 1, and for "step" the steps done and all steps of it.
        pace: steps per second without evaluation, for "step"; 0 before it is known.
        row: the epoch's row of the history, without its histogram, for "epoch".
        reason: one sentence, for "warning", "failed", "lost" and "blocked".
        detail: a traceback, or the last lines that a lost process printed, if there are any; for "blocked"
            the field of the spec that names the input.
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
        """Whether this is the last event of this start of the stage."""
        return self.kind in ("done", "stopped", "failed", "lost", "blocked")


class ExecutorDiedError(SlimnetError):
    """What the stages are computed with is gone for good, and they with it.

    Attributes:
        reason: what happened, without what to do.
    """

    def __init__(self, reason: str, way_out: str) -> None:
        super().__init__(f"{reason}. {way_out}")
        self.reason = reason


class Executor(Protocol):
    """Computes stages. It decides which device and how many threads each of them gets."""

    def capacity(self) -> int:
        """How many stages can be started now; some may have to wait for a place."""

    def idle(self) -> int:
        """How many places have nothing to do."""

    def start(self, job: Job) -> str:
        """Start a stage and return where it runs, for the log; `capacity` must not be 0."""

    def stop(self, key: str) -> None:
        """Ask a stage to end after the current epoch; does nothing if it is not running."""

    def kill(self, key: str, *, hangs: bool = False) -> None:
        """End a stage at once, whose only further event is that it is lost; nothing if it is not running.

        One that other drivers compute with this one goes on for them, unless it hangs.
        """

    def poll(self, timeout: float) -> list[Event]:
        """The new events, in order for each stage; waits up to `timeout` seconds for the first.

        When the last event of a stage is returned, its capacity is free again.
        """

    def close(self) -> None:
        """End all stages at once, without further events; their checkpoints stay."""
