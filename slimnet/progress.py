"""How far something has come, on standard error: a line that moves on a terminal, a few lines elsewhere."""

from __future__ import annotations

import sys
import time

from slimnet.wording import duration

REDRAW_SECONDS = 0.1
REPEAT_SECONDS = 20.0  # between lines where there is no terminal; what is quicker is not told


class ProgressLine:
    """Called with (what is being done, items done, items), or with (a sentence, 0, 0)."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._what, self._began, self._said = "", 0.0, 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show it."""
        now = time.monotonic()
        if total == 0:
            self._print(what, end="\n")
        elif what != self._what:
            self._what, self._began, self._said = what, now, now
        elif done == total:
            if self._live:
                self._print("", end="")
            elif now - self._began >= REPEAT_SECONDS:
                self._print(f"{what}: all {total:,} in {duration(now - self._began)}", end="\n")
        elif now - self._said >= (REDRAW_SECONDS if self._live else REPEAT_SECONDS):
            self._said = now
            left = (now - self._began) / max(1, done) * (total - done)
            text = f"{what}: {done:,} of {total:,}, {duration(left)} left"
            self._print(text, end="" if self._live else "\n")

    def _print(self, text: str, end: str) -> None:
        print(f"\r\x1b[K{text}" if self._live else text, end=end, file=sys.stderr, flush=True)
