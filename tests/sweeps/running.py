"""Sweeps as a user runs them: `python -m sweeps` in a process of its own."""

from __future__ import annotations

import atexit
import fcntl
import json
import multiprocessing
import os
import select
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

Command = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).parents[2]
CORE = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
"""For a sweep of one worker: torch's threads would wait, busily, for cores that other tests keep busy."""
PATIENCE = 300.0  # seconds; a machine that is busy with something else must not fail a test


class Sweep:
    """The smoke config in one runs folder."""

    def __init__(self, runs: Path) -> None:
        self.runs = runs
        self.folder = runs / "smoke"

    def start(
        self, *options: str, core: int | None = None, anew: bool = False, **popen: Any
    ) -> subprocess.Popen[str]:
        """Begin a run, on one core where that is said, and return its process.

        Args:
            anew: let it import what it needs, as a user's does, where it would be forked from one that has.
        """
        fixed = ("smoke", "--runs", str(self.runs), "--wandb", "disabled")
        return python("-m", "sweeps", "run", *fixed, *options, core=core, anew=anew, **popen)

    def run(self, *options: str, anew: bool = False) -> subprocess.CompletedProcess[str]:
        """Run to the end."""
        process = self.start(*options, anew=anew)
        out, err = process.communicate(timeout=PATIENCE)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def log(self, study: str = "smoke") -> list[str]:
        """The driver's log without the time stamps."""
        path = self.runs / study / "driver.log"
        return [line.split(" ", 3)[3] for line in path.read_text().splitlines()] if path.exists() else []

    def epochs(self, study: str = "smoke") -> list[str]:
        """A line per epoch that has been computed."""
        return [line for line in self.log(study) if " epoch " in line]

    def pareto(self) -> dict[str, Any]:
        table: dict[str, Any] = json.loads((self.folder / "pareto.json").read_text())
        return table

    def wait_for_epochs(self, count: int, process: subprocess.Popen[str]) -> None:
        """Wait until so many epochs have been computed."""
        wait_until(lambda: len(self.epochs()) >= count or process.poll() is not None)
        assert len(self.epochs()) >= count, process.communicate()


def python(
    *arguments: str,
    env: dict[str, str] | None = None,
    core: int | None = None,
    anew: bool = False,
    cwd: Path = ROOT,
    terminal: int | None = None,
    **popen: Any,
) -> subprocess.Popen[str]:
    """A Python in a session of its own, forked from one that has torch loaded, unless it is to begin anew.

    Fixtures end it with `stop_all`, as Ctrl-C does not reach it.

    Args:
        arguments: a script, -m or -c, and what follows it.
        terminal: a descriptor of what it has for its terminal, in place of pipes for its output.
    """
    pins = core is not None and hasattr(os, "sched_setaffinity")  # as on Linux
    cores = {_number_of(core or 0)} if pins else set()
    environment = {**os.environ, **(env or {})}
    if sys.platform == "linux" and not anew and not popen:
        _started.append(Forked(arguments, environment, cores, cwd, terminal))
        return _started[-1]

    def prepare() -> None:
        if cores:
            os.sched_setaffinity(0, cores)
        if terminal is not None:
            fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)

    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    streams = pipes if terminal is None else dict.fromkeys(("stdin", "stdout", "stderr"), terminal)
    given = {**streams, "start_new_session": True, "preexec_fn": prepare, **popen}
    command = [sys.executable, *arguments]
    _started.append(subprocess.Popen(command, **given, env=environment, text=True, cwd=cwd))
    return _started[-1]


_started: list[subprocess.Popen[str]] = []


@atexit.register  # for those of fixtures that other tests share
def stop_all() -> None:
    """Kill what `python` has started, and what that has left behind in its process group."""
    while _started:
        process = _started.pop()
        with suppress(ProcessLookupError, PermissionError):  # macOS: of processes that have ended
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)
        for stream in (process.stdout, process.stderr):
            if stream:
                stream.close()


class Forked(subprocess.Popen[str]):
    """A Python that warm.py has forked, on these cores and with this terminal, if any."""

    def __init__(
        self,
        arguments: Sequence[str],
        environment: dict[str, str],
        cores: set[int],
        cwd: Path,
        terminal: int | None,
    ) -> None:
        self.args, self.stdin = [sys.executable, *arguments], None
        self.returncode: int | Any = None  # as typeshed has it
        order = {
            "given": arguments,
            "folder": str(cwd),
            "environment": environment,
            "cores": sorted(cores),
            "terminal": terminal is not None,
        }
        try:
            self._begin(json.dumps(order).encode(), terminal)
        except (ConnectionResetError, BrokenPipeError, EOFError):  # others closed the last that it knew of
            _warm().close()
            _warm.cache_clear()
            self._begin(json.dumps(order).encode(), terminal)

    def _begin(self, order: bytes, terminal: int | None) -> None:
        (out, their_out), (err, their_err), (news, their_news) = (os.pipe() for _ in range(3))
        self.stdout, self.stderr = os.fdopen(out), os.fdopen(err)
        self._news = os.fdopen(news, "rb", buffering=0)
        try:
            with open(os.devnull) as nothing:
                streams = (nothing.fileno(), their_out, their_err) if terminal is None else (terminal,) * 3
                socket.send_fds(_warm(), [order], (*streams, their_news))
        finally:
            for descriptor in (their_out, their_err, their_news):
                os.close(descriptor)
        pid = self._news.readline()
        if not pid:
            raise EOFError("warm.py ended before it read the order")
        self.pid = int(pid)

    def poll(self) -> int | None:
        if self.returncode is None and self._has_ended(0):
            self.wait()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not self._has_ended(timeout):
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.returncode = int(self._news.readline())
            self._news.close()
        return self.returncode

    def communicate(self, input: str | None = None, timeout: float | None = None) -> tuple[str, str]:
        streams = (self.stdout, self.stderr)
        with ThreadPool(2) as pool:
            texts = [pool.apply_async(stream.read) if stream else None for stream in streams]
            try:
                out, err = (text.get(timeout) if text else "" for text in texts)
            except multiprocessing.TimeoutError:
                raise subprocess.TimeoutExpired(self.args, timeout or 0) from None
        for stream in streams:
            if stream:
                stream.close()
        self.wait(timeout)
        return out, err

    def _has_ended(self, timeout: float | None) -> bool:
        return bool(select.select([self._news], [], [], timeout)[0])


@cache
def _warm() -> socket.socket:
    """A connection for orders to warm.py, which the first process of the tests to need it starts for all."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", os.getpid())
    address = f"\0warm-{run}"  # in no file system
    ours = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def connected() -> bool:
        with suppress(ConnectionRefusedError):
            ours.connect(address)
            return True
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
            try:
                listening.bind(address)  # which one process alone can
            except OSError:
                return False
            listening.listen()
            ours.connect(address)  # before it starts: it ends with its last connection, and waits for none
            _start_warm(listening)
        return True

    wait_until(connected)
    return ours


def _start_warm(listening: socket.socket) -> None:
    subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("warm.py")), str(listening.fileno())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=[listening.fileno()],
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(Path(__file__).parent)))},
        start_new_session=True,  # others may use it longer than what starts it
    )


def swift(runs: Path, *options: str, env: dict[str, str] | None = None, **how: Any) -> subprocess.Popen[str]:
    """Start the smoke sweep with stages that take no time; see swift.py."""
    path = os.pathsep.join((str(Path(__file__).parent), str(ROOT)))
    given = ("run", "smoke", "--runs", str(runs), *options)
    environment = {"PYTHONPATH": path, **(env or {})}
    return python("-c", "import swift; swift.main()", *given, env=environment, **how)


@contextmanager
def gated(runs: Path) -> Iterator[None]:
    """Stages of `swift` in this runs folder wait after each epoch, until the end of the block."""
    runs.mkdir(parents=True, exist_ok=True)
    (runs / "gate").touch()
    try:
        yield
    finally:
        (runs / "gate").unlink()


def _number_of(core: int) -> int:
    cores = sorted(os.sched_getaffinity(0))
    return cores[core % len(cores)]


@contextmanager
def survived_by(script: str, *arguments: str, **popen: Any) -> Iterator[None]:
    """Have a shell script end what was started here, also where this process is killed before it can."""
    command = ["sh", "-c", f"read -r _; {script}", "sh", *arguments]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True, **quiet, **popen) as last:
        try:
            yield
        finally:
            assert last.stdin is not None
            last.stdin.close()


def wait_until(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    return pid in _processes()


def children(process: subprocess.Popen[str]) -> list[int]:
    """All processes below a driver: its two servers, then the workers."""
    parents = _processes()
    pids = [process.pid]
    for pid in pids:
        pids += sorted(child for child, parent in parents.items() if parent == pid)
    return pids[1:]


def _processes() -> dict[int, int]:
    """Every process that has not ended, with its parent; of /proc where there is one, else of ps."""
    if Path("/proc/self/stat").exists():
        lines = []
        for entry in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                head, _, tail = entry.read_text().rpartition(")")
                state, parent = tail.split()[:2]
                lines.append((int(head.split()[0]), int(parent), state))
    else:
        ps = subprocess.run(
            ["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True
        )
        fields = map(str.split, ps.stdout.splitlines())
        lines = [(int(pid), int(parent), state) for pid, parent, state, *_ in fields]
    return {pid: parent for pid, parent, state in lines if not state.startswith("Z")}


def wait_until_gone(pids: list[int]) -> None:
    wait_until(lambda: not any(is_alive(pid) for pid in pids))
