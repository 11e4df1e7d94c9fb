"""One writer of a stage at a URL: a small object that names it, with a counter that it keeps raising.

No clock is compared with another: who waits sees whether the counter stands still, by its own clock. Where
a place cannot refuse a write, two may take the lease of a dead writer; so who has it looks before it writes.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from sweeps.claim import ClaimLostError, machine
from sweeps.stages.remote import Remote, UnreachableError, Warn, when_reachable

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
        content, _ = self._remote.look(self._name)
        if content is None:
            taken = self._remote.create(self._name, self._content())
        elif self._is_mine(content):  # the answer was lost when it was written
            taken = True
        elif self._is_stale(content):
            now, tag = self._remote.look(self._name)
            taken = now == content and self._remote.replace(self._name, self._content(), tag)
        else:
            return False
        if not taken or not self._is_mine(self._remote.read(self._name)):
            return False
        self._beating.start()
        return True

    def acquire(self, stop: Callable[[], bool], warn: Warn) -> bool:
        """Take the lease once nobody alive has it; False if `stop` ended the wait.

        Args:
            stop: ends it.
            warn: told, in a sentence, that the place cannot be reached.
        """
        taken: list[bool] = []
        while when_reachable(lambda: taken.append(self.take()), stop, warn):
            if taken[-1]:
                return True
            end = time.monotonic() + LOOK
            while time.monotonic() < end and not stop():
                time.sleep(min(0.2, LOOK))
        return False

    def check(self) -> None:
        """See at the place that nobody else has taken the lease.

        Raises:
            ClaimLostError: somebody has.
            UnreachableError: the place cannot be reached.
        """
        if self.lost or not self._is_mine(self._remote.read(self._name)):
            self.lose()

    def lose(self) -> NoReturn:
        """Write no more, as another has written in spite of the lease.

        Raises:
            ClaimLostError: always.
        """
        self.lost = True
        raise ClaimLostError(
            f"another took {self._name.rpartition('/')[0]} at {self._remote} over, "
            "as no sign of life of this process came there"
        )

    def raise_if_lost(self) -> None:
        """Stop a writer that is known to have lost the lease.

        Raises:
            ClaimLostError: it has.
        """
        if self.lost:
            self.lose()

    def release(self) -> None:
        """Give it back; if the place cannot be reached now, it expires."""
        self._over.set()
        if self._beating.ident is None:
            return
        self._beating.join()
        with suppress(UnreachableError):
            if self._is_mine(self._remote.read(self._name)):
                self._remote.delete(self._name)

    def _is_stale(self, content: bytes) -> bool:
        """Whether what is there is of a writer that is dead."""
        if content != self._seen[0]:
            self._seen = (content, time.monotonic())
        return _is_dead(content) or time.monotonic() - self._seen[1] > EXPIRES

    def _beat(self) -> None:
        while not self._over.wait(BEAT):
            with suppress(UnreachableError):
                found, tag = self._remote.look(self._name)
                if not self._is_mine(found):
                    self.lost = True
                    return
                self._mine["beat"] += 1
                self._remote.replace(self._name, self._content(), tag)

    def _is_mine(self, content: bytes | None) -> bool:
        return content is not None and _parsed(content).get("owner") == self._mine["owner"]

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
