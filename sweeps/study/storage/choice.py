"""Which storage a config means."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from slimnet.errors import SlimnetError
from sweeps.config import Config
from sweeps.config.storage import SCHEME
from sweeps.file_system import network_file_system
from sweeps.study.record import DATABASE, JOURNAL
from sweeps.study.storage.base import Storage
from sweeps.study.storage.journal import Journal
from sweeps.study.storage.sqlite import SQLite

if TYPE_CHECKING:
    from sweeps.study.storage.postgres import PostgreSQL


def chosen_storage(config: Config, folder: Path) -> Storage:
    """The storage that a config means.

    Args:
        config: of the study.
        folder: runs/<study>.

    Raises:
        SlimnetError: it cannot be had here.
    """
    if config.storage.startswith(SCHEME):
        return _postgres(config)
    if config.storage == "sqlite" and (shared := network_file_system(folder)):
        raise SlimnetError(
            f"{folder} is on a network file system ({shared}), where SQLite loses data, as its locks may not "
            "hold there; use storage: journal, a PostgreSQL database, or another folder (--runs DIR)"
        )
    if _means_a_journal(config, folder):
        return Journal(folder / JOURNAL)
    return SQLite(folder / DATABASE)


def known_storages(config: Config, folder: Path) -> Iterator[Storage]:
    """The storages that may have the study, if its folder has lost it.

    The one that the config means comes first, as the others may be what an earlier run has left.
    """
    files: list[Storage] = [SQLite(folder / DATABASE), Journal(folder / JOURNAL)]
    if config.storage.startswith(SCHEME):
        yield _postgres(config)
    elif _means_a_journal(config, folder):
        files.reverse()
    yield from (file for file in files if file.has_study())


def check_storage(config: Config, folder: Path, uid: str | None) -> None:
    """See that a run can keep the study where its config says; changes nothing.

    Args:
        config: of the study.
        folder: runs/<study>.
        uid: the study's; None if it is new.

    Raises:
        SlimnetError: it cannot.
    """
    if config.storage.startswith(SCHEME):
        _postgres(config).check(uid)
    else:
        chosen_storage(config, folder)


def delete_from_database(config: Config, uid: str) -> bool:
    """Delete a study from the database that its config names.

    Returns:
        Whether it was there.

    Raises:
        SlimnetError: it cannot be deleted.
    """
    return _postgres(config).delete(uid)


@contextmanager
def held_storage(config: Config, folder: Path, uid: str | None) -> Iterator[Storage]:
    """The storage that a config means, held for this process where others may come to it by another way.

    Args:
        config: of the study.
        folder: runs/<study>.
        uid: the study's; None if it is new.

    Raises:
        StudyBusyError: naming the process that holds it.
        SlimnetError: it cannot be had here, or not be used.
    """
    if not config.storage.startswith(SCHEME):
        yield chosen_storage(config, folder)
        return
    storage = _postgres(config)
    storage.hold(uid)
    try:
        yield storage
    finally:
        storage.release()


def _means_a_journal(config: Config, folder: Path) -> bool:
    return config.storage == "journal" or (
        config.storage == "auto" and network_file_system(folder) is not None
    )


def _postgres(config: Config) -> PostgreSQL:
    try:
        from sweeps.study.storage.postgres import PostgreSQL
    except ImportError:
        raise SlimnetError(
            "a study in PostgreSQL needs psycopg; install it with: pip install 'psycopg[binary]' sqlalchemy"
        ) from None
    return PostgreSQL(config.storage, config.study)
