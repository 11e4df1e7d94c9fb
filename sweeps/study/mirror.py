"""Keeps the Optuna study equal to the record, as far as it can be written.

No sweep waits for it, or fails with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Protocol

from slimnet.errors import SlimnetError
from sweeps.config import Config
from sweeps.study.database import Database, Entry
from sweeps.study.lock import StudyBusyError
from sweeps.study.storage import LockedError, Storage, UnavailableError

PAUSE = 1.0  # seconds between two tries while the storage cannot be written; twice as long after each
LONGEST_PAUSE = 30.0
TOLD_AFTER = 3.0  # seconds for which it cannot be written; programs that only read a file take less
LOOK = 30.0  # seconds between two looks at whether a remote storage still holds the study for this process
AT_THE_END = 5.0  # seconds to wait for the last changes, if the storage cannot be written
SLOWEST_END = 60.0  # seconds that a storage which answers slowly, or no more, may take for them
STEP = 0.1  # seconds between two questions whether to wait on for them


def patiently(name: str) -> bool:
    """Wait for a storage as long as it takes."""
    return True


class Mirroring(Protocol):
    """Passes trials on to the Optuna study."""

    def add(self, entry: Entry) -> None:
        """Note the next trial."""
        ...

    def tell(self, entry: Entry) -> None:
        """Note the end of a trial."""
        ...

    def update(self) -> list[str]:
        """Write what is new, if that can be written now; returns sentences for the user.

        Raises:
            StudyBusyError: another driver has taken the study while its storage was out of reach.
        """
        ...

    def close(self, wait_on: Callable[[str], bool] = patiently) -> list[str]:
        """Write the rest, waiting a little if that cannot be written now; returns sentences for the user.

        Args:
            wait_on: whether to go on waiting for the storage that it is given the name of.
        """
        ...


def mirrored(
    storage: Storage, config: Config, facts: Mapping[str, Any], entries: Sequence[Entry]
) -> Mirroring:
    """The mirror in a storage, which does not hold its user up.

    Args:
        storage: where the study is kept.
        config: the study's config.
        facts: as `Database.open` takes them.
        entries: the trials so far, by number.
    """
    mirror = Mirror(storage, config, facts, entries)
    return InBackground(mirror) if storage.is_remote else mirror


class Mirror:
    """Passes trials on; what cannot be written yet, as the storage is locked or away, is written later.

    A study that another program has damaged or changed meanwhile is set aside and made anew.
    """

    def __init__(
        self, storage: Storage, config: Config, facts: Mapping[str, Any], entries: Sequence[Entry]
    ) -> None:
        """As `mirrored`."""
        self._storage, self._config, self._facts = storage, config, facts
        self._entries = list(entries)
        self._changed: dict[int, None] = {}  # trials that the storage does not have as they are now, in order
        self._database: Database | None = None
        self._lost = False  # it cannot be written in this run
        self._waits_since: float | None = None
        self._waits_for = ""
        self._told = False  # of that
        self._pause = PAUSE
        self._next_try = 0.0
        self._next_look = 0.0

    @property
    def name(self) -> str:
        """Of the storage, for messages."""
        return self._storage.name

    def add(self, entry: Entry) -> None:
        """Note the next trial."""
        self._entries.append(entry)
        self._changed[entry.number] = None

    def tell(self, entry: Entry) -> None:
        """Note the end of a trial."""
        self._entries[entry.number] = entry
        self._changed[entry.number] = None

    def update(self) -> list[str]:
        """Write what is new, if that can be written now; returns sentences for the user."""
        now = time.monotonic()
        is_due = (
            self._database is None or self._changed or (self._storage.is_remote and now > self._next_look)
        )
        if self._lost or not is_due or now < self._next_try:
            return []
        self._next_look = now + LOOK
        try:
            said = self._write()
        except UnavailableError as error:
            return self._wait(error)
        except StudyBusyError:
            raise
        except SlimnetError as error:
            self._lost, self._waits_since = True, None
            return [f"{error}. The sweep goes on without it"]
        if self._told:
            said.append(f"{self._storage.name} can be written again, and has every trial")
        self._waits_since, self._told, self._pause = None, False, PAUSE
        return said

    def close(self, wait_on: Callable[[str], bool] = patiently) -> list[str]:
        """As in `Mirroring`."""
        end = time.monotonic() + AT_THE_END
        self._next_try = 0.0
        said = self.update()
        while self._waits_since is not None and time.monotonic() < end and wait_on(self.name):
            time.sleep(PAUSE / 10)
            self._next_try = 0.0
            said += self.update()
        if self._waits_since is not None:
            said.append(f"{self._waits_for}, also at the end; the next run brings it up to date")
        if self._database is not None:
            self._database.close()
        return said

    def _write(self) -> list[str]:
        if self._database is not None:
            try:
                if not self._changed:
                    self._database.check_free()
                for number in list(self._changed):
                    self._database.put(self._entries[number])
                    del self._changed[number]
                return []
            except LockedError:
                raise
            except SlimnetError:  # it was away, or was changed, damaged or deleted: see what is left
                self._database.close()
        self._database = None
        self._database = Database.open(self._storage, self._config, self._facts, self._entries)
        self._changed.clear()
        return [self._database.replaced] if self._database.replaced else []

    def _wait(self, error: UnavailableError) -> list[str]:
        now = time.monotonic()
        self._waits_since, self._waits_for = self._waits_since or now, str(error)
        self._next_try = now + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        if self._told or now - self._waits_since < TOLD_AFTER:
            return []
        self._told = True
        return [f"{error}; the sweep goes on, and writes to it when that is possible"]


class InBackground:
    """A mirror that works in a thread of its own, as its storage may take long to answer."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self._orders: SimpleQueue[partial[None] | None] = SimpleQueue()  # None: to come to its end
        self._said: SimpleQueue[str | Exception] = SimpleQueue()
        self._thread = Thread(target=self._work, name="mirror", daemon=True)

    def add(self, entry: Entry) -> None:
        """Note the next trial."""
        self._orders.put(partial(self._mirror.add, entry))

    def tell(self, entry: Entry) -> None:
        """Note the end of a trial."""
        self._orders.put(partial(self._mirror.tell, entry))

    def update(self) -> list[str]:
        """What there is to say since the last time."""
        if self._thread.ident is None:
            self._thread.start()
        said = []
        with suppress(Empty):
            while True:
                news = self._said.get_nowait()
                if isinstance(news, Exception):
                    raise news
                said.append(news)
        return said

    def close(self, wait_on: Callable[[str], bool] = patiently) -> list[str]:
        """Have the rest written, and wait for it for a while."""
        self._orders.put(None)
        said = self.update()
        end = time.monotonic() + SLOWEST_END
        while self._thread.is_alive() and time.monotonic() < end and wait_on(self._mirror.name):
            self._thread.join(STEP)
        said += self.update()
        if self._thread.is_alive():
            said.append(f"{self._mirror.name} is slow to answer; the next run brings it up to date")
        return said

    def _work(self) -> None:
        try:
            while True:
                self._say(self._mirror.update())
                for order in self._next_orders():
                    if order is None:
                        self._say(self._mirror.close())
                        return
                    order()
        except Exception as error:  # for the driver
            self._said.put(error)

    def _next_orders(self) -> list[partial[None] | None]:
        """What has been ordered, or becomes so within a moment."""
        orders = []
        with suppress(Empty):
            orders.append(self._orders.get(timeout=PAUSE / 2))
            while True:
                orders.append(self._orders.get_nowait())
        return orders

    def _say(self, sentences: Sequence[str]) -> None:
        for sentence in sentences:
            self._said.put(sentence)
