"""Forks processes and kills them, at a line of the program or after a time; run as a script by a test.

A process forked from one that has torch loaded starts in hundredths of a second.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from functools import cache
from types import FrameType
from typing import Any

os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # else a pool of processes, each with torch

import torch
import torch._dynamo  # every optimiser imports it, for a second

PLACES = {
    "training": (
        "slimnet/training/loop.py",
        "slimnet/training/recipe.py",
        "slimnet/training/penalties.py",
        "slimnet/training/sparsity.py",
        "slimnet/data/batches.py",
    ),
    "saving": (
        "slimnet/checkpoint.py",
        "slimnet/files.py",
        "slimnet/training/recovery.py",
        "torch/serialization.py",
    ),
    "stage": ("sweeps/worker.py", "sweeps/files.py"),
}


class Lines:
    """Counts the lines that run in each place, and kills this process at one of them."""

    def __init__(self, place: str | None, limit: int) -> None:
        self.counts = dict.fromkeys(PLACES, 0)
        self._place, self._limit = place, limit

    def __call__(self, frame: FrameType, event: str, argument: object) -> Callable[..., Any] | None:
        place = _place(frame.f_code.co_filename)
        if place is None:
            return None

        def line(frame: FrameType, event: str, argument: object) -> Callable[..., Any]:
            if event == "line":
                self.counts[place] += 1
                if place == self._place and self.counts[place] == self._limit:
                    os.kill(os.getpid(), signal.SIGKILL)
            return line

        return line


@cache
def _place(file: str) -> str | None:
    return next((place for place, endings in PLACES.items() if file.endswith(endings)), None)


@cache
def _function(file: str, name: str) -> Callable[..., None]:
    spec = importlib.util.spec_from_file_location(f"mortal_{len(sys.modules)}", file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function: Callable[..., None] = getattr(module, name)
    return function


def live(
    file: str,
    name: str,
    arguments: dict[str, Any],
    place: str | None,
    limit: int,
    seconds: float | None,
    counted: bool,
    loaded: Sequence[str],
) -> dict[str, Any]:
    """Call a function in a process of its own.

    Args:
        counted: count lines, which takes much longer.
        loaded: modules that are imported once, so that no process need do it.

    Returns:
        {"killed": whether it was, "status": of its exit, "counts": lines by place, "seconds": it lived}
    """
    function = _function(file, name)
    for module in loaded:
        importlib.import_module(module)
    reader, writer = os.pipe()
    gc.freeze()  # else the first collection in the child copies all of torch's objects
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        os.dup2(2, 1)  # the answers to the test go to 1
        _call(function, arguments, Lines(place, limit), counted, writer)
    os.close(writer)
    killed, status = _wait(pid, began + seconds if seconds is not None else float("inf"))
    with os.fdopen(reader) as pipe:
        counts = json.loads(pipe.read() or "{}")
    lived = time.monotonic() - began
    return {"killed": killed, "status": status, "counts": counts, "seconds": lived}


def _call(
    function: Callable[..., None], arguments: dict[str, Any], lines: Lines, counted: bool, writer: int
) -> None:
    status = 1
    try:
        if counted:
            sys.settrace(lines)
        function(**arguments)
        sys.settrace(None)
        os.write(writer, json.dumps(lines.counts).encode())
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _wait(pid: int, deadline: float) -> tuple[bool, int]:
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            return code == -signal.SIGKILL, code
        if time.monotonic() >= deadline:
            os.kill(pid, signal.SIGKILL)
            deadline = float("inf")
        time.sleep(0.001)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for order in sys.stdin:
        print(json.dumps(live(**json.loads(order))), flush=True)
