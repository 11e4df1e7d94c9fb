"""The study in Optuna's journal, a file of one line per change, for folders that machines share.

It needs no locks of the file system: who writes holds a file beside it, which is made exclusively, as NFS can
since version 3.
"""

from __future__ import annotations

import os
import time
import warnings

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from slimnet.errors import SlimnetError
from sweeps.study.storage.base import LockedError, cause, chain
from sweeps.study.storage.files import File

LOCK = ".lock"  # the ending of the file that is held while the journal is written
GRACE = 30.0  # seconds after which its holder, who needs a few milliseconds, counts as dead


class Journal(File):
    """A study in a journal."""

    COMPANIONS = (LOCK,)

    def connect(self) -> BaseStorage:
        with self.path.open("rb") as file:
            if file.seek(0, os.SEEK_END) and file.seek(-1, os.SEEK_END) and file.read() != b"\n":
                raise ValueError("its last line is incomplete")  # and would spoil the next
        return self.create()

    def salvage(self) -> BaseStorage:
        return self.create()  # a last line that is incomplete is not read

    def create(self) -> BaseStorage:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        path = str(self.path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return JournalStorage(JournalFileBackend(path, JournalFileOpenLock(path)))

    def check_free(self) -> None:
        """See that nobody holds the journal, or only one who was killed: Optuna by itself would wait."""
        lock = self.path.with_name(self.path.name + LOCK)
        try:
            age = time.time() - lock.stat().st_mtime
        except FileNotFoundError:
            return
        if age < GRACE:
            raise LockedError(f"{self.name} is locked by another program ({lock.name} is there)")
        lock.unlink(missing_ok=True)

    def is_damage(self, error: Exception) -> bool:
        return not any(isinstance(known, OSError | SlimnetError) for known in chain(error))

    def translated(self, error: Exception) -> SlimnetError:
        if isinstance(error, LockedError):
            return error
        return SlimnetError(
            f"{self.name} cannot be used ({cause(error)}); fix its permissions or make room, or move it away "
            "and the next `run` makes it anew"
        )

    def close(self, storage: BaseStorage) -> None:
        """Nothing is open between two changes."""
