"""The head of a Ray cluster, which knows its nodes and actors. It may die or hang: questions have a limit."""

from __future__ import annotations

import errno
import math
import os
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError

from slimnet.invocation import this_command
from slimnet.wording import first_line
from sweeps.executors.base import ExecutorDiedError

ANSWERS = 5.0  # seconds in which a head that is in order says which nodes there are
SILENT = 20.0  # seconds without an answer, after which it is dead; Ray itself ends us after 60

REFUSED = os.strerror(errno.ECONNREFUSED)
"""Why nobody takes a connection where the machine is there, and no process listens."""

Node = dict[str, Any]
Answer = TypeVar("Answer")


class _NoAnswerError(Exception):
    """The head does not answer now; says why, as a predicate."""


@dataclass
class Head:
    """The head of the cluster that this process has joined.

    Attributes:
        address: where it listens.
        own: whether it was started here.
    """

    address: str
    own: bool = False
    _silent: float | None = field(default=None, init=False)  # since when it does not answer
    _open: Future[list[Node]] | None = field(default=None, init=False)  # what it has not answered

    def nodes(self) -> list[Node] | None:
        """The living nodes; None while it does not answer.

        Raises:
            ExecutorDiedError: it has not answered for long, or another one has begun in its place.
        """
        try:
            found = self._nodes()
        except _NoAnswerError as error:
            now = time.monotonic()
            self._silent = now if self._silent is None else self._silent
            if now - self._silent < SILENT:
                return None
            raise self._died(str(error)) from None
        self._silent = None
        return found

    def is_silent(self) -> bool:
        """Whether it does not answer now."""
        if self._silent is None:
            with suppress(_NoAnswerError):
                self._nodes()
                return False
        return True

    def answer(self, question: Callable[..., Answer], *arguments: Any) -> Answer:
        """What a function returns that asks the head, for whose answer Ray itself would wait for ever.

        Raises:
            ExecutorDiedError: it does not answer.
        """
        asked = _in_thread(question, *arguments)
        if not wait([asked], SILENT).done:
            self._silent = -math.inf
            raise self._died(_unanswered())
        return asked.result()

    def has_placed(self, actor: Any) -> bool:
        """Whether Ray has found an actor a place, and it has begun there.

        Raises:
            ExecutorDiedError: as `answer`.
        """
        return bool(self.answer(_facts, actor).get("State") == "ALIVE")

    def node_of(self, actor: Any) -> tuple[str, str]:
        """The id and the address of the node that an actor is or was on; an empty id where Ray knows none.

        Raises:
            ExecutorDiedError: as `answer`.
        """
        address = self.answer(_facts, actor).get("Address", {})
        return address.get("NodeID", ""), address.get("IPAddress") or "a node"

    def _nodes(self) -> list[Node]:
        if refused := refusal(self.address):
            raise _NoAnswerError(f"has died ({refused})")
        seconds = 0.0
        if self._open is None:  # else a head that hangs, for which the system takes calls, has it
            seconds, self._open = ANSWERS, _in_thread(self._ask)
        if not wait([self._open], seconds).done:
            raise _NoAnswerError(_unanswered())
        asked, self._open = self._open, None
        try:
            return asked.result()
        except RayError as error:
            raise _NoAnswerError(f"has died ({first_line(error)})") from None

    def _ask(self) -> list[Node]:
        if self._silent is not None and not _is_ours(self.address):
            raise self._died("has died (another one has begun in its place)")
        return living_nodes()

    def _died(self, how: str) -> ExecutorDiedError:
        when = "Go on" if self.own else "Once Ray runs again, go on"
        return ExecutorDiedError(
            f"the head of the Ray cluster at {self.address} {how}, which ends its stages; "
            "every finished epoch is kept",
            f"{when} with: {this_command()}",
        )


def hangs() -> bool:
    """Whether Ray would wait, at this process's end, for a head that answers nothing or is out of reach."""
    if not ray.is_initialized():
        return False
    address = ray.get_runtime_context().gcs_address
    why_not = refusal(address)
    if why_not is not None:
        return why_not != REFUSED
    return not wait([_in_thread(_is_ours, address)], ANSWERS).done


def living_nodes() -> list[Node]:
    """The living nodes, for which the head is asked without a limit."""
    return [node for node in ray.nodes() if node["Alive"]]


def refusal(address: str, seconds: float = 2.0) -> str | None:
    """Why nobody takes a connection at HOST:PORT; None if somebody does, within some seconds."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=seconds).close()
    except (OSError, OverflowError) as error:
        return getattr(error, "strerror", None) or str(error)
    return None


def _unanswered() -> str:
    return f"has not answered for {SILENT:g} seconds"


def _facts(actor: Any) -> dict[str, Any]:
    """What the head knows of an actor; Ray's public interface for that needs a dashboard."""
    with suppress(AttributeError, ValueError):
        return dict(ray._private.state.actors(actor._actor_id.hex()) or {})
    return {}


def _is_ours(address: str) -> bool:
    """Whether the head at an address is of the cluster that was joined; Ray aborts where another is asked."""
    with suppress(AttributeError, RayError):
        here = ray._raylet.GcsClient(address=address).cluster_id
        return bool(here == ray._private.worker.global_worker.gcs_client.cluster_id)
    return False


def _in_thread(question: Callable[..., Answer], *arguments: Any) -> Future[Answer]:
    """Have a thread find an answer, which may never come; it does not keep this process from its end."""
    future: Future[Answer] = Future()

    def find() -> None:
        try:
            future.set_result(question(*arguments))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=find, daemon=True).start()
    return future
