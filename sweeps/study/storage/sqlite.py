"""The study in a SQLite file.

A sweep never relies on it, so SQLite does not wait for the disk: a killed process leaves an intact database,
and one that a power cut has damaged is recognised and replaced.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, RDBStorage

from slimnet.errors import SlimnetError
from sweeps.study.storage.base import FAULTS, LockedError, cause, chain
from sweeps.study.storage.files import File

WAIT = 0.2  # seconds before a file that another program holds counts as locked
HOLD = 10.0  # seconds that one of Optuna's steps waits, should the file be locked just then
UNFIT = {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_SCHEMA, sqlite3.SQLITE_NOTADB}


class SQLite(File):
    """A study in a SQLite file, whose path may hold any characters."""

    COMPANIONS = ("-journal", "-wal", "-shm")
    faults = (*FAULTS, sqlite3.Error)

    def connect(self) -> BaseStorage:
        return self._storage(new=False)

    def create(self) -> BaseStorage:
        return self._storage(new=True)

    def check_free(self) -> None:
        """See that no other program holds the file. Optuna by itself would wait for it, or give up midway."""
        with closing(_sqlite(self.path, "rw", WAIT, isolation_level=None)) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            connection.execute("ROLLBACK")

    def is_damage(self, error: Exception) -> bool:
        code = _code(error)
        return code is None or code in UNFIT

    def translated(self, error: Exception) -> SlimnetError:
        if _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return LockedError(f"{self.name} is locked by another program, perhaps optuna-dashboard")
        return SlimnetError(
            f"{self.name} cannot be used ({cause(error)}); fix its permissions or make room, or move it away "
            "and the next `run` makes it anew"
        )

    def close(self, storage: BaseStorage) -> None:
        assert isinstance(storage, RDBStorage)
        storage.remove_session()
        storage.engine.dispose()

    def _storage(self, *, new: bool) -> RDBStorage:
        optuna.logging.set_verbosity(optuna.logging.WARNING)

        def connect() -> sqlite3.Connection:
            connection = _sqlite(self.path, "rwc" if new else "rw", HOLD, check_same_thread=False)
            connection.execute("PRAGMA synchronous=OFF")
            if new:
                connection.execute("PRAGMA journal_mode=MEMORY")  # an unfinished file is never read
            return connection

        engine: dict[str, Any] = {"creator": connect}
        return RDBStorage("sqlite:///study.db", engine, skip_table_creation=not new)


def _sqlite(path: Path, mode: str, wait: float, **options: Any) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    connection: sqlite3.Connection = sqlite3.connect(uri, uri=True, timeout=wait, **options)
    return connection


def _code(error: BaseException) -> int | None:
    """SQLite's own code for an error, if it comes from there."""
    for known in chain(error):
        if isinstance(known, sqlite3.Error) and hasattr(known, "sqlite_errorcode"):
            return known.sqlite_errorcode & 0xFF
    return None
