"""Stages as threads of this process, for benchmarks and tests, where processes would be slow."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue

from sweeps.executors.base import Event
from sweeps.executors.reporting import Compute, report
from sweeps.jobs import Job, Place

PLACE = Place("cpu", 1)


@dataclass
class _Thread:
    stop: threading.Event = field(default_factory=threading.Event)
    lost: bool = False


class InlineExecutor:
    """Stages as threads.

    Args:
        compute: `sweeps.worker.compute`, or a stand-in for it.
        workers: how many stages may run at the same time; 1 for the real one, as networks cannot be recorded
            in two threads at once.
    """

    def __init__(self, compute: Compute, workers: int = 1) -> None:
        self._compute = compute
        self._workers = workers
        self._running: dict[str, tuple[_Thread, threading.Thread]] = {}
        self._events: SimpleQueue[tuple[_Thread, Event]] = SimpleQueue()

    def capacity(self) -> int:
        """How many more threads may be started."""
        return self._workers - len(self._running)

    def idle(self) -> int:
        """How many more stages could run now."""
        return self.capacity()

    def start(self, job: Job) -> str:
        """Start a stage in a new thread."""
        mine = _Thread()

        def work() -> None:
            report(self._compute, job, PLACE, mine.stop.is_set, lambda e: self._events.put((mine, e)))

        thread = threading.Thread(target=work, name=f"{job.stage.kind}-{job.key}", daemon=True)
        self._running[job.key] = mine, thread
        thread.start()
        return str(PLACE)

    def stop(self, key: str) -> None:
        """Ask a stage to end after the current epoch."""
        if key in self._running:
            self._running[key][0].stop.set()

    def kill(self, key: str, *, hangs: bool = False) -> None:
        """Treat a stage as if its process had died."""
        if key not in self._running:
            return
        mine, thread = self._running[key]
        mine.lost = True
        mine.stop.set()
        thread.join()
        self._events.put((mine, Event(key, "lost", reason="its thread was told to end")))

    def poll(self, timeout: float) -> list[Event]:
        """The new events of all stages."""
        events: list[Event] = []
        while True:
            try:
                mine, event = self._events.get(timeout=0 if events else timeout)
            except Empty:
                return events
            if mine.lost and event.kind != "lost":
                continue
            events.append(event)
            if event.ends:
                _, thread = self._running.pop(event.key)
                thread.join()

    def close(self) -> None:
        """Ask all threads to end, wait for them, and discard their events."""
        for mine, thread in self._running.values():
            mine.stop.set()
            thread.join()
        self._running.clear()
        while not self._events.empty():
            self._events.get()
