"""Ctrl-C, a closed terminal and the signals of batch schedulers during a sweep; see `signals` for before."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

from sweeps.signals import handle


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
    before = handle(interruption.note)
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
