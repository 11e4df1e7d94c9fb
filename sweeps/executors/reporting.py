"""Computes a stage and reports events, in whatever executor."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from slimnet.errors import SlimnetError
from sweeps.claim import ClaimLostError
from sweeps.executors.base import Event
from sweeps.jobs import DamagedInputError, Job, Place, Watch

REPORT_EVERY = 0.2  # seconds between reports from within an epoch
ALIVE_EVERY = 5.0  # seconds between signs of life where there is nothing to report
BESIDE = "others do not rest, so that it is measured beside them"

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
    reporter = _Reporter(job.key, send)

    def epoch(row: Mapping[str, Any]) -> None:
        plain = {name: value for name, value in row.items() if name != "gamma"}
        reporter.tell(Event(job.key, "epoch", int(row["epoch"]), row=plain))

    def warning(text: str) -> None:
        reporter.tell(Event(job.key, "warning", reason=text))

    threading.Thread(target=reporter.beat, daemon=True).start()
    try:
        finished = compute(job, place, Watch(epoch=epoch, step=reporter.step, warning=warning, stop=stop))
        reporter.tell(Event(job.key, "done" if finished else "stopped"))
    except DamagedInputError as error:
        reporter.tell(Event(job.key, "blocked", reason=str(error), detail=error.role))
    except ClaimLostError as error:
        reporter.tell(Event(job.key, "lost", reason=str(error)))
    except SlimnetError as error:
        reporter.tell(Event(job.key, "failed", reason=str(error)))
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        reporter.tell(Event(job.key, "failed", reason=reason, detail=traceback.format_exc()))


class _Reporter:
    """Reports one event after the other, from any thread, and none after the last."""

    def __init__(self, key: str, send: Callable[[Event], None]) -> None:
        self._key, self._send = key, send
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._told = (0.0, 0, 0)  # moment, epoch and step of the last report of steps
        self._pace = 0.0

    def tell(self, event: Event) -> None:
        """Report an event."""
        with self._lock:
            if not self._over.is_set():
                self._send(event)
                if event.ends:
                    self._over.set()

    def step(self, epoch: int, step: int, steps: int) -> None:
        """Report steps and their pace, at most every REPORT_EVERY seconds."""
        moment, its_epoch, its_step = self._told
        now = time.monotonic()
        if now - moment < REPORT_EVERY:
            return
        if epoch == its_epoch:
            self._pace = (step - its_step) / (now - moment)
        self._told = (now, epoch, step)
        self.tell(Event(self._key, "step", epoch, step, steps, pace=self._pace))

    def beat(self) -> None:
        """Report every ALIVE_EVERY seconds, until the stage ends or trains; then its steps are judged."""
        while not self._told[0] and not self._over.wait(ALIVE_EVERY):
            self.tell(Event(self._key, "alive"))
