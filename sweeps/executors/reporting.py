"""Computes a stage and reports events, in whatever executor."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from slimnet.errors import SlimnetError
from sweeps.executors.base import Event
from sweeps.jobs import DamagedInputError, Job, Place, Watch

REPORT_EVERY = 0.2  # seconds between reports from within an epoch
ALIVE_EVERY = 5.0  # seconds between signs of life where there is nothing to report

Compute = Callable[[Job, Place, Watch], bool]


def report(
    compute: Compute, job: Job, place: Place, stop: Callable[[], bool], send: Callable[[Event], None]
) -> None:
    """Compute a stage and report its events.

    Args:
        compute: computes it.
        job, place: what to compute, and where.
        stop: whether to end after the current epoch.
        send: called with each event; the last one says how the stage ended.
    """
    steps = _Steps(job.key, send)

    def epoch(row: Mapping[str, Any]) -> None:
        plain = {name: value for name, value in row.items() if name != "gamma"}
        send(Event(job.key, "epoch", int(row["epoch"]), row=plain))

    def warning(text: str) -> None:
        send(Event(job.key, "warning", reason=text))

    def stops() -> bool:
        steps.alive()  # as it is also asked while the stage waits for another process
        return stop()

    watch = Watch(epoch=epoch, step=steps.note, warning=warning, stop=stops, alive=steps.alive)
    try:
        finished = compute(job, place, watch)
        send(Event(job.key, "done" if finished else "stopped"))
    except DamagedInputError as error:
        send(Event(job.key, "blocked", reason=str(error), detail=error.role))
    except SlimnetError as error:
        send(Event(job.key, "failed", reason=str(error)))
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        send(Event(job.key, "failed", reason=reason, detail=traceback.format_exc()))


class _Steps:
    """Reports steps and their pace, at most every REPORT_EVERY seconds."""

    def __init__(self, key: str, send: Callable[[Event], None]) -> None:
        self._key, self._send = key, send
        self._told = (0.0, 0, 0)  # moment, epoch and step of the last report
        self._pace = 0.0
        self._alive = time.monotonic()

    def alive(self) -> None:
        """Report that the stage is alive."""
        if (now := time.monotonic()) - self._alive >= ALIVE_EVERY:
            self._alive = now
            self._send(Event(self._key, "alive"))

    def note(self, epoch: int, step: int, steps: int) -> None:
        moment, its_epoch, its_step = self._told
        now = time.monotonic()
        if now - moment < REPORT_EVERY:
            return
        if epoch == its_epoch:
            self._pace = (step - its_step) / (now - moment)
        self._told = (now, epoch, step)
        self._send(Event(self._key, "step", epoch, step, steps, pace=self._pace))
