"""Uploads in the background: the newest of what is put, tried again until it is there."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from sweeps.stages.remote import LONGEST_PAUSE, PAUSE, Warn


class Closable(Protocol):
    """What is closed once it is uploaded, or a newer one takes its place."""

    def close(self) -> None:
        """Close it."""


Item = TypeVar("Item", bound=Closable)


class Uploads(Generic[Item]):
    """A thread that uploads.

    Args:
        upload: one item; what it raises is told, and it is called again.
        warn: told, in a sentence, that an upload fails, once until one succeeds.
    """

    def __init__(self, upload: Callable[[Item], object], warn: Warn) -> None:
        self._upload, self._warn = upload, warn
        self._changed = threading.Condition()
        self._next: Item | None = None
        self._busy = self._failing = self._over = False
        threading.Thread(target=self._run, name="uploads", daemon=True).start()

    def put(self, item: Item) -> None:
        """Have an item uploaded, in place of one that has not begun to be."""
        with self._changed:
            if self._next is not None:
                self._next.close()
            self._next = item
            self._changed.notify_all()

    def finish(self, stop: Callable[[], bool]) -> None:
        """Wait until everything is uploaded, or `stop` says to give up what cannot be."""
        with self._changed:
            while (self._busy or self._next is not None) and not (self._failing and stop()):
                self._changed.wait(0.1)
            self._over = True
            if self._next is not None:
                self._next.close()
            self._changed.notify_all()

    def _run(self) -> None:
        pause = PAUSE
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._next is not None or self._over)
                if self._next is None or self._over:
                    return
                item, self._next, self._busy = self._next, None, True
            problem = self._problem(item)
            if problem is not None and not self._failing:
                self._warn(f"{problem}; the stage goes on, and is uploaded later")
            with self._changed:
                self._busy, self._failing = False, problem is not None
                if problem is None or self._next is not None:  # else it is tried again
                    item.close()
                else:
                    self._next = item
                self._changed.notify_all()
                if problem is None:
                    pause = PAUSE
                else:
                    self._changed.wait_for(lambda: self._over, timeout=pause)
                    pause = min(2 * pause, LONGEST_PAUSE)

    def _problem(self, item: Item) -> str | None:
        """Upload an item; what went wrong, if anything."""
        try:
            self._upload(item)
        except Exception as error:  # whatever it is, what was computed must not be lost
            return str(error) or type(error).__name__
        return None
