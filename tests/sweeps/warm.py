"""Forks Pythons from one that has torch and all the rest loaded; run as a script, by `forked` in running.py.

A sweep then starts in tenths of a second, where each of its two Pythons would import for seconds. It is a
process of its own as any other, and so is the server that its workers are forked from.

    python warm.py SOCKET     brings connections, and they orders in JSON, each with descriptors: 0, 1, 2, and
                              one for news
"""

from __future__ import annotations

import atexit
import fcntl
import gc
import importlib
import json
import multiprocessing.forkserver
import multiprocessing.util
import os
import runpy
import select
import signal
import socket
import sys
import termios
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import ModuleType
from typing import Any, NoReturn

LOADED = (  # what drivers and workers import
    *("torch._dynamo", "sweeps.worker", "sweeps.check.probe", "swift"),
    *("sweeps.cli", "sweeps.driver", "sweeps.executors.local", "sweeps.report.html"),
)


def main() -> None:
    """Fork a Python for each order, until the last connection is closed."""
    for name in LOADED:
        importlib.import_module(name)
    gc.freeze()  # else the first collection in a child copies all of torch's objects
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how keepers end
    listening = socket.socket(fileno=int(sys.argv[1]))
    connections = [listening.accept()[0]]
    while connections:
        for ready in select.select([listening, *connections], [], [])[0]:
            if ready is listening:
                connections.append(listening.accept()[0])
                continue
            order, descriptors, _, _ = socket.recv_fds(ready, 1_000_000, 4)
            if not order:
                connections.remove(ready)
                ready.close()
            elif os.fork() == 0:
                for one in (listening, *connections):
                    one.close()
                keep(json.loads(order), descriptors)
            for descriptor in descriptors:
                os.close(descriptor)
    os._exit(0)


def keep(order: dict[str, Any], descriptors: Sequence[int]) -> NoReturn:
    """Start a Python; send the number of its process, and then how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    *standard, news = descriptors
    pid = os.fork()
    if pid == 0:
        for number, descriptor in enumerate(standard):
            os.dup2(descriptor, number)
        os.closerange(3, max(descriptors) + 1)
        os.setsid()  # by which tests find all that it starts
        if order.pop("terminal"):
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        end_after(lambda: run(**order))
    for descriptor in standard:
        os.close(descriptor)
    os.write(news, b"%d\n" % pid)
    _, status = os.waitpid(pid, 0)
    os.write(news, b"%d\n" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def run(given: list[str], folder: str, environment: dict[str, str], cores: list[int]) -> None:
    """Do what Python does with these arguments: a script, -m or -c, and what follows it."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    if cores:
        os.sched_setaffinity(0, cores)
    sys.orig_argv = [sys.executable, *given]
    sys.path[0] = folder
    multiprocessing.util.spawnv_passfds = fork_instead  # type: ignore[assignment] # takes what is given here
    option, *rest = given
    if option == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif option == "-c":
        sys.argv = [option, *rest[1:]]
        sys.modules["__main__"] = ModuleType("__main__")
        exec(rest[0], vars(sys.modules["__main__"]))
    else:
        sys.argv = given
        runpy.run_path(option, run_name="__main__")


def fork_instead(path: bytes, arguments: Sequence[str], descriptors: Sequence[int]) -> int:
    """Start one of multiprocessing's servers as a fork of this process; in place of `spawnv_passfds`."""
    pid = os.fork()
    if pid == 0:
        serve(arguments[-1], descriptors)
    return pid


def serve(code: str, descriptors: Sequence[int]) -> NoReturn:
    """Run this code as a Python of its own would that has inherited only these descriptors."""
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    kept = sorted({0, 1, 2, *descriptors})
    end = 1 + max(map(int, os.listdir("/proc/self/fd")))
    for before, after in zip(kept, [*kept[1:], end], strict=True):
        os.closerange(before + 1, after)
    multiprocessing.forkserver._forkserver.__init__()  # type: ignore[misc] # its lock is held by the parent
    atexit._clear()
    end_after(lambda: exec(code, {}))


def end_after(work: Callable[[], object]) -> NoReturn:
    """Work, and end this process as Python does, only that torch is not taken apart, which takes a second."""
    status = 1
    try:
        work()
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with suppress(ValueError):  # one of multiprocessing's servers closes them
                stream.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
