"""What the Optuna study of a sweep needs of the storage that keeps it, and what can be wrong with one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from optuna.exceptions import OptunaError
from optuna.storages import BaseStorage
from sqlalchemy.exc import SQLAlchemyError

from slimnet.errors import SlimnetError
from slimnet.wording import first_line


class UnavailableError(SlimnetError):
    """The storage cannot be written just now; what is to be written waits."""


class LockedError(UnavailableError):
    """Another program holds the storage."""


class UnfitError(ValueError):
    """A study cannot be updated to the record; the message follows the storage's name."""


Fill = Callable[[BaseStorage, str], None]
"""Writes a study of a name, which must be free, into one of Optuna's storages."""

FAULTS: tuple[type[Exception], ...] = (OptunaError, SQLAlchemyError, OSError, ValueError, LookupError)
"""What Optuna raises, with any storage."""


class Storage(Protocol):
    """Keeps the Optuna study of one sweep.

    Attributes:
        name: as messages name it; holds no credentials.
        is_remote: whether an answer may take long, as it comes through a network.
        faults: the errors that it may raise, which `translated` explains.
    """

    name: str
    is_remote: bool
    faults: tuple[type[Exception], ...]

    def has_study(self) -> bool:
        """Whether there is anything that may be the study."""
        ...

    def check_free(self) -> None:
        """See that a step would not have to wait.

        Raises:
            UnavailableError: it would.
        """
        ...

    def connect(self) -> BaseStorage:
        """Optuna's storage with what there is. It may raise any of `faults`."""
        ...

    def copied(self) -> AbstractContextManager[BaseStorage]:
        """Optuna's storage to read from, which changes nothing of what there is."""
        ...

    def make(self, study: str, fill: Fill, *, keep: bool) -> str | None:
        """Make the study anew: others see all of it, or nothing.

        Args:
            study: its name.
            fill: writes it.
            keep: set aside what is there, rather than replace it.

        Returns:
            How that is called which was there before, as it was set aside; None if there was nothing.
        """
        ...

    def is_damage(self, error: Exception) -> bool:
        """Whether an error in reading the study means that what is there is not, or no more, the study."""
        ...

    def translated(self, error: Exception) -> SlimnetError:
        """An error of Optuna or below, in a sentence that names the storage."""
        ...

    def close(self, storage: BaseStorage) -> None:
        """Close what `connect` returned."""
        ...


def chain(error: BaseException) -> Iterator[BaseException]:
    """An error and those that led to it."""
    known: BaseException | None = error
    while known is not None:
        yield known
        known = known.__cause__


def cause(error: BaseException) -> str:
    """The first cause, on one line."""
    *_, first = chain(error)
    return first_line(first)
