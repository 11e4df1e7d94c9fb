"""Ctrl-C, SIGTERM and the closing of the terminal: what each does before, during and after a sweep."""

from __future__ import annotations

import atexit
import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StoppedAtOnce(BaseException):
    """A further signal has come while a sweep was being closed."""


@dataclass
class Interruption:
    """The signals that a sweep has received.

    Attributes:
        signals: their numbers, in order. The first asks to stop after the epochs in hand, the second to stop
            at once.
        closing: whether the sweep is over, so that a second signal can only cut its closing short: it raises
            StoppedAtOnce.
    """

    signals: list[int] = field(default_factory=list)
    closing: bool = False

    @property
    def level(self) -> int:
        """0, 1 (stop after the epochs in hand) or 2 (stop at once)."""
        return min(len(self.signals), 2)

    @property
    def exit_status(self) -> int:
        """What a shell expects of a process that ended by the first signal."""
        return 128 + self.signals[0]

    def note(self, number: int, frame: FrameType | None = None) -> None:
        """Take in a signal."""
        self.signals.append(number)
        if self.closing and self.level == 2:
            raise StoppedAtOnce


@contextmanager
def watch_signals() -> Iterator[Interruption]:
    """Collect signals instead of dying of them."""
    interruption = Interruption()
    before = _handle(interruption.note)
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_on_signals() -> None:
    """End this process at once, without a traceback, on the first signal: there is nothing to save yet.

    Once Python has begun to end by itself, signals are ignored: all is saved and said, and the exit status
    stays what it was to be. Call this first of all, so that it holds after every other exit handler.
    """
    _handle(_end)
    atexit.register(_handle, signal.SIG_IGN)


def command_line() -> str:
    """The command that the user gave, to be given again."""
    return shlex.join(sys.orig_argv)


def _handle(handler: signal._HANDLER) -> dict[int, signal._HANDLER]:
    """Set a handler; returns those before. What nohup has set stays."""
    ours = [
        number for number in SIGNALS if (number, signal.getsignal(number)) != (signal.SIGHUP, signal.SIG_IGN)
    ]
    return {number: signal.signal(number, handler) for number in ours}


def _end(number: int, frame: FrameType | None) -> None:
    os.write(sys.stderr.fileno(), f"interrupted. Go on with: {command_line()}\n".encode())
    os._exit(128 + number)
