"""Stages on a Ray cluster: Ray finds them a node and their GPUs, and they outlive a driver that dies."""

from __future__ import annotations

import hashlib
import logging
import math
import time
import uuid
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import ray
from ray.exceptions import ActorUnavailableError, ActorUnschedulableError, RayActorError, RayError

from slimnet.wording import first_line
from sweeps.executors import processes
from sweeps.executors.base import Event
from sweeps.executors.ray_actor import Misplaced, Numbered, Spot, StageActor
from sweeps.executors.ray_cluster import NAMESPACE, Cluster, gist
from sweeps.executors.ray_head import living_nodes
from sweeps.executors.reporting import ALIVE_EVERY, BESIDE, Compute
from sweeps.jobs import Job, Place

AHEAD = 2  # stages that may wait for a place, or as many as fit if more: they make a cluster grow that can
AGAIN = 1.0  # seconds until an actor that could not be reached is asked again
TELLS = 30.0  # seconds of waiting for a node with room after which that is told
LEAVING = 10.0  # seconds in which actors that are killed are gone
HEARS = 1.0  # seconds in which they have heard it, where the head that would tell of their end is dead
ANEW = 3  # times that an actor is made again that another driver has ended before it had a place
LISTENERS = 8  # calls that an actor takes at once: each driver waits for news in one

logger = logging.getLogger("sweeps.executors.ray")


@dataclass
class _Running:
    """A stage that has been started.

    Attributes:
        job: the stage.
        actor: computes it.
        call: what the actor was asked: where it is, or for its news; None to ask again from `asks` on.
        spot: where it is; None while Ray looks for a place.
        begun: whether it was told to begin.
        last: the number of its newest event.
        known: epochs that were known when it was started; it may tell of them again.
        end: the event that ends it, kept until its process is gone.
        asks: from when on the actor is asked again.
        since, alive: when it was started, and when it last gave a sign of life while it waited.
        told: whether its wait was told of.
        beside: of one that wants to be alone: calls that end once the others on its node rest; None before
            they were told to.
        placed: when they were.
        made: how often an actor was made for it.
    """

    job: Job
    actor: Any
    call: Any
    spot: Spot | None = None
    begun: bool = False
    last: int = 0
    known: int = 0
    end: Event | None = None
    asks: float = 0.0
    since: float = field(default_factory=time.monotonic)
    alive: float = field(default_factory=time.monotonic)
    told: bool = False
    beside: list[Any] | None = None
    placed: float = 0.0
    made: int = 1

    @property
    def alone(self) -> bool:
        """Whether it wants to be alone on its node."""
        return self.job.stage.spec.alone


class RayExecutor:
    """Stages as Ray actors, each named after its stage, so that there is never a second one of a stage.

    Drivers of several studies may listen to one actor. What one of them ends goes on for the others.
    A stage that wants to be alone begins once those on its node rest, and none begins there meanwhile.
    A node that could not begin a stage, or not see its folder, gets no further one from this driver.

    Args:
        cluster: where.
        place: the device and the threads that a stage has where Ray places it.
        workers: the most stages that may be started at once; "auto" takes as many as fit, and some that wait.
        logs: a folder for what the processes print, on storage that all nodes share.
        patience: seconds after which a stage that wants to be alone begins beside others that do not rest.
        compute: in place of `sweeps.worker.compute`.
    """

    def __init__(
        self,
        cluster: Cluster,
        place: Place,
        workers: int | Literal["auto"] = "auto",
        logs: Path | None = None,
        patience: float = math.inf,
        compute: Compute | None = None,
    ) -> None:
        self._cluster = cluster
        self._place = place
        self._workers = workers
        self._logs = logs
        self._patience = patience
        self._compute = compute
        self._running: dict[str, _Running] = {}
        self._name = uuid.uuid4().hex  # by which actors know this driver
        self._unfit: set[str] = set()  # nodes
        self._unfit_alone: set[str] = set()  # those that are only so for stages that want to be alone

    def capacity(self) -> int:
        """How many more stages may be started."""
        room = self._cluster.room()
        most = room + max(AHEAD, room)
        if self._workers != "auto":
            most = min(most, self._workers)
        return max(0, most - len(self._running))

    def idle(self) -> int:
        """How many more stages would run now, rather than wait for a place."""
        room = self._cluster.room()
        places = room if self._workers == "auto" else min(room, self._workers)
        return max(0, places - len(self._running))

    def start(self, job: Job) -> str:
        """Start a stage, or take it up where a driver before this one has started it and died."""
        job = replace(job, store=job.store.absolute())  # the node has another working folder
        actor = self._cluster.head.answer(self._actor, job)
        call = actor.where.remote(self._name)
        self._running[job.key] = _Running(job, actor, call, known=job.known_epochs)
        return f"Ray with {self._cluster.share}"

    def _actor(self, job: Job) -> Any:
        """The actor of a stage; made if there is none."""
        where = hashlib.sha256(str(job.store).encode()).hexdigest()[:8]
        unfit = sorted(self._unfit_for(job))
        return (
            ray.remote(StageActor)
            .options(
                name=f"{job.stage.kind}-{job.key} in {where}",
                namespace=NAMESPACE,
                lifetime="detached",
                get_if_exists=True,
                num_cpus=self._cluster.cpus,
                num_gpus=self._cluster.gpus,
                max_restarts=0,
                max_concurrency=LISTENERS,
                label_selector={"ray.io/node-id": f"!in({','.join(unfit)})"} if unfit else None,
            )
            .remote()
        )

    def stop(self, key: str) -> None:
        """Ask a stage to end after the current epoch; one that has not begun or that others need, at once."""
        if running := self._running.get(key):
            if running.begun:
                running.actor.leave.remote(self._name, "stop")
            else:
                self._end(running, Event(key, "stopped"))

    def kill(self, key: str, *, hangs: bool = False) -> None:
        """End the process of a stage, unless it is in order and other drivers need it."""
        if running := self._running.get(key):
            self._end(running, Event(key, "lost", reason="its process was ended"))
            if hangs:
                ray.kill(running.actor)

    def poll(self, timeout: float) -> list[Event]:
        """The new events of all stages."""
        now = time.monotonic()
        for running in self._running.values():
            if running.call is None and running.asks <= now:
                self._ask(running)
        calls = {running.call: key for key, running in self._running.items() if running.call is not None}
        if not calls:
            time.sleep(timeout)
            return []
        ready, _ = ray.wait(list(calls), num_returns=1, timeout=timeout)
        if ready:
            ready, _ = ray.wait(list(calls), num_returns=len(calls), timeout=0)
        events: list[Event] = []
        for call in ready:
            events += self._receive(calls[call])
        return events + self._begin_placed() + self._of_waiting()

    def close(self) -> None:
        """End all processes that no other driver needs, also those that wait for a place."""
        silent = self._cluster.head.is_silent()  # then only those that have a place can be told
        running = [one for one in self._running.values() if one.spot or not silent]
        left = {self._leave(one): one.actor for one in running}
        if left:
            _, hang = ray.wait(list(left), num_returns=len(left), timeout=HEARS if silent else LEAVING)
            for call in hang if not silent else ():
                ray.kill(left[call])
        self._running.clear()

    def spot(self, key: str) -> Spot | None:
        """Where a stage runs; None while Ray looks for a place."""
        return self._running[key].spot

    def has_begun(self, key: str) -> bool:
        """Whether a stage runs that has been told to begin."""
        return key in self._running and self._running[key].begun

    def _ask(self, running: _Running) -> None:
        actor = running.actor
        running.call = (
            actor.next.remote(self._name, running.last) if running.spot else actor.where.remote(self._name)
        )

    def _receive(self, key: str) -> list[Event]:
        """What the answer of an actor says."""
        running = self._running[key]
        try:
            answer = ray.get(running.call)
        except ActorUnavailableError:  # it may be back, or Ray finds that it is dead
            running.call, running.asks = None, time.monotonic() + AGAIN
            return []
        except RayError as error:
            return self._over(running, error)
        if answer is None:
            return [self._forget(running, running.end or Event(key, "stopped"))]
        if running.spot is None:
            running.spot = answer
            running.known *= answer.begun  # else what it computes is news, if again
            logger.info("%s is %s on %s", key, "taken up" if answer.begun else "placed", answer.host)
            if running.end:
                self._leave(running)
            events = []
        else:
            events = self._news(running, answer)
        self._ask(running)
        return events

    def _news(self, running: _Running, told: list[Numbered]) -> list[Event]:
        """Those events of a stage that the driver does not know."""
        events: list[Event] = []
        for number, event in told:
            running.last = number
            if running.end:
                continue
            if isinstance(event, Misplaced) and running.spot:
                event = self._avoid(running, running.spot.node, event)
            if event.ends:
                self._end(running, event)
            elif not (event.kind == "epoch" and event.epoch <= running.known):
                events.append(event)
        return events

    def _end(self, running: _Running, event: Event) -> None:
        """Leave a stage; its event is told once its process is gone, and its name free, or others have it."""
        running.end = running.end or event
        self._leave(running)

    def _leave(self, running: _Running) -> Any:
        """End the process of a stage, unless another driver listens; returns a call that ends with that."""
        if running.spot or self._cluster.head.has_placed(running.actor):
            return running.actor.leave.remote(self._name, "end")
        ray.kill(running.actor)  # other drivers that wait for it make another
        return running.actor.where.remote(self._name)

    def _forget(self, running: _Running, last: Event) -> Event:
        """Forget a stage that has ended, or that goes on for others; returns its last event."""
        del self._running[running.job.key]
        if running.beside is not None:
            for other in self._beside(running):
                other.actor.go_on.remote(self._name)
        return last

    def _over(self, running: _Running, error: RayError) -> list[Event]:
        """What there is to tell of a stage whose process is gone."""
        job = running.job
        died = isinstance(error, RayActorError) and not error.actor_init_failed
        if died and not running.spot and not running.end and running.made <= ANEW:
            running.actor = self._cluster.head.answer(self._actor, job)
            running.made += 1
            self._ask(running)
            return []
        log = self._log(job)
        words = processes.close_log(log) if log else ""
        folder = job.store.folder(job.stage)
        folder.look_anew()
        if running.end:
            last = running.end
        elif folder.state() == "done":  # and another driver has heard of it first
            last = Event(job.key, "done")
        elif died:
            last = Event(job.key, "lost", reason=self._death(running, error), detail=words or str(error))
        else:
            last = self._not_begun(running, error)
        return [self._forget(running, last)]

    def _not_begun(self, running: _Running, error: RayError) -> Event:
        """The last event of a stage that could not begin."""
        key = running.job.key
        if isinstance(error, ActorUnschedulableError):
            return Event(
                key, "failed", reason=f"Ray could not start it ({first_line(error)})", detail=str(error)
            )
        ray.kill(running.actor)  # in whose place there may be one that answers nothing but errors
        node, host = self._cluster.head.node_of(running.actor)
        reason = f"Ray could not start it on {host} ({gist(str(error))})"
        return self._avoid(running, node, Event(key, "lost", reason=reason, detail=str(error)))

    def _avoid(self, running: _Running, node: str, event: Event) -> Event:
        """Start no further stage on a node; returns the event of this one, which fails if none is left."""
        if node:
            (self._unfit_alone if running.alone else self._unfit).add(node)
        if self._cluster.fitting() - self._unfit_for(running.job):
            return event
        reason = f"{event.reason}; no other node is left"
        return Event(event.key, "failed", reason=reason, detail=event.detail)

    def _unfit_for(self, job: Job) -> set[str]:
        """Nodes that cannot compute a stage."""
        return self._unfit | self._unfit_alone if job.stage.spec.alone else self._unfit

    def _death(self, running: _Running, error: RayError) -> str:
        """How the process of a stage ended, in words."""
        text, spot = str(error), running.spot
        if spot is None:
            return f"Ray lost it before it began ({first_line(error)})"
        living = {node["NodeID"] for node in self._cluster.head.answer(living_nodes)}
        if "node has died" in text or spot.node not in living:
            return f"its node {spot.host} died"
        memory = "; the node was low on memory" if "memory" in text.lower() else ""
        return f"its process on {spot.host} died{memory}"

    def _begin_placed(self) -> list[Event]:
        """Have stages begin that Ray has found a place for; one that wants to be alone, once others rest."""
        events: list[Event] = []
        for running in self._running.values():
            spot = running.spot
            if running.begun or running.end or spot is None:
                continue
            if self._alone_beside(running):
                if not spot.begun:
                    continue
                running.actor.rest.remote(self._name)
            if running.alone and running.beside is None:
                running.beside = [one.actor.rest.remote(self._name) for one in self._beside(running)]
                running.placed = time.monotonic()
            if running.beside and not spot.begun:
                rest, _ = ray.wait(running.beside, num_returns=len(running.beside), timeout=0)
                if len(rest) < len(running.beside):
                    if time.monotonic() - running.placed < self._patience:
                        continue
                    events.append(Event(running.job.key, "warning", reason=BESIDE))
            running.actor.begin.remote(running.job, self._place, self._log(running.job), self._compute)
            running.begun = True
        return events

    def _beside(self, running: _Running) -> list[_Running]:
        """The other stages that are on a stage's node."""
        return [
            other
            for other in self._running.values()
            if other is not running and other.spot and running.spot and other.spot.node == running.spot.node
        ]

    def _alone_beside(self, running: _Running) -> bool:
        """Whether another stage on a stage's node is to be alone there."""
        return any(other.beside is not None for other in self._beside(running))

    def _of_waiting(self) -> list[Event]:
        """Signs of life of stages that wait for a place, as nobody else gives any."""
        events: list[Event] = []
        now = time.monotonic()
        for key, running in self._running.items():
            if running.begun or running.end or now - running.alive < ALIVE_EVERY:
                continue
            running.alive = now
            events.append(Event(key, "alive"))
            waits = running.spot is None and now - running.since > TELLS
            if waits and not running.told and not self._cluster.fitting() - self._unfit_for(running.job):
                running.told = True
                events.append(Event(key, "warning", reason=f"{self._cluster.lacking()}; it waits for one"))
        return events

    def _log(self, job: Job) -> Path | None:
        return self._logs / f"{job.stage.kind}-{job.key}.log" if self._logs else None
