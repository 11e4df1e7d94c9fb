"""Sweeps as a user runs them: `python -m sweeps` in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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
        self._started: list[subprocess.Popen[str]] = []

    def start(self, *options: str, core: int | None = None, **popen: Any) -> subprocess.Popen[str]:
        """Begin a run, on one core where that is said, and return its process."""
        fixed = ("smoke", "--runs", str(self.runs), "--wandb", "disabled")
        process = subprocess.Popen(
            [sys.executable, "-m", "sweeps", "run", *fixed, *options],
            **{
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
                "preexec_fn": None if core is None else lambda: _stay_on(core),
                **popen,
            },
            text=True,
            cwd=ROOT,
        )
        self._started.append(process)
        return process

    def run(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Run to the end."""
        process = self.start(*options)
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

    def stop_all(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.communicate()


def swift(runs: Path, *options: str, **popen: Any) -> subprocess.Popen[str]:
    """Start the smoke sweep with stages that take no time; see swift.py."""
    path = os.pathsep.join((str(Path(__file__).parent), str(ROOT)))
    command = [sys.executable, "-c", "import swift; swift.main()", "run", "smoke", "--runs", str(runs)]
    environment = {**os.environ, "PYTHONPATH": path, **popen.pop("env", {})}
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **popen}
    return subprocess.Popen([*command, *options], **given, env=environment, text=True)


def _stay_on(core: int) -> None:
    if hasattr(os, "sched_setaffinity"):  # on Linux
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[core % len(cores)]})


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
