"""Stages on a Ray cluster: Ray finds them a node and their GPUs, and they outlive a driver that dies."""

from __future__ import annotations

import hashlib
import logging
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import ray
from ray.exceptions import ActorUnavailableError, RayActorError, RayError

from sweeps.executors import processes
from sweeps.executors.base import Event
from sweeps.executors.ray_actor import Spot, StageActor
from sweeps.executors.ray_cluster import NAMESPACE, Cluster, nodes
from sweeps.executors.reporting import ALIVE_EVERY, Compute
from sweeps.jobs import Job, Place

AHEAD = 2  # stages that may wait for a place, or as many as fit if more: they make a cluster grow that can
AGAIN = 1.0  # seconds until an actor that could not be reached is asked again
TELLS = 30.0  # seconds of waiting for a node with room after which that is told
LEAVING = 10.0  # seconds in which actors that are killed are gone
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

    @property
    def alone(self) -> bool:
        """Whether it wants to be alone on its node."""
        return self.job.stage.spec.alone


class RayExecutor:
    """Stages as Ray actors, each named after its stage, so that there is never a second one of a stage.

    While a stage runs that wants to be alone, those on its node wait, and none begins there.

    Args:
        cluster: where.
        place: the device and the threads that a stage has where Ray places it.
        workers: the most stages that may be started at once; "auto" takes as many as fit, and some that wait.
        logs: a folder for what the processes print, on storage that all nodes share.
        compute: in place of `sweeps.worker.compute`.
    """

    def __init__(
        self,
        cluster: Cluster,
        place: Place,
        workers: int | Literal["auto"] = "auto",
        logs: Path | None = None,
        compute: Compute | None = None,
    ) -> None:
        self._cluster = cluster
        self._place = place
        self._workers = workers
        self._logs = logs
        self._compute = compute
        self._running: dict[str, _Running] = {}

    def capacity(self) -> int:
        """How many more stages may be started."""
        room = self._cluster.room()
        most = room + max(AHEAD, room)
        if self._workers != "auto":
            most = min(most, self._workers)
        return max(0, most - len(self._running))

    def start(self, job: Job) -> str:
        """Start a stage, or take it up where a driver before this one has started it and died."""
        job = replace(job, store=job.store.absolute())  # the node has another working folder
        where = hashlib.sha256(str(job.store).encode()).hexdigest()[:8]
        actor = (
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
            )
            .remote()
        )
        self._running[job.key] = _Running(job, actor, actor.where.remote(), known=job.known_epochs)
        return f"Ray with {self._cluster.share}"

    def stop(self, key: str) -> None:
        """Ask a stage to end after the current epoch; one that has not begun ends at once."""
        if running := self._running.get(key):
            if running.begun:
                running.actor.tell.remote("stop")
            else:
                self._end(running, Event(key, "stopped"))

    def kill(self, key: str) -> None:
        """Kill the process of a stage."""
        if running := self._running.get(key):
            self._end(running, Event(key, "lost", reason="its process was ended"))

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
        self._begin_placed()
        return events + self._of_waiting()

    def close(self) -> None:
        """Kill all processes, also those that wait for a place."""
        for running in self._running.values():
            ray.kill(running.actor)
        left = [running.actor.where.remote() for running in self._running.values()]
        ray.wait(left, num_returns=len(left), timeout=LEAVING) if left else None
        self._running.clear()

    def spot(self, key: str) -> Spot | None:
        """Where a stage runs; None while Ray looks for a place."""
        return self._running[key].spot

    def has_begun(self, key: str) -> bool:
        """Whether a stage runs that has been told to begin."""
        return key in self._running and self._running[key].begun

    def _ask(self, running: _Running) -> None:
        running.call = (
            running.actor.next.remote(running.last) if running.spot else running.actor.where.remote()
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
            return [self._over(running, error)]
        events: list[Event] = []
        if running.spot is None:
            running.spot = answer
            running.known *= answer.begun  # else what it computes is news, if again
            if answer.begun and not self._alone_on(answer.node):
                running.actor.tell.remote("go on")  # where a driver died before it could
            logger.info("%s is %s on %s", key, "taken up" if answer.begun else "placed", answer.host)
        else:
            for number, event in answer:
                running.last = number
                if event.ends and running.end is None:
                    self._end(running, event)
                elif running.end is None and not (event.kind == "epoch" and event.epoch <= running.known):
                    events.append(event)
        self._ask(running)
        return events

    def _end(self, running: _Running, event: Event) -> None:
        """Kill the process of a stage; its event is told once Ray says that it is gone, and its name free."""
        running.end = running.end or event
        ray.kill(running.actor)

    def _over(self, running: _Running, error: RayError) -> Event:
        """The last event of a stage whose process is gone."""
        key, job = running.job.key, running.job
        folder = job.store.folder(job.stage)
        folder.look_anew()
        del self._running[key]
        if running.alone and running.spot:
            self._tell_beside(running, "go on")
        log = self._log(job)
        words = processes.close_log(log) if log else ""
        if running.end:
            return running.end
        if folder.state() == "done":  # and another driver has heard of it first
            return Event(key, "done")
        if isinstance(error, RayActorError) and not error.actor_init_failed:
            return Event(key, "lost", reason=self._death(running, error), detail=words or str(error))
        return Event(key, "failed", reason=f"Ray could not start it ({_first(error)})", detail=str(error))

    def _death(self, running: _Running, error: RayError) -> str:
        """How the process of a stage ended, in words."""
        text, spot = str(error), running.spot
        if spot is None:
            return f"Ray lost it before it began ({_first(error)})"
        if "node has died" in text or spot.node not in {node["NodeID"] for node in nodes()}:
            return f"its node {spot.host} died"
        memory = "; the node was low on memory" if "memory" in text.lower() else ""
        return f"its process on {spot.host} died{memory}"

    def _begin_placed(self) -> None:
        """Have stages begin that Ray has found a place for; one that wants to be alone, once others wait."""
        for running in self._running.values():
            spot = running.spot
            if running.begun or running.end or spot is None:
                continue
            if self._alone_on(spot.node) and not spot.begun:
                continue
            if running.alone:
                self._tell_beside(running, "wait")
            running.actor.begin.remote(running.job, self._place, self._log(running.job), self._compute)
            running.begun = True

    def _alone_on(self, node: str) -> bool:
        """Whether a stage runs on a node that wants to be alone there."""
        return any(
            running.alone and running.begun and running.spot and running.spot.node == node
            for running in self._running.values()
        )

    def _tell_beside(self, running: _Running, message: processes.Message) -> None:
        """Tell the other stages on a stage's node, and see that they have heard it."""
        told = [
            other.actor.tell.remote(message)
            for other in self._running.values()
            if other is not running and other.spot and running.spot and other.spot.node == running.spot.node
        ]
        ray.wait(told, num_returns=len(told), timeout=LEAVING) if told else None

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
            if waits and not running.told and not self._cluster.room():
                running.told = True
                events.append(Event(key, "warning", reason=f"{self._cluster.lacking()}; it waits for one"))
        return events

    def _log(self, job: Job) -> Path | None:
        return self._logs / f"{job.stage.kind}-{job.key}.log" if self._logs else None


def _first(error: RayError) -> str:
    return str(error).strip().partition("\n")[0]
