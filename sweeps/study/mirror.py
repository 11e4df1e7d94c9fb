"""study.db, kept equal to the record as far as it can be written: no sweep waits for it, or fails with it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slimnet.errors import SlimnetError
from sweeps.config import Config
from sweeps.study.database import Database, Entry, LockedError

PAUSE = 1.0  # seconds between two tries, while another program holds the file
TOLD_AFTER = 3.0  # seconds that it is held; programs that only read it take less
AT_THE_END = 5.0  # seconds to wait for the last changes


class Mirror:
    """Passes trials on to study.db; what cannot be written yet, since the file is locked, is written later.

    A file that another program has damaged or changed meanwhile is set aside and made anew.

    Args:
        path: study.db.
        config: the study's config.
        facts: as `Database.open` takes them.
        entries: the trials so far, by number.
    """

    def __init__(
        self, path: Path, config: Config, facts: Mapping[str, Any], entries: Sequence[Entry]
    ) -> None:
        self._path, self._config, self._facts = path, config, facts
        self._entries = list(entries)
        self._changed: dict[int, None] = {}  # trials that the file does not have as they are now, in order
        self._database: Database | None = None
        self._lost = False  # it cannot be written in this run
        self._locked_since: float | None = None
        self._told = False  # of the lock
        self._next_try = 0.0

    def add(self, entry: Entry) -> None:
        """Note the next trial."""
        self._entries.append(entry)
        self._changed[entry.number] = None

    def tell(self, entry: Entry) -> None:
        """Note the end of a trial."""
        self._entries[entry.number] = entry
        self._changed[entry.number] = None

    def update(self) -> list[str]:
        """Write what is new, if the file can be written now; returns sentences for the user."""
        is_due = self._database is None or self._changed
        if self._lost or not is_due or time.monotonic() < self._next_try:
            return []
        try:
            said = self._write()
        except LockedError:
            return self._wait()
        except SlimnetError as error:
            self._lost = True
            return [f"{error}. The sweep goes on without it"]
        if self._told:
            said.append(f"{self._path} is free again, and has every trial")
        self._locked_since, self._told = None, False
        return said

    def close(self) -> list[str]:
        """Write the rest, waiting a little for other programs; returns sentences for the user."""
        end = time.monotonic() + AT_THE_END
        said = self.update()
        while self._locked_since is not None and time.monotonic() < end:
            time.sleep(PAUSE / 10)
            said += self.update()
        if self._locked_since is not None:
            said.append(f"{self._path} is still locked; the next run brings it up to date")
        if self._database is not None:
            self._database.close()
        return said

    def _write(self) -> list[str]:
        if self._database is not None:
            try:
                for number in list(self._changed):
                    self._database.put(self._entries[number])
                    del self._changed[number]
                return []
            except LockedError:
                raise
            except SlimnetError:  # someone has changed, damaged or deleted it: see what is left
                self._database.close()
        self._database = None
        self._database = Database.open(self._path, self._config, self._facts, self._entries)
        self._changed.clear()
        return [self._database.replaced] if self._database.replaced else []

    def _wait(self) -> list[str]:
        now = time.monotonic()
        self._locked_since = self._locked_since or now
        self._next_try = now + PAUSE
        if self._told or now - self._locked_since < TOLD_AFTER:
            return []
        self._told = True
        return [
            f"{self._path} is locked by another program, perhaps optuna-dashboard; the sweep goes on, and "
            "writes to it when it is free"
        ]
