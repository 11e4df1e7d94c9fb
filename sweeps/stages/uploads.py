"""Uploads in the background: the newest of what is put, tried again until it is there."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from sweeps.claim import ClaimLostError
from sweeps.stages.remote import UnreachableError, Warn, when_reachable

LAST_TRY = 30.0  # seconds for what is being uploaded when it is to stop

Item = TypeVar("Item")


class Uploads(Generic[Item]):
    """A thread that uploads.

    Args:
        upload: one item; whatever it raises, it is called again, but for ClaimLostError: then nothing is
            uploaded any more.
        warn: told, in a sentence, that uploads fail.
    """

    def __init__(self, upload: Callable[[Item], None], warn: Warn) -> None:
        self._upload, self._warn = upload, warn
        self._changed = threading.Condition()
        self._newest: Item | None = None  # until it is uploaded
        self._failing = self._over = False
        threading.Thread(target=self._run, name="uploads", daemon=True).start()

    def put(self, item: Item) -> None:
        """Have an item uploaded, in place of one that has not been yet."""
        with self._changed:
            self._newest = item
            self._changed.notify_all()

    def finish(self, stop: Callable[[], bool]) -> None:
        """Wait until everything is uploaded, or `stop` says to give up what cannot be."""
        stopped: float | None = None
        with self._changed:
            while self._newest is not None and not self._over:
                if stop():
                    stopped = stopped or time.monotonic()
                    if self._failing or time.monotonic() - stopped > LAST_TRY:
                        break
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
            item = self._newest
        if item is None:
            return
        try:
            self._upload(item)
        except ClaimLostError:
            with self._changed:
                self._over, self._newest = True, None
                self._changed.notify_all()
            return
        except Exception as error:  # a full disk, say: what was computed must not be lost
            self._failing = True
            if isinstance(error, UnreachableError):
                raise
            raise UnreachableError(f"cannot upload it ({error or type(error).__name__})") from error
        with self._changed:
            self._failing = False
            if self._newest is item:
                self._newest = None
            self._changed.notify_all()
