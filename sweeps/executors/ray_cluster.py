"""The Ray cluster that a sweep runs on: joined or started, and how many stages fit on it."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray._private import services

from slimnet.errors import SlimnetError
from sweeps.config.sections import Executor
from sweeps.executors import processes
from sweeps.executors.ray_head import REFUSED, Head, Node, living_nodes, refusal

NAMESPACE = "slimnet"
REACH, JOIN = 10.0, 40.0  # seconds for a connection, and for Ray to join a cluster
LOOK_EVERY = 2.0  # seconds between two looks at the nodes
OBJECTS = 100 * 2**20  # bytes of Ray's store on a cluster that is started here; only messages go through it
PATIENT, GIVES_UP = 15.0, 600.0  # seconds until a wait for a place is told, and until one in vain is ended
TERMINAL = (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)  # which reach every process of a terminal

Note = Callable[[str], None]

JOINING = """
import json, sys, traceback, ray
try:
    ray.init(address=sys.argv[1], log_to_driver=False, logging_level="CRITICAL")
    answer = {"address": ray.get_runtime_context().gcs_address}
except BaseException as error:
    wrong = "AuthToken" in traceback.format_exc()
    message = "it asks for a token, and has another than this machine" if wrong else str(error)
    answer = {"error": "Token" if wrong else type(error).__name__, "message": message}
print("\\n" + json.dumps(answer), flush=True)
"""


@dataclass
class Cluster:
    """A Ray cluster that this process has joined.

    Attributes:
        head: its head.
        cpus, gpus: what a stage takes of a node.
    """

    head: Head
    cpus: float
    gpus: float
    _room: dict[str, int] = field(default_factory=dict)  # of each node
    _looked: float = field(default=-LOOK_EVERY)

    @property
    def address(self) -> str:
        """Of its head, for messages."""
        return self.head.address

    def room(self) -> int:
        """How many stages fit on the nodes, whoever uses them now; nodes may come and go.

        Raises:
            ExecutorDiedError: the cluster's head is dead, or hangs.
        """
        self._look()
        return sum(self._room.values())

    def fitting(self) -> set[str]:
        """The ids of the nodes with room for a stage, whoever uses it now."""
        self._look()
        return {node for node, room in self._room.items() if room}

    def ask(self, question: Callable[..., Any], *arguments: Any, note: Note = lambda text: None) -> Any:
        """The answer to a question that needs torch, found on a node, with what a stage would have of it.

        Args:
            question: a function of a module.
            arguments: of the function; they and the answer can be pickled.
            note: told, in a sentence, if there is a wait for a place.

        Raises:
            SlimnetError: as the function; there is no node with room; the process, its node or the cluster's
                head died.
        """
        task = ray.remote(
            num_cpus=self.cpus, num_gpus=self.gpus, max_retries=0, max_calls=1, name=question.__name__
        )(processes.tell)
        answer = self.head.answer(task.remote, question, *arguments)
        had_room, told = time.monotonic(), False
        while not ray.wait([answer], timeout=LOOK_EVERY)[0]:
            now = time.monotonic()
            if self.room():
                had_room = now
            if now - had_room > PATIENT and not told:
                told = True
                note(f"{self.lacking()}; waiting for one")
            if now - had_room > PATIENT + GIVES_UP:
                ray.cancel(answer)
                raise SlimnetError(f"{self.lacking()}; lower executor.gpus_per_stage or cpus_per_stage")
        try:
            return processes.answer_in(ray.get(answer))
        except ray.exceptions.RayError as error:
            raise SlimnetError(
                f"a node of the Ray cluster at {self.address} could not look at the data and the network "
                f"({gist(str(error))}); every node needs slimnet and what it needs, as they are here"
            ) from None

    def lacking(self) -> str:
        """That no node has room for a stage, as a sentence."""
        return f"no node of the Ray cluster at {self.address} has {self.share}"

    @property
    def share(self) -> str:
        """What a stage takes, in words."""
        parts = [(self.cpus, "CPU"), (self.gpus, "GPU")]
        return " and ".join(f"{n:g} {name}{'s' * (n > 1)}" for n, name in parts if n)

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._looked < LOOK_EVERY:
            return
        self._looked = now
        if (nodes := self.head.nodes()) is not None:
            self._room = {node["NodeID"]: self._fit(node) for node in nodes}

    def _fit(self, node: Node) -> int:
        has = node["Resources"]
        fits = [int(has.get(name, 0) / n + 1e-6) for name, n in (("CPU", self.cpus), ("GPU", self.gpus)) if n]
        return min(fits)


def join(wish: Executor, *, gpus: bool) -> Cluster:
    """Join the cluster that the config names, or start one on this machine where there is none.

    Args:
        wish: the config's section.
        gpus: whether stages may use GPUs.

    Raises:
        SlimnetError: the cluster cannot be reached or joined.
    """
    _use_token()
    address = _address_of(wish.address)
    if address is not None:
        address = _reachable(address)
    options: dict[str, Any] = {
        "namespace": NAMESPACE,
        "log_to_driver": False,
        "logging_level": logging.CRITICAL,
        "runtime_env": _environment(),
    }
    with _as_it_was(), _quiet():
        if address is None:
            with processes.signals_blocked(TERMINAL):  # which the servers inherit; SIGTERM ends them
                ray.init("local", include_dashboard=False, object_store_memory=OBJECTS, **options)
        else:
            ray.init(address=address, **options)
    each = wish.gpus_per_stage
    if each == "auto":
        has_gpus = gpus and any(node["Resources"].get("GPU") for node in living_nodes())
        each = has_gpus * _part(wish.gpu_share)
    elif not gpus and each:
        raise SlimnetError("executor.gpus_per_stage is set, but device is cpu; use 0, or another device")
    head = Head(ray.get_runtime_context().gcs_address, own=address is None)
    return Cluster(head, wish.cpus_per_stage, each)


def _part(share: int) -> float:
    """What each of so many stages has of a GPU; Ray rounds to four digits, and all of them have to fit."""
    return 10_000 // share / 10_000


def _address_of(wish: str) -> str | None:
    """The address that is wished for, of which `auto` is that of this machine's cluster.

    Returns:
        None if it belongs to none, or to one that has ended and left its address behind.
    """
    if wish != "auto":
        return wish
    named = os.environ.get("RAY_ADDRESS", "auto")
    if named not in ("", "auto"):
        return named
    try:
        found = str(services.get_ray_address_from_environment("auto", None))
    except ConnectionError:
        return None
    why_not = refusal(found)
    ended = why_not == REFUSED or (why_not is not None and not services.find_gcs_addresses())
    return None if ended else found


def _reachable(address: str) -> str:
    """The address of a cluster, which can be joined.

    Ray waits for minutes where nothing answers, and may end the process that tries; so another one tries.
    """
    _check_port(address)
    command = [sys.executable, "-c", JOINING, address]
    try:
        tried = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=JOIN
        )
        answer = json.loads(tried.stdout.rstrip().rpartition("\n")[2])
    except subprocess.TimeoutExpired:
        raise _unreachable(address, f"no answer within {JOIN:g} seconds") from None
    except ValueError:
        raise _unreachable(address, gist(tried.stderr)) from None
    if "address" not in answer:
        raise _unreachable(address, gist(answer["message"]))
    return str(answer["address"])


def _use_token() -> None:
    """Have Ray show the token that it finds, which it does not by itself where an address is given."""
    places = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
    if "RAY_AUTH_MODE" not in os.environ and (
        any(map(os.environ.get, places)) or (Path.home() / ".ray" / "auth_token").exists()
    ):
        os.environ["RAY_AUTH_MODE"] = "token"
        with suppress(ImportError, AttributeError):  # what Ray has read of it when it was imported
            ray._raylet.Config.initialize("")


def _check_port(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        raise SlimnetError(
            f"the address of the Ray cluster is {address}; write HOST:PORT of its head, or auto, as "
            "executor.address or RAY_ADDRESS"
        )
    if refused := refusal(address, REACH):
        raise _unreachable(address, refused)


def _unreachable(address: str, reason: str) -> SlimnetError:
    return SlimnetError(
        f"the Ray cluster at {address} cannot be joined ({reason}); see that it runs (ray status), that "
        "this machine is one of its nodes (ray start --address=…) and, if it asks for a token, that it is in "
        "~/.ray/auth_token or RAY_AUTH_TOKEN here"
    )


def _environment() -> dict[str, Any]:
    """What workers need to import this code, where it is not installed for all."""
    root = Path(__file__).parents[2]
    own = [] if root.name in ("site-packages", "dist-packages") else [str(root)]
    paths = [*own, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {"env_vars": {"PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}} if paths else {}


@contextmanager
def _as_it_was() -> Iterator[None]:
    """Keep the handler of SIGTERM, which Ray replaces."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Ray's messages off the terminal, where the display is.

    Ray has options for its logs and those of workers, but what it tells of nodes that die has none.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_SCHEDULER_EVENTS", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else it warns of a change to come
    yield
    with suppress(AttributeError, ImportError):
        from ray._private import worker

        worker._worker_logs_enabled = False


def gist(text: str) -> str:
    """The last line of an error of Ray's, which holds a traceback or several sentences."""
    return text.strip().rpartition("\n")[2].strip() or "Ray does not say why"
