"""Stages as processes on this machine: a crash ends one stage, and the driver's death ends all."""

from __future__ import annotations

import math
import multiprocessing.connection
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sweeps.executors import processes
from sweeps.executors.base import Event
from sweeps.executors.reporting import BESIDE, report
from sweeps.jobs import Job, Place


@dataclass
class _Running:
    child: processes.Child
    place: Place
    alone: bool
    log: Path | None
    ended: Event | None = None
    rests: bool = False  # it was told to, and does
    began: float = field(default_factory=time.monotonic)


class LocalExecutor:
    """Stages as processes.

    While a stage runs that wants to be alone, none starts, and the others rest where they report next or ask
    whether to stop. It begins once all of them do.

    Args:
        places: one for each stage that may run at the same time.
        logs: a folder for what the processes print, one file for each stage; by default it goes to stderr.
        patience: seconds after which a stage that wants to be alone begins beside others that do not rest.
    """

    def __init__(self, places: Sequence[Place], logs: Path | None = None, patience: float = math.inf) -> None:
        self._places = list(places)
        self._logs = logs
        self._patience = patience
        self._order = 0  # the number of the last order to rest or go on; answers to others are too late
        self._running: dict[str, _Running] = {}

    def capacity(self) -> int:
        """How many places have no stage; 0 while one is alone."""
        return 0 if self._alone else len(self._free())

    def idle(self) -> int:
        """How many more stages could run now."""
        return self.capacity()

    def start(self, job: Job) -> str:
        """Start a stage in a new process."""
        place = self._free()[0]
        if job.stage.spec.alone:
            self._tell_all(rest=True)
        name = f"{job.stage.kind}-{job.key}"
        log = self._logs / f"{name}.log" if self._logs else None
        alone = job.stage.spec.alone
        child = processes.start(_work, job, place, log, name=name, rests=self._order if alone else None)
        self._running[job.key] = _Running(child, place, alone, log)
        return str(place)

    def stop(self, key: str) -> None:
        """Ask a stage to end after the current epoch."""
        if key in self._running:
            self._running[key].child.tell("stop")

    def kill(self, key: str, *, hangs: bool = False) -> None:
        """Kill the process of a stage."""
        if key in self._running:
            self._running[key].child.process.kill()

    def poll(self, timeout: float) -> list[Event]:
        """The new events of all stages."""
        if not self._running:
            time.sleep(timeout)
            return []
        connections = [running.child.connection for running in self._running.values()]
        ready = set(multiprocessing.connection.wait(connections, timeout))
        events: list[Event] = []
        for key, running in list(self._running.items()):
            if running.child.connection in ready:
                events += self._receive(key, running)
        events += self._begin_alone()
        events += [Event(key, "alive") for key, running in self._running.items() if running.rests]
        return events

    def close(self) -> None:
        """Kill all processes."""
        for running in self._running.values():
            running.child.end()
        self._running.clear()

    @property
    def _alone(self) -> bool:
        return any(running.alone for running in self._running.values())

    def _begin_alone(self) -> list[Event]:
        """Let the stage begin that wants to be alone, once all the others rest."""
        events: list[Event] = []
        for key, running in self._running.items():
            all_rest = all(other.rests for other in self._running.values())
            late = time.monotonic() - running.began > self._patience
            if running.alone and running.rests and (all_rest or late):
                running.rests = False
                running.child.tell("go on")
                events += [] if all_rest else [Event(key, "warning", reason=BESIDE)]
        return events

    def _tell_all(self, *, rest: bool) -> None:
        self._order += 1
        for running in self._running.values():
            running.rests = False
            running.child.tell(self._order if rest else "go on")

    def _free(self) -> list[Place]:
        free = list(self._places)
        for running in self._running.values():
            free.remove(running.place)
        return free

    def _receive(self, key: str, running: _Running) -> list[Event]:
        events: list[Event] = []
        connection = running.child.connection
        try:
            while connection.poll():
                event: Event | int = connection.recv()
                if isinstance(event, int):
                    running.rests = event == self._order
                elif event.ends:
                    running.ended = event
                else:
                    events.append(event)
        except (EOFError, OSError):
            death = running.child.death()
            del self._running[key]
            if running.alone:
                self._tell_all(rest=False)
            last_words = processes.close_log(running.log) if running.log else ""
            events.append(running.ended or Event(key, "lost", reason=death, detail=last_words))
        return events


def _work(send: processes.Send, stop: Callable[[], bool], job: Job, place: Place, log: Path | None) -> None:
    """What a worker process runs."""
    if log is not None:
        processes.print_to(log)
    from sweeps.worker import compute  # imports torch, which the driver does without

    if job.stage.spec.alone:
        send(Event(job.key, "alive"))  # it waits here until it is
        if stop():
            send(Event(job.key, "stopped"))
            return
    report(compute, job, place, stop, send)
