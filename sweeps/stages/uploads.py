"""Uploads in the background: the newest of what is put, tried again until it is there."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from sweeps.stages.remote import UnreachableError, Warn, when_reachable


class Closable(Protocol):
    """What is closed once it is uploaded, or a newer one takes its place."""

    def close(self) -> None:
        """Close it."""


Item = TypeVar("Item", bound=Closable)


class Uploads(Generic[Item]):
    """A thread that uploads.

    Args:
        upload: one item; whatever it raises, it is called again.
        warn: told, in a sentence, that uploads fail.
    """

    def __init__(self, upload: Callable[[Item], None], warn: Warn) -> None:
        self._upload, self._warn = upload, warn
        self._changed = threading.Condition()
        self._newest: Item | None = None  # until it is uploaded
        self._busy: Item | None = None
        self._failing = self._over = False
        threading.Thread(target=self._run, name="uploads", daemon=True).start()

    def put(self, item: Item) -> None:
        """Have an item uploaded, in place of one that has not been yet."""
        with self._changed:
            before, self._newest = self._newest, item
            if before is not None and before is not self._busy:
                before.close()
            self._changed.notify_all()

    def finish(self, stop: Callable[[], bool]) -> None:
        """Wait until everything is uploaded, or `stop` says to give up what cannot be."""
        with self._changed:
            while self._newest is not None and not (self._failing and stop()):
                self._changed.wait(0.1)
            self._over = True
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._newest is not None or self._over)
            meanwhile = "the stage goes on, and is uploaded later"
            if not when_reachable(self._upload_newest, lambda: self._over, self._warn, meanwhile):
                return

    def _upload_newest(self) -> None:
        with self._changed:
            item = self._busy = self._newest
        if item is None:
            return
        try:
            self._upload(item)
        except UnreachableError:
            self._end(item, failed=True)
            raise
        except Exception as error:  # a full disk, say: what was computed must not be lost
            self._end(item, failed=True)
            raise UnreachableError(f"cannot upload it ({error or type(error).__name__})") from error
        self._end(item, failed=False)

    def _end(self, item: Item, *, failed: bool) -> None:
        with self._changed:
            self._busy, self._failing = None, failed
            if self._newest is not item or not failed:
                item.close()
            if self._newest is item and not failed:
                self._newest = None
            self._changed.notify_all()
