"""One writer of a stage at a URL: a small object that names it, with a counter that it keeps raising.

No clock is compared with another: who waits sees whether the counter stands still, by its own clock.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from sweeps.claim import machine
from sweeps.stages.remote import Remote, UnreachableError

BEAT = 10.0  # seconds between two values of the counter
EXPIRES = 60.0  # seconds without a new one, after which the writer counts as dead
LOOK = 2.0  # seconds between two looks at another's


class Lease:
    """The right to write a stage, once `take` has said so.

    Args:
        remote: where the object is.
        name: of the object.

    Attributes:
        lost: whether another has taken it over, which happens to a process that was stopped for long.
    """

    def __init__(self, remote: Remote, name: str) -> None:
        self.lost = False
        self._remote, self._name = remote, name
        self._mine: dict[str, Any] = {"owner": secrets.token_hex(8), **_here(), "beat": 0}
        self._seen: tuple[Any, float] = (None, 0.0)  # what another's was, and since when
        self._over = threading.Event()
        self._beating = threading.Thread(target=self._beat, name="lease", daemon=True)

    def take(self) -> bool:
        """Take the lease if nobody alive has it.

        Raises:
            UnreachableError: the place cannot be reached.
        """
        content = self._remote.read(self._name)
        if content is not None and not self._is_stale(content):
            return False
        if content is not None:
            self._remote.delete(self._name)
        if not self._remote.create(self._name, self._content()):
            return False
        self._beating.start()
        return True

    def release(self) -> None:
        """Give it back; if the place cannot be reached now, it expires."""
        self._over.set()
        if self._beating.ident is None:
            return
        self._beating.join()
        with suppress(UnreachableError):
            if self._owner() == self._mine["owner"]:
                self._remote.delete(self._name)

    def _is_stale(self, content: bytes) -> bool:
        """Whether what is there is of a writer that is dead."""
        if content != self._seen[0]:
            self._seen = (content, time.monotonic())
        return _is_dead(content) or time.monotonic() - self._seen[1] > EXPIRES

    def _beat(self) -> None:
        while not self._over.wait(BEAT):
            with suppress(UnreachableError):
                if self._owner() != self._mine["owner"]:
                    self.lost = True
                    return
                self._mine["beat"] += 1
                self._remote.write(self._name, self._content())

    def _owner(self) -> Any:
        content = self._remote.read(self._name)
        return _parsed(content).get("owner") if content else None

    def _content(self) -> bytes:
        return json.dumps(self._mine).encode()


def _here() -> dict[str, Any]:
    """This process, in a form that another can compare with its own."""
    place = machine()
    with suppress(OSError):
        place += os.readlink("/proc/self/ns/pid")  # else the number of a process says nothing
    return {"where": place, "process": _process(os.getpid())}


def _is_dead(content: bytes) -> bool:
    """Whether a lease is of a process of this machine that has ended."""
    found = _parsed(content)
    process = found.get("process")
    if found.get("where") != _here()["where"] or not isinstance(process, list) or not process[1:]:
        return False
    return _process(process[0]) != process


def _process(pid: int) -> list[int]:
    """A process that has not ended: its number, and when it began, where the system tells that."""
    with suppress(OSError, ValueError, IndexError):
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return [pid, int(fields[18])] if state not in "ZX" else []
    return []


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
