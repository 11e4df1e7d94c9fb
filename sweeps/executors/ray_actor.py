"""What computes a stage on a Ray cluster: an actor, which is a process of its own with its share of a node.

An actor rather than a task, as a task dies with the driver that began it. This one is detached: a driver
that is started again, on whatever node, finds it by its name and hears all that it has to tell. Without a
driver it goes on to the end of its stage and then leaves.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import ray

from slimnet.devices import device_name
from slimnet.errors import SlimnetError
from slimnet.training.memory import keep_memory
from sweeps.executors import processes
from sweeps.executors.base import Event
from sweeps.executors.reporting import Compute, report
from sweeps.jobs import Job, Place, Watch

SEEN = 20.0  # seconds until a new folder is seen by every node that shares it
LISTEN = 2.0  # seconds that a driver waits for news; steps are told then, so that a thousand stages may tell
WAITS = 600.0  # seconds that it waits at most while another is measured, as a driver may have died meanwhile
DESERTED = 60.0  # seconds without a driver, after which an actor that has nothing to do leaves

Numbered = tuple[int, Event]


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
        self._begun = self._ended = False
        self._heard = time.monotonic()
        self._stop, self._free = threading.Event(), threading.Event()
        self._free.set()
        threading.Thread(target=self._leave_if_deserted, daemon=True).start()

    def where(self) -> Spot:
        """Where this is; answered once Ray has found a place."""
        self._heard = time.monotonic()
        context = ray.get_runtime_context()
        return Spot(context.get_node_id(), ray.util.get_node_ip_address(), self._begun)

    def begin(self, job: Job, place: Place, log: Path | None, compute: Compute | None) -> None:
        """Begin the stage, if it has not been begun; `compute` stands in for the worker's."""
        with self._news:
            if self._begun:
                return
            self._begun = True
        threading.Thread(target=self._work, args=(job, place, log, compute or _compute)).start()

    def next(self, after: int) -> list[Numbered]:
        """The events numbered above `after`; waits a while for one that is more than a step."""
        self._heard = time.monotonic()
        with self._news:
            self._news.wait_for(lambda: self._weighty > after, LISTEN)
            self._heard = time.monotonic()
            return [(number, event) for number, event in self._told if number > after]

    def tell(self, message: processes.Message) -> None:
        """Take a message: stop after the epoch; or wait at the next event, and go on."""
        match message:
            case "wait":
                self._free.clear()
            case "go on":
                self._free.set()
            case "stop":
                self._stop.set()

    def _work(self, job: Job, place: Place, log: Path | None, compute: Compute) -> None:
        if log is not None:
            processes.print_to(log)
        sys.stdout = sys.stderr
        keep_memory()
        report(_where_it_is_seen(compute), job, place, self._stop.is_set, self._add)

    def _add(self, event: Event) -> None:
        """Keep an event; of signs of life and steps, the last says all."""
        self._free.wait(WAITS)
        with self._news:
            if self._told and self._told[-1][1].kind in ("alive", "step"):
                self._told.pop()
            self._number += 1
            self._told.append((self._number, event))
            if event.kind not in ("alive", "step"):
                self._weighty = self._number
            self._ended = event.ends
            self._news.notify_all()

    def _leave_if_deserted(self) -> None:
        while time.monotonic() - self._heard < DESERTED or (self._begun and not self._ended):
            time.sleep(1.0)
        os._exit(0)


def _where_it_is_seen(compute: Compute) -> Compute:
    """The computation, of a stage whose folder the driver and this node share."""

    def computed(job: Job, place: Place, watch: Watch) -> bool:
        folder, deadline = job.store.folder(job.stage), time.monotonic() + SEEN
        while job.store.remote is None and not folder.is_prepared():
            if time.monotonic() > deadline:
                raise SlimnetError(
                    f"{folder.path} cannot be seen on {ray.util.get_node_ip_address()}; "
                    "--runs must name storage that all nodes share, by the same path"
                )
            folder.look_anew()
            time.sleep(1.0)
        return compute(job, place, watch)

    return computed


def _compute(job: Job, place: Place, watch: Watch) -> bool:
    """Compute a stage; of a latency, only on a device like the one that the study's latencies are of."""
    from sweeps.worker import compute

    machine = getattr(job.stage.spec, "machine", None)
    if machine not in (None, here := device_name(place.device)):
        raise SlimnetError(f"the study's latencies are of {machine}, and Ray placed this on {here}")
    return compute(job, place, watch)
