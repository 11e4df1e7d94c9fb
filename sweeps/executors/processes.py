"""Processes that have torch loaded, for stages and for questions that need torch; they die with this one."""

from __future__ import annotations

import faulthandler
import gc
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, TypeVar

from slimnet.errors import SlimnetError
from slimnet.training.memory import keep_memory
from sweeps.signals import SIGNALS

PRELOADED = [
    "sweeps.worker",
    "sweeps.check.probe",
    "torch._dynamo",
]  # every optimiser imports the latter, which takes a second

LAST_LINES, LAST_BYTES = 40, 8000  # of what a process printed, which say why it died

Message = Literal["stop", "go on"] | int
"""To a process: stop; go on; or, by any number, rest where you send the next message or ask whether to stop.
It sends the number back once it does."""

StartMethod = Literal["forkserver", "spawn"]
Send = Callable[[Any], None]
Told = tuple[Literal["answer", "refused", "failed"], Any]
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Child:
    """A process and the pipe to it, which closes when it dies."""

    process: Any
    connection: Connection

    def end(self) -> None:
        """Kill the process."""
        self.process.kill()
        self.process.join()
        self.connection.close()

    def tell(self, message: Message) -> None:
        """Send a message, unless the process has died."""
        with suppress(OSError):
            self.connection.send(message)

    def death(self) -> str:
        """How the process ended, in words."""
        self.process.join()
        self.connection.close()
        return _death(self.process.exitcode)


def start_method() -> StartMethod:
    """How processes start: forked from a server that has already loaded torch, where that is safe.

    On macOS the system's libraries do not survive a fork, so that each process loads torch for itself.
    """
    forks = sys.platform == "linux" and "forkserver" in multiprocessing.get_all_start_methods()
    return "forkserver" if forks else "spawn"


def preload(module: str) -> None:
    """Have the server load another module, before it begins; each process would else do so for itself."""
    if module and module not in PRELOADED:
        PRELOADED.append(module)


def warm_up() -> None:
    """Have the server load torch meanwhile, where there is one; the first process then starts sooner."""
    _context(start_method())


def start(work: Callable[..., None], *arguments: Any, name: str, rests: int | None = None) -> Child:
    """Start a process.

    Args:
        work: called there with a function that sends a message here, a function that says whether a message
            from here has come, which asks it to stop, and `arguments`. It need not import torch by itself.
        arguments: what can be pickled.
        name: of the process.
        rests: a number by which it rests at first, as if told to.
    """
    context = _context(start_method())
    ours, theirs = context.Pipe()
    process = context.Process(target=_begin, args=(rests, work, theirs, *arguments), name=name, daemon=True)
    with signals_blocked():  # as the server does; a process that is started anew inherits the mask from here
        process.start()
    theirs.close()  # so that the process holds the only copy, and its death closes the pipe
    return Child(process, ours)


def print_to(path: Path) -> None:
    """Write all that this process prints to a file, and where in the code it is should it crash."""
    with suppress(OSError):
        path.parent.mkdir(exist_ok=True)
        with path.open("wb") as file:
            for descriptor in (1, 2):
                os.dup2(file.fileno(), descriptor)
        faulthandler.enable(all_threads=False)


def close_log(log: Path) -> str:
    """The last lines of a log whose process has ended; without any, the file is deleted."""
    with suppress(OSError):
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - LAST_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
        if size == 0:
            log.unlink()
        return "\n".join(lines[-LAST_LINES:])
    return ""


def ask(question: Callable[..., Answer], *arguments: Any) -> Answer:
    """The answer to a question that needs torch, found in a process that has it.

    Args:
        question: a function of a module.
        arguments: of the function; they and the answer can be pickled.

    Raises:
        SlimnetError: as the function, or the process was killed.
    """
    child = start(_answer, question, *arguments, name=question.__name__)
    try:
        told: Told = child.connection.recv()
    except (EOFError, OSError):
        raise SlimnetError(f"{child.death()}, while it was looking at the data and the network") from None
    finally:
        child.end()
    answer: Answer = answer_in(told)
    return answer


def _answer(send: Send, stop: Callable[[], bool], question: Callable[..., Any], *arguments: Any) -> None:
    """What the process of a question runs."""
    send(tell(question, *arguments))


def tell(question: Callable[..., Any], *arguments: Any) -> Told:
    """The answer to a question, or why there is none, to be sent to the process that asks."""
    try:
        return "answer", question(*arguments)
    except SlimnetError as error:
        return "refused", str(error)
    except Exception as error:
        if isinstance(error, MemoryError) or "t allocate memory" in str(error):  # which torch's CPU says
            first = (str(error) or "no memory left").splitlines()[0]
            return "refused", f"the network and the data do not fit into this machine's memory ({first})"
        return "failed", traceback.format_exc()


def answer_in(told: Told) -> Any:
    """The answer in what `tell` returned.

    Raises:
        SlimnetError: as the function, or its memory did not suffice.
    """
    kind, content = told
    if kind == "refused":
        raise SlimnetError(content)
    if kind == "failed":
        raise RuntimeError(f"in another process:\n{content}")
    return content


@cache
def _context(method: StartMethod) -> Any:
    """The start method, made ready.

    Processes inherit a mask that blocks signals: Ctrl-C in a terminal reaches every process of the group, but
    only this one may act on it.
    """
    context = multiprocessing.get_context(method)
    with signals_blocked():
        resource_tracker.ensure_running()  # first and separately, as it unblocks signals at its end
    if method == "forkserver":
        context.set_forkserver_preload(PRELOADED)
        with signals_blocked(), _same_search():
            forkserver.ensure_running()
    return context


@contextmanager
def _same_search() -> Iterator[None]:
    """Let a Python that is started here look for modules in the current folder only if this one does.

    The server would always do so, and a console script does not: it would preload a folder of the user's that
    is called `sweeps`.
    """
    name = "PYTHONSAFEPATH"
    if name in os.environ or not {"", os.getcwd()}.isdisjoint(sys.path):
        yield
        return
    os.environ[name] = "1"
    try:
        yield
    finally:
        del os.environ[name]


@contextmanager
def signals_blocked(numbers: Iterable[int] = SIGNALS) -> Iterator[None]:
    """Hold back signals, which reach this process afterwards; processes started meanwhile never get them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
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


def _begin(rests: int | None, work: Callable[..., None], connection: Connection, *arguments: Any) -> None:
    """What a process runs: its work, while a thread listens.

    Only its main thread, which computes, rests: signs of life from another do not mean that it does.

    What the user's code prints there goes to stderr, as stdout belongs to the command: to its table or JSON;
    or, of a stage, to a file.
    """
    sys.stdout = sys.stderr
    keep_memory()
    gc.freeze()  # else the first collection would touch, and so copy, all memory shared with the server
    orders, sending = _Orders(rests), threading.Lock()
    threading.Thread(target=orders.listen, args=(connection,), daemon=True).start()

    def post(message: Any) -> None:
        try:
            with sending:
                connection.send(message)
        except OSError:
            os._exit(1)  # as `_Orders.listen` does when this process's parent is dead

    def rest() -> None:
        if threading.current_thread() is threading.main_thread():
            orders.rest(post)

    def send(message: Any) -> None:
        rest()
        post(message)

    def stops() -> bool:
        rest()
        return orders.stop

    work(send, stops, *arguments)


class _Orders:
    """What who started this process has told it: whether it is to stop, or to rest and by which number."""

    def __init__(self, rests: int | None) -> None:
        self.stop = False
        self._rests = rests
        self._changed = threading.Condition()

    def rest(self, tell: Callable[[int], None]) -> None:
        """Rest for as long as it is wanted, and tell each number by which it is."""
        told: int | None = None
        with self._changed:
            while self._rests is not None:
                if self._rests != told:
                    told = self._rests
                    tell(told)
                self._changed.wait()

    def listen(self, connection: Connection) -> None:
        """Take messages; a closed pipe means that who started this process is dead, and ends it."""
        try:
            while True:
                message: Message = connection.recv()
                with self._changed:
                    self.stop = self.stop or message == "stop"
                    self._rests = message if isinstance(message, int) else None  # who stops saves now
                    self._changed.notify_all()
        except (EOFError, OSError):
            os._exit(1)
