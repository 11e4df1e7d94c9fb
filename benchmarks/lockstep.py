"""An executor whose stages go on only when the driver has heard of their last epoch, as slow ones do."""

from __future__ import annotations

import threading
from collections import Counter

from sweeps.executors import Event
from sweeps.executors.inline import InlineExecutor
from sweeps.executors.reporting import Compute
from sweeps.jobs import Job, Place, Watch
from sweeps.records import Row


class Lockstep(InlineExecutor):
    """Stages that take no time, in threads, which wait for the driver after every epoch.

    Args:
        compute: a stand-in for `sweeps.worker.compute`.
        workers: how many stages may run at the same time.

    Attributes:
        killed: the keys of stages that were killed, in order.
    """

    def __init__(self, compute: Compute, workers: int = 1) -> None:
        super().__init__(self._step, workers)
        self.killed: list[str] = []
        self._inner = compute
        self._reported: Counter[str] = Counter()  # epochs, by the key of the stage
        self._returned: Counter[str] = Counter()
        self._handled: Counter[str] = Counter()
        self._turn = threading.Condition()

    def poll(self, timeout: float) -> list[Event]:
        """The new events of all stages; those of the poll before have been handled."""
        with self._turn:
            self._handled = self._returned.copy()
            self._turn.notify_all()
        events = super().poll(timeout)
        self._returned.update(event.key for event in events if event.kind == "epoch")
        return events

    def kill(self, key: str, *, hangs: bool = False) -> None:
        """Treat a stage as if its process had died."""
        self.killed.append(key)
        super().kill(key)

    def _step(self, job: Job, place: Place, watch: Watch) -> bool:
        def epoch(row: Row) -> None:
            self._reported[job.key] += 1
            watch.epoch(row)
            with self._turn:
                while self._handled[job.key] < self._reported[job.key] and not watch.stop():
                    self._turn.wait(0.01)

        return self._inner(job, place, Watch(epoch, watch.step, watch.warning, watch.stop))
