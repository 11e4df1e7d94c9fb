"""Stages as processes of this machine, one per stage, that crash alone and die with the driver."""

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

PRELOADED = ["sweeps.worker", "torch._dynamo"]  # the latter because every optimiser imports it, for a second


@dataclass
class _Running:
    process: Any
    connection: Connection
    place: Place
    ended: Event | None = None


class LocalExecutor:
    """Stages as processes, forked from a server that has torch loaded already.

    Args:
        places: one for every stage that may run at the same time.
    """

    def __init__(self, places: Sequence[Place]) -> None:
        self._places = list(places)
        self._running: dict[str, _Running] = {}

    @cached_property
    def _context(self) -> Any:
        return _forkserver()  # not before the first stage, as a sweep at its goal needs none

    def capacity(self) -> int:
        """Places without a stage."""
        return len(self._free())

    def start(self, job: Job) -> str:
        """Begin a stage in a process of its own."""
        place = self._free()[0]
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_work, args=(job, place, theirs), name=f"{job.stage.kind}-{job.key}", daemon=True
        )
        process.start()
        theirs.close()  # so that the worker's end is the only one, and its death is seen
        self._running[job.key] = _Running(process, ours, place)
        return str(place)

    def stop(self, key: str) -> None:
        """Ask a stage to end after the epoch in hand."""
        if key in self._running:
            with suppress(OSError):
                self._running[key].connection.send("stop")

    def poll(self, timeout: float) -> list[Event]:
        """The news of all stages."""
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

    Its processes inherit a mask that blocks signals: a Ctrl-C in the terminal reaches every process of the
    group, but only the driver decides what follows from it.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with _signals_blocked():
        resource_tracker.ensure_running()  # first and by itself, as it unblocks signals when it is done
    with _signals_blocked():
        forkserver.ensure_running()
    return context


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Signals that come in between reach this process afterwards."""
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
    """The life of a worker process."""
    keep_memory()
    gc.freeze()  # else the first collection would walk through, and so copy, all that the server has loaded
    stop = threading.Event()
    threading.Thread(target=_listen, args=(connection, stop), daemon=True).start()

    def send(event: Event) -> None:
        try:
            connection.send(event)
        except OSError:
            os._exit(1)  # as `_listen` is about to

    report(compute, job, place, stop.is_set, send)


def _listen(connection: Connection, stop: threading.Event) -> None:
    """Wait for word from the driver; when the pipe closes the driver is dead, and the worker goes too."""
    try:
        while True:
            connection.recv()
            stop.set()
    except (EOFError, OSError):
        os._exit(1)
