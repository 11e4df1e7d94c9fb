"""What computes a stage on a Ray cluster: an actor, which is a process of its own with its share of a node.

An actor rather than a task, as a task dies with the driver that began it. This one is detached: a driver
that is started again, on whatever node, finds it by its name and hears all that it has to tell. So do the
drivers of other studies that share the stage: it ends before its time only when the last of them wants that.
Without a driver it goes on to the end of its stage and then leaves.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import ray

from slimnet.devices import device_name
from slimnet.errors import SlimnetError
from slimnet.training.memory import keep_memory
from sweeps.executors import processes
from sweeps.executors.base import Event
from sweeps.executors.reporting import ALIVE_EVERY, Compute, report
from sweeps.jobs import Job, Place, Watch

SEEN = 20.0  # seconds until a new folder is seen by every node that shares it
LISTEN = 2.0  # seconds that a driver waits for news; steps are told then, so that a thousand stages may tell
DESERTED = 60.0  # seconds without a word from a driver, after which it is believed to be dead
FAREWELL = 3.0  # seconds in which all drivers that listen have heard of the end

Numbered = tuple[int, Event]
Wish = Literal["stop", "end"]
"""Of a driver that leaves: that the stage ends after the current epoch, or at once."""


class UnfitNodeError(SlimnetError):
    """This node cannot compute a stage that another may."""


@dataclass(frozen=True)
class Misplaced(Event):
    """The stage is lost, as its node cannot compute it."""


@dataclass(frozen=True)
class Spot:
    """Where Ray has placed an actor.

    Attributes:
        node: the id of the node.
        host: its address.
        begun: whether a driver before this one has begun the stage.
    """

    node: str
    host: str
    begun: bool


class StageActor:
    """Computes one stage, and keeps what it has to tell for the drivers that listen."""

    def __init__(self) -> None:
        self._told: list[Numbered] = []
        self._news = threading.Condition()
        self._number = self._weighty = (
            0  # of the last event, and of the last that is more than a sign of life
        )
        self._begun = self._ended = self._unfit = self._rests = False
        self._key, self._worker = "", threading.current_thread()  # of the stage, once it has begun
        self._listeners: dict[str, float] = {}  # drivers, and when each was last heard
        self._heard = time.monotonic()  # the last of them
        self._wish: Wish | None = None  # of a driver that left when others still seemed to listen
        self._farewell: float | None = None  # when the first driver left that had heard of the end
        self._measures: set[str] = set()  # drivers for whose measurements it is to rest
        self._stop = threading.Event()
        threading.Thread(target=self._leave_if_deserted, daemon=True).start()

    def where(self, driver: str) -> Spot:
        """Where this is; answered once Ray has found a place. The driver listens from now on."""
        with self._news:
            self._hear(driver)
            begun = self._begun
        context = ray.get_runtime_context()
        return Spot(context.get_node_id(), ray.util.get_node_ip_address(), begun)

    def begin(self, job: Job, place: Place, log: Path | None, compute: Compute | None) -> None:
        """Begin the stage, if it has not been begun; `compute` stands in for the worker's."""
        with self._news:
            if self._begun:
                return
            self._begun, self._key = True, job.key
            self._worker = threading.Thread(target=self._work, args=(job, place, log, compute or _compute))
        self._worker.start()

    def next(self, driver: str, after: int) -> list[Numbered] | None:
        """The events numbered above `after`; waits a while for one that is more than a step.

        Returns:
            None if the driver has left and the stage goes on for others.
        """
        with self._news:
            if driver in self._listeners:
                self._hear(driver)
            self._news.wait_for(lambda: self._weighty > after or driver not in self._listeners, LISTEN)
            if driver in self._listeners:
                self._hear(driver)
            elif not self._ended:
                return None
            else:
                self._news.wait(LISTEN)  # for the end of this process
            return [(number, event) for number, event in self._told if number > after]

    def leave(self, driver: str, wish: Wish) -> None:
        """A driver needs the stage no longer, or has heard of its end; the last one's wish is granted."""
        with self._news:
            self._measures.discard(driver)  # what it has is saved now, not when others have measured
            others = self._listens_beside(driver)
            if others or wish == "end":
                self._listeners.pop(driver, None)
            self._news.notify_all()
            if not others:
                self._grant(wish)
            elif self._ended:
                self._farewell = self._farewell or time.monotonic()
            else:
                self._wish = wish

    def rest(self, driver: str) -> None:
        """Rest where the stage reports next or asks whether to stop, until `go_on`; answered once it does."""
        with self._news:
            self._measures.add(driver)
            while self._begun and not self._ended and not self._rests and self._measures_for(driver):
                self._news.wait(LISTEN)

    def go_on(self, driver: str) -> None:
        """Rest no longer for this driver."""
        with self._news:
            self._measures.discard(driver)
            self._news.notify_all()

    def _work(self, job: Job, place: Place, log: Path | None, compute: Compute) -> None:
        if log is not None:
            processes.print_to(log)
        sys.stdout = sys.stderr
        keep_memory()

        def computed(job: Job, place: Place, watch: Watch) -> bool:
            try:
                _wait_until_seen(job)
                return compute(job, place, watch)
            except UnfitNodeError:
                self._unfit = True
                raise
            finally:
                with suppress(OSError):
                    job.store.drop_unused()  # as nobody else clears this node up

        report(computed, job, place, self._stops, self._add)

    def _stops(self) -> bool:
        self._rest()
        return self._stop.is_set()

    def _add(self, event: Event) -> None:
        """Keep an event of the stage."""
        if event.kind != "warning":  # which may come from where others are locked out of what they need
            self._rest()
        if event.ends and self._unfit:
            event = Misplaced(event.key, "lost", reason=event.reason)
        self._keep(event)

    def _rest(self) -> None:
        """Rest while a driver that is not dead measures; only the thread that computes does."""
        if threading.current_thread() is not self._worker:
            return
        with self._news:
            while any(map(self._measures_for, self._measures)):
                self._rests = True
                self._keep(Event(self._key, "alive"))
                self._news.wait(ALIVE_EVERY)
            self._rests = False

    def _measures_for(self, driver: str) -> bool:
        """Whether it is to rest for this driver, which is not dead."""
        heard = self._listeners.get(driver, -DESERTED)
        return driver in self._measures and time.monotonic() - heard < DESERTED

    def _keep(self, event: Event) -> None:
        """Keep an event; of signs of life and steps, the last says all."""
        with self._news:
            if self._told and self._told[-1][1].kind in ("alive", "step"):
                self._told.pop()
            self._number += 1
            self._told.append((self._number, event))
            if event.kind not in ("alive", "step"):
                self._weighty = self._number
            self._ended = event.ends
            self._news.notify_all()

    def _hear(self, driver: str) -> None:
        self._listeners[driver] = self._heard = time.monotonic()
        self._wish = None

    def _listens_beside(self, driver: str) -> bool:
        """Whether another driver listens."""
        since = time.monotonic() - DESERTED
        return any(heard > since for other, heard in self._listeners.items() if other != driver)

    def _grant(self, wish: Wish) -> None:
        if wish == "end":
            os._exit(0)
        self._stop.set()

    def _leave_if_deserted(self) -> None:
        while True:
            time.sleep(1.0)
            with self._news:
                now = time.monotonic()
                if self._farewell and now - self._farewell > FAREWELL:
                    os._exit(0)
                if now - self._heard < DESERTED:
                    continue
                if self._wish:
                    self._grant(self._wish)
                if self._ended or not self._begun:
                    os._exit(0)


def _wait_until_seen(job: Job) -> None:
    """Wait for a stage's folder, which the driver and this node share."""
    folder, deadline = job.store.folder(job.stage), time.monotonic() + SEEN
    while job.store.remote is None and not folder.is_prepared():
        if time.monotonic() > deadline:
            raise UnfitNodeError(
                f"{folder.path} cannot be seen on {ray.util.get_node_ip_address()}; "
                "--runs must name storage that all nodes share, by the same path"
            )
        folder.look_anew()
        time.sleep(1.0)


def _compute(job: Job, place: Place, watch: Watch) -> bool:
    """Compute a stage; of a latency, only on a device like the one that the study's latencies are of."""
    from sweeps.worker import compute

    machine = getattr(job.stage.spec, "machine", None)
    if machine not in (None, here := device_name(place.device)):
        raise UnfitNodeError(f"the study's latencies are of {machine}, and Ray placed this on {here}")
    return compute(job, place, watch)
