"""The signals that end a sweep, and how they end a process that has nothing to save yet.

A program sets this up before it imports anything else, so that this module imports only what loads at once.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from contextlib import suppress

SIGNALS = (
    *(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT),
    *(signal.SIGUSR1, signal.SIGUSR2),  # by which batch schedulers announce the end of a job
)


def end_on_signals() -> None:
    """End this process at once, without a traceback, on the first signal: there is nothing to save yet.

    Once Python exits by itself, signals are ignored: everything is saved and printed, and the exit status
    must not change. Call this before anything else, so that it runs after every other exit handler.
    """
    handle(_end)
    atexit.register(handle, signal.SIG_IGN)


def handle(handler: signal._HANDLER) -> dict[int, signal._HANDLER]:
    """Set a handler; returns the previous ones. A SIGHUP that nohup ignores stays ignored."""
    ours = [
        number for number in SIGNALS if (number, signal.getsignal(number)) != (signal.SIGHUP, signal.SIG_IGN)
    ]
    return {number: signal.signal(number, handler) for number in ours}


def _end(number: int, frame: object) -> None:
    try:
        from slimnet.invocation import this_command

        command = this_command()
    except (ImportError, AttributeError):  # it was just being imported
        command = " ".join(sys.orig_argv)
    with suppress(OSError):  # of a terminal that was closed
        os.write(2, f"interrupted. Go on with: {command}\n".encode())
    os._exit(128 + number)
