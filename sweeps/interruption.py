"""Ctrl-C, a closed terminal and the signals of batch schedulers: before, during and after a sweep."""

from __future__ import annotations

import atexit
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType

from slimnet.invocation import this_command

SIGNALS = (
    *(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT),
    *(signal.SIGUSR1, signal.SIGUSR2),  # by which batch schedulers announce the end of a job
)


class StoppedAtOnce(BaseException):
    """A second signal arrived while a sweep was closing."""


@dataclass
class Interruption:
    """The signals that a sweep has received.

    Attributes:
        signals: their numbers, in order. The first asks to stop after the current epochs, the second to stop
            at once.
        closing: whether the sweep is over and only its outputs are missing; a second signal then raises
            StoppedAtOnce.
    """

    signals: list[int] = field(default_factory=list)
    closing: bool = False

    @property
    def level(self) -> int:
        """0, 1 (stop after the current epochs) or 2 (stop at once)."""
        return min(len(self.signals), 2)

    @property
    def exit_status(self) -> int:
        """The status by which a shell recognises a process that the first signal ended, or else Ctrl-C."""
        return 128 + (self.signals[0] if self.signals else signal.SIGINT)

    def note(self, number: int, frame: FrameType | None = None) -> None:
        """Handle a signal. Of SIGHUPs one counts: the system and the shell each tell of a closed terminal.

        Raises:
            StoppedAtOnce: it is the second one, and the sweep is closing.
        """
        if number == signal.SIGHUP and number in self.signals:
            return
        self.signals.append(number)
        if self.closing and self.level == 2:
            raise StoppedAtOnce


@contextmanager
def watch_signals() -> Iterator[Interruption]:
    """Collect signals instead of being ended by them."""
    interruption = Interruption()
    before = _handle(interruption.note)
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_on_signals() -> None:
    """End this process at once, without a traceback, on the first signal: there is nothing to save yet.

    Once Python exits by itself, signals are ignored: everything is saved and printed, and the exit status
    must not change. Call this before anything else, so that it runs after every other exit handler.
    """
    _handle(_end)
    atexit.register(_handle, signal.SIG_IGN)


def _handle(handler: signal._HANDLER) -> dict[int, signal._HANDLER]:
    """Set a handler; returns the previous ones. A SIGHUP that nohup ignores stays ignored."""
    ours = [
        number for number in SIGNALS if (number, signal.getsignal(number)) != (signal.SIGHUP, signal.SIG_IGN)
    ]
    return {number: signal.signal(number, handler) for number in ours}


def _end(number: int, frame: FrameType | None) -> None:
    with suppress(OSError):  # of a terminal that was closed
        os.write(2, f"interrupted. Go on with: {this_command()}\n".encode())
    os._exit(128 + number)
