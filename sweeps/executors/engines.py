"""Where a run computes, by its config: on this machine, or on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from slimnet.errors import SlimnetError
from slimnet.wording import plural
from sweeps.config import Config
from sweeps.executors import processes
from sweeps.executors.base import Executor
from sweeps.jobs import Place
from sweeps.machine import Machine, places

if TYPE_CHECKING:
    from sweeps.executors.ray_cluster import Cluster


class Engine(Protocol):
    """Answers questions that need torch, and makes the executor of a run."""

    def warm_up(self) -> None:
        """Get ready for questions meanwhile, where that takes a while."""

    def ask(self, question: Callable[..., Any], *arguments: Any) -> Any:
        """The answer to a question that needs torch, found where stages are computed.

        Raises:
            SlimnetError: as the function; or there is nobody to ask.
        """

    def places(self, machine: Machine) -> list[Place]:
        """One place per stage that may be computed at once now, on devices like these."""

    def notes(self, machine: Machine) -> list[str]:
        """What the user should know of where stages are computed, in sentences."""

    def executor(self, room: Sequence[Place], logs: Path) -> Executor:
        """The executor of a run, given its places, or none if nothing is left to compute.

        Args:
            room: the places.
            logs: a folder for what the workers print.
        """


def engine_of(config: Config, note: Callable[[str], None]) -> Engine:
    """The engine that a config asks for; a cluster is joined when it is first needed.

    Args:
        config: the study's config.
        note: told, in a sentence, what is waited for.

    Raises:
        SlimnetError: it needs a package that is not installed.
    """
    if config.executor.kind == "local":
        return LocalEngine(config)
    if find_spec("ray") is None:
        raise SlimnetError("executor.kind is ray, which needs the package ray: pip install ray")
    return RayEngine(config, note)


class LocalEngine:
    """This machine."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def warm_up(self) -> None:
        """Have a server load torch."""
        processes.warm_up()

    def ask(self, question: Callable[..., Any], *arguments: Any) -> Any:
        """The answer, found in a process of its own."""
        return processes.ask(question, *arguments)

    def places(self, machine: Machine) -> list[Place]:
        """The workers, by the config."""
        config = self._config
        share = config.executor.gpu_share
        return places(config.workers, config.threads, machine, config.search.ahead + 1, share)

    def notes(self, machine: Machine) -> list[str]:
        """None."""
        return []

    def executor(self, room: Sequence[Place], logs: Path) -> Executor:
        """Processes of this machine."""
        from sweeps.executors import local

        return local.LocalExecutor(room, logs, 60 * self._config.stall_minutes)


class RayEngine:
    """A Ray cluster."""

    def __init__(self, config: Config, note: Callable[[str], None]) -> None:
        self._config = config
        self._note = note

    def warm_up(self) -> None:
        """Nothing: no process here needs torch."""

    def ask(self, question: Callable[..., Any], *arguments: Any) -> Any:
        """The answer, found on a node."""
        return self._cluster.ask(question, *arguments, note=self._note)

    def places(self, machine: Machine) -> list[Place]:
        """As many as fit on the nodes now and can be used, at least one."""
        config = self._config
        most = config.search.ahead + 1 if config.workers == "auto" else config.workers
        threads = max(1, int(self._cluster.cpus)) if config.threads == "auto" else config.threads
        own = self._cluster.gpus > 0 and machine.kind != "cpu"  # the only one that Ray shows to a process
        device = f"{machine.kind}:0" if own else "cpu"
        return [Place(device, threads)] * max(1, min(self._cluster.room(), most))

    def notes(self, machine: Machine) -> list[str]:
        """What the cluster has room for, and what is not used of it or shared."""
        cluster, ahead = self._cluster, self._config.search.ahead
        room = cluster.room()
        notes = [
            f"on the Ray cluster at {cluster.address}: room for {plural(room, 'stage')} of {cluster.share}"
        ]
        if self._config.workers == "auto" and room > ahead + 1:
            notes.append(f"search.ahead is {ahead}, so that about {ahead + 1} of these {room} will be busy")
        if 0 < cluster.gpus < 1:
            notes.append("stages share a GPU; its memory is not divided between them")
        return notes

    def executor(self, room: Sequence[Place], logs: Path) -> Executor:
        """Actors on the cluster; none are needed where nothing is left to compute."""
        if not room:
            from sweeps.executors.local import LocalExecutor

            return LocalExecutor(room)
        from sweeps.executors.ray import RayExecutor

        config = self._config
        patience = 60 * config.stall_minutes
        return RayExecutor(self._cluster, room[0], config.workers, logs.absolute(), patience)

    @cached_property
    def _cluster(self) -> Cluster:
        from sweeps.executors.ray_cluster import join

        return join(self._config.executor, gpus=self._config.device != "cpu")
