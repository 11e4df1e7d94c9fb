"""Where stages run: local processes, one per stage, that crash alone and die with the driver."""

from __future__ import annotations

import gc
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from typing import Any, Literal, Protocol

from slimnet.errors import SlimnetError
from slimnet.memory import keep_memory
from sweeps.interruption import SIGNALS
from sweeps.machine import Slot
from sweeps.worker import Job, Watch, compute

REPORT_EVERY = 0.2  # seconds between reports from within an epoch
PRELOADED = ["sweeps.worker", "torch._dynamo"]  # the latter because every optimiser imports it, for a second


@dataclass(frozen=True)
class Event:
    """News of a running stage.

    Attributes:
        key: of the stage.
        kind: "step", "epoch", "warning", "done", "stopped" (asked to, resumable) or "failed".
        epoch, step, steps: how far it is, for "step" and "epoch".
        pace: steps per second, evaluation left out, for "step"; 0 until it is known.
        reason, detail: one sentence, for "warning" and "failed", and a traceback where there is one.
    """

    key: str
    kind: Literal["step", "epoch", "warning", "done", "stopped", "failed"]
    epoch: int = 0
    step: int = 0
    steps: int = 0
    reason: str = ""
    detail: str = ""
    pace: float = 0.0


class Executor(Protocol):
    """What the driver needs of a place that computes stages."""

    def free_slots(self) -> Sequence[Slot]:
        """Slots without a stage."""

    def start(self, job: Job, slot: Slot) -> None:
        """Begin a stage in a free slot."""

    def poll(self, timeout: float) -> list[Event]:
        """The news, waiting for some up to `timeout` seconds."""

    def stop(self) -> None:
        """Ask all stages to end after the epoch in hand."""

    def kill(self) -> None:
        """End all stages at once; their checkpoints stay."""


@dataclass
class _Running:
    process: Any
    connection: Connection
    slot: Slot
    ended: Event | None = None


class LocalExecutor:
    """Stages as processes of this machine, forked from a server that has torch loaded already."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        self._slots = list(slots)
        self._running: dict[str, _Running] = {}

    @cached_property
    def _context(self) -> Any:
        return _forkserver()  # not before the first stage, as a sweep at its goal needs none

    def free_slots(self) -> list[Slot]:
        """Slots without a stage."""
        free = list(self._slots)
        for running in self._running.values():
            free.remove(running.slot)
        return free

    def start(self, job: Job, slot: Slot) -> None:
        """Begin a stage in a process of its own."""
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_work, args=(job, theirs), name=f"{job.kind}-{job.key}", daemon=True
        )
        process.start()
        theirs.close()  # so that the worker's end is the only one, and its death is seen
        self._running[job.key] = _Running(process, ours, slot)

    def poll(self, timeout: float) -> list[Event]:
        """The news of all stages; one that ended has freed its slot when its last event is returned."""
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

    def stop(self) -> None:
        """Ask all stages to end after the epoch in hand."""
        for running in self._running.values():
            with suppress(OSError):
                running.connection.send("stop")

    def kill(self) -> None:
        """End all stages at once."""
        for running in self._running.values():
            running.process.kill()
            running.process.join()
            running.connection.close()
        self._running.clear()

    def _receive(self, key: str, running: _Running) -> list[Event]:
        events: list[Event] = []
        try:
            while running.connection.poll():
                event: Event = running.connection.recv()
                if event.kind in ("step", "epoch", "warning"):
                    events.append(event)
                else:
                    running.ended = event
        except (EOFError, OSError):
            running.process.join()
            running.connection.close()
            del self._running[key]
            events.append(running.ended or Event(key, "failed", reason=_death(running.process.exitcode)))
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


def _work(job: Job, connection: Connection) -> None:
    """The life of a worker process."""
    keep_memory()
    gc.freeze()  # else the first collection would walk through, and so copy, all that the server has loaded
    stop = threading.Event()
    threading.Thread(target=_listen, args=(connection, stop), daemon=True).start()
    reported = (0.0, 0, 0)  # moment, epoch and step of the last report
    pace = 0.0

    def send(event: Event) -> None:
        try:
            connection.send(event)
        except OSError:
            os._exit(1)  # as `_listen` is about to

    def step(epoch: int, step: int, steps: int) -> None:
        nonlocal reported, pace
        moment, its_epoch, its_step = reported
        now = time.monotonic()
        if now - moment >= REPORT_EVERY:
            if epoch == its_epoch:
                pace = (step - its_step) / (now - moment)
            reported = (now, epoch, step)
            send(Event(job.key, "step", epoch, step, steps, pace=pace))

    def epoch(done: int) -> None:
        send(Event(job.key, "epoch", done))

    def warning(text: str) -> None:
        send(Event(job.key, "warning", reason=text))

    try:
        finished = compute(job, Watch(epoch=epoch, step=step, warning=warning, stop=stop.is_set))
        end = Event(job.key, "done" if finished else "stopped")
    except SlimnetError as error:
        end = Event(job.key, "failed", reason=str(error))
    except Exception as error:
        end = Event(
            job.key, "failed", reason=f"{type(error).__name__}: {error}", detail=traceback.format_exc()
        )
    send(end)


def _listen(connection: Connection, stop: threading.Event) -> None:
    """Wait for word from the driver; when the pipe closes the driver is dead, and the worker goes too."""
    try:
        while True:
            connection.recv()
            stop.set()
    except (EOFError, OSError):
        os._exit(1)
