"""Stages as processes on this machine: a crash ends one stage, and the driver's death ends all."""

from __future__ import annotations

import gc
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from typing import Any

from slimnet.training.memory import keep_memory
from sweeps.executors.base import Event
from sweeps.executors.reporting import report
from sweeps.interruption import SIGNALS
from sweeps.jobs import Job, Place
from sweeps.worker import compute

PRELOADED = ["sweeps.worker", "torch._dynamo"]  # every optimiser imports the latter, which takes a second


@dataclass
class _Running:
    process: Any
    connection: Connection
    place: Place
    ended: Event | None = None


class LocalExecutor:
    """Stages as processes, forked from a server that has already loaded torch.

    Args:
        places: one for each stage that may run at the same time.
    """

    def __init__(self, places: Sequence[Place]) -> None:
        self._places = list(places)
        self._running: dict[str, _Running] = {}

    @cached_property
    def _context(self) -> Any:
        return _forkserver()  # on first use, as a sweep that has reached its goal needs none

    def capacity(self) -> int:
        """How many places have no stage."""
        return len(self._free())

    def start(self, job: Job) -> str:
        """Start a stage in a new process."""
        place = self._free()[0]
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_work, args=(job, place, theirs), name=f"{job.stage.kind}-{job.key}", daemon=True
        )
        process.start()
        theirs.close()  # so that the worker holds the only copy, and its death closes the pipe
        self._running[job.key] = _Running(process, ours, place)
        return str(place)

    def stop(self, key: str) -> None:
        """Ask a stage to end after the current epoch."""
        if key in self._running:
            with suppress(OSError):
                self._running[key].connection.send("stop")

    def poll(self, timeout: float) -> list[Event]:
        """The new events of all stages."""
        if not self._running:
            time.sleep(timeout)
            return []
        ready = set(
            multiprocessing.connection.wait(
                [running.connection for running in self._running.values()], timeout
            )
        )
        events: list[Event] = []
        for key, running in list(self._running.items()):
            if running.connection in ready:
                events += self._receive(key, running)
        return events

    def close(self) -> None:
        """Kill all processes."""
        for running in self._running.values():
            running.process.kill()
            running.process.join()
            running.connection.close()
        self._running.clear()

    def _free(self) -> list[Place]:
        free = list(self._places)
        for running in self._running.values():
            free.remove(running.place)
        return free

    def _receive(self, key: str, running: _Running) -> list[Event]:
        events: list[Event] = []
        try:
            while running.connection.poll():
                event: Event = running.connection.recv()
                if event.ends:
                    running.ended = event
                else:
                    events.append(event)
        except (EOFError, OSError):
            running.process.join()
            running.connection.close()
            del self._running[key]
            events.append(running.ended or Event(key, "lost", reason=_death(running.process.exitcode)))
        return events


def _forkserver() -> Any:
    """A context whose processes start in a fraction of the time that importing torch takes.

    Its processes inherit a mask that blocks signals: Ctrl-C in a terminal reaches every process of the group,
    but only the driver may act on it.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with _signals_blocked():
        resource_tracker.ensure_running()  # first and separately, as it unblocks signals at its end
    with _signals_blocked():
        forkserver.ensure_running()
    return context


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Hold back signals, which reach this process afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _death(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        memory = "; the system may have run out of memory" if name == "SIGKILL" else ""
        return f"its process was killed by {name}{memory}"
    return f"its process ended with status {exitcode} and no result"


def _work(job: Job, place: Place, connection: Connection) -> None:
    """What a worker process runs."""
    keep_memory()
    gc.freeze()  # else the first collection would touch, and so copy, all memory shared with the server
    stop = threading.Event()
    threading.Thread(target=_listen, args=(connection, stop), daemon=True).start()

    def send(event: Event) -> None:
        try:
            connection.send(event)
        except OSError:
            os._exit(1)  # as `_listen` does when the driver is dead

    report(compute, job, place, stop.is_set, send)


def _listen(connection: Connection, stop: threading.Event) -> None:
    """Wait for messages from the driver; a closed pipe means that it is dead, and ends the worker."""
    try:
        while True:
            connection.recv()
            stop.set()
    except (EOFError, OSError):
        os._exit(1)
