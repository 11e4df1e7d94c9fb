"""A study in a file: made beside the old one, which is set aside, and renamed when it is whole."""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

from optuna.storages import BaseStorage

from sweeps.study.storage.base import FAULTS, Fill


class File(ABC):
    """A study in one file, with the companions that its format keeps with it.

    Args:
        path: of the file.
    """

    COMPANIONS: tuple[str, ...] = ()  # the endings of files that may lie beside it, and would be read again
    is_remote = False
    faults = FAULTS

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path)

    def has_study(self) -> bool:
        return self.path.exists()

    @abstractmethod
    def create(self) -> BaseStorage:
        """Optuna's storage in a new file, which nobody reads before it is whole."""

    @abstractmethod
    def connect(self) -> BaseStorage: ...

    def salvage(self) -> BaseStorage:
        """Optuna's storage to read from, though the file may end in the middle of a change."""
        return self.connect()

    @abstractmethod
    def close(self, storage: BaseStorage) -> None: ...

    @contextmanager
    def copied(self) -> Iterator[BaseStorage]:
        with TemporaryDirectory(prefix="slimnet-") as folder:
            for file in self._files():
                if file == self.path or file.exists():
                    shutil.copyfile(file, Path(folder, file.name))
            copy = type(self)(Path(folder, self.path.name))
            storage = copy.salvage()
            try:
                yield storage
            finally:
                copy.close(storage)

    def make(self, study: str, fill: Fill, *, keep: bool) -> str | None:
        aside = self._named(f"{self.path.name}.new")
        for leftover in aside._files():
            leftover.unlink(missing_ok=True)
        storage = aside.create()
        fill(storage, study)
        aside.close(storage)
        with aside.path.open("rb") as file:
            os.fsync(file.fileno())
        kept = self.set_aside() if keep else None
        for companion in self._files()[1:]:  # which would be applied to the new file
            companion.unlink(missing_ok=True)
        aside.path.replace(self.path)
        return kept

    def set_aside(self) -> str | None:
        """Rename the file, and its companions, to a free name, which is returned; None if there is none."""
        name, count = f"{self.path.name}.old", 1
        while any(file.exists() for file in self._named(name)._files()):
            count += 1
            name = f"{self.path.name}.old-{count}"
        found = self.path.exists()
        for file, new in zip(self._files(), self._named(name)._files(), strict=True):
            if file.exists():
                file.rename(new)
        return name if found else None

    def _named(self, name: str) -> Self:
        return type(self)(self.path.with_name(name))

    def _files(self) -> list[Path]:
        return [self.path.with_name(self.path.name + ending) for ending in ("", *self.COMPANIONS)]
