"""The study in a PostgreSQL database, which other studies may share.

Who runs the study holds an advisory lock of the server on its name, released when the connection ends. The
server notices within a minute that the machine at the other end is gone.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from secrets import token_hex
from typing import Any, NamedTuple

import optuna
import psycopg
import sqlalchemy
from optuna.storages import BaseStorage, RDBStorage
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from slimnet.errors import SlimnetError
from sweeps.config.storage import deletion, expanded, public, without_values
from sweeps.study.lock import StudyBusyError
from sweeps.study.storage.base import FAULTS, Fill, UnavailableError, cause, chain

CONNECTING = 5  # seconds for a connection
SILENCE = 30  # seconds without an answer, after which a connection counts as dropped
SESSION = (  # the server's view of a connection
    "SET synchronous_commit = off",  # the study can be made again
    f"SET statement_timeout = '{SILENCE}s'",
    "SET tcp_keepalives_idle = 20",
    "SET tcp_keepalives_interval = 10",
    "SET tcp_keepalives_count = 3",
)
OURS = "sweeps"  # begins the name of a connection that holds a study


TABLES = (("studies", "study_name"), ("trials", "study_id"))  # some of Optuna's, each with a column
VERSIONS = {"alembic_version", "version_info"}  # in which Optuna keeps its version, and others theirs
UNFINISHED, REPLACED = " (being made)", " (replaced)"  # after a study's name: names that no other study has
ASIDE = " (old)"  # likewise
OF_STUDY = rf"({re.escape(ASIDE)}(-\d+)?|{re.escape(UNFINISHED)}|{re.escape(REPLACED)})?"
RENAME = sqlalchemy.text("UPDATE studies SET study_name = :new WHERE study_name = :old")


class Holder(NamedTuple):
    """The connection that holds a study."""

    pid: int  # of the server's process
    name: str


class PostgreSQL:
    """A study in a PostgreSQL database.

    Args:
        address: as the config holds it; its variables are read now.
        study: its name.

    Raises:
        SlimnetError: a variable is not set, or it cannot be an address.
    """

    is_remote = True
    faults: tuple[type[Exception], ...] = (*FAULTS, psycopg.Error, RuntimeError)  # last: another schema

    def __init__(self, address: str, study: str) -> None:
        self.name = public(address)
        self._address = address
        self._study = study
        self._me = f"{OURS} {token_hex(4)} {os.getpid()} on {platform.node()}"[:63]
        try:
            login = conninfo_to_dict(expanded(address))
        except psycopg.Error:  # which repeats it
            raise SlimnetError(f"storage {self.name} is no address of a PostgreSQL database") from None
        settings = {
            "connect_timeout": CONNECTING,
            "keepalives_idle": SILENCE,
            "tcp_user_timeout": 1000 * SILENCE,
            **login,
            "client_encoding": "UTF8",  # psycopg reads text as bytes in SQL_ASCII
            "application_name": self._me,
        }
        self._login = make_conninfo("", **settings)
        self._lock: psycopg.Connection[Any] | None = None  # as long as it lives, the study is held

    # For the driver, before it begins

    def hold(self, uid: str | None) -> None:
        """Hold the study for this process, in a database that is fit for it.

        Args:
            uid: the study's; None if it is new.

        Raises:
            StudyBusyError: naming the process that holds it.
            SlimnetError: the database cannot be used, or has another study of the name.
        """
        try:
            with self._explained():
                self._hold(uid)
        except SlimnetError:
            self.release()
            raise

    def check(self, uid: str | None) -> None:
        """See that `hold` would not refuse the database; changes nothing, and holds nothing.

        Raises:
            SlimnetError: it would.
        """
        with self._explained():
            with self._connected() as connection:
                has_tables = self._check_tables(connection)
            if has_tables:
                storage = self._storage(skip_table_creation=True)
                try:
                    self._refuse_another(storage, uid)
                finally:
                    self.close(storage)

    def delete(self, uid: str) -> bool:
        """Delete the study from the database, if it is there, with what was set aside of it.

        Returns:
            Whether there was anything.

        Raises:
            StudyBusyError: another process runs it.
            SlimnetError: the database cannot be used.
        """
        with self._explained():
            storage = self.connect()
            try:
                own = re.compile(re.escape(self._study) + OF_STUDY)
                names = [name for name in optuna.get_all_study_names(storage) if own.fullmatch(name)]
                names = [name for name in names if _uid(storage, name) == uid]
                if names:
                    self._take()
                for name in names:
                    optuna.delete_study(study_name=name, storage=storage)
                return bool(names)
            finally:
                self.close(storage)
                self.release()

    def release(self) -> None:
        """Hold the study no more."""
        if self._lock is not None:
            with suppress(psycopg.Error):
                self._lock.close()
        self._lock = None

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Have what goes wrong before a sweep told as a SlimnetError that says what to do."""
        try:
            yield
            return
        except SlimnetError as error:
            known = error
        except self.faults as error:
            known = self.translated(error)
        if isinstance(known, UnavailableError):
            raise SlimnetError(f"{known}; see that its server runs, and that storage is right")
        raise known

    def _hold(self, uid: str | None) -> None:
        storage = self.connect()
        try:
            self._refuse_another(storage, uid)
        finally:
            self.close(storage)
        self._take()

    def _refuse_another(self, storage: BaseStorage, uid: str | None) -> None:
        """Refuse a database that has a study of the name with another uid, or with any if it is None."""
        if self._study not in optuna.get_all_study_names(storage):
            return
        if uid is None or _uid(storage, self._study) != uid:
            self._refuse_if_held(ours=False)
            raise SlimnetError(
                f"{self.name} has another study called {self._study}; give this one another name "
                f"(--set study=NAME), or delete that one there with: {deletion(self._address, self._study)}"
            )

    # What `Storage` asks

    def has_study(self) -> bool:
        return True  # for `connect` makes Optuna's tables

    def check_free(self) -> None:
        """See that the server answers, and that the study is still held."""
        try:
            self._take()
            assert self._lock is not None
            self._lock.execute("SELECT 1")
        except psycopg.Error as error:
            self.release()
            raise self.translated(error) from None

    def connect(self) -> BaseStorage:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with self._connected() as connection:  # one at a time, as tables cannot be made by two
            connection.execute("SELECT pg_advisory_lock(%s)", [_key("tables")])
            self._check_tables(connection)
            return self._storage()

    @contextmanager
    def copied(self) -> Iterator[BaseStorage]:
        storage = self.connect()
        try:
            yield storage
        finally:
            self.close(storage)

    def make(self, study: str, fill: Fill, *, keep: bool) -> str | None:
        storage = self.connect()
        try:
            assert isinstance(storage, RDBStorage)
            unfinished, replaced = f"{study}{UNFINISHED}", f"{study}{REPLACED}"
            names = set(optuna.get_all_study_names(storage))
            for leftover in names & {unfinished, replaced}:
                optuna.delete_study(study_name=leftover, storage=storage)
            fill(storage, unfinished)
            aside = _free(f"{study}{ASIDE}", names) if keep else replaced
            with storage.engine.begin() as connection:
                connection.execute(RENAME, {"old": study, "new": aside})
                connection.execute(RENAME, {"old": unfinished, "new": study})
            if study in names and not keep:
                optuna.delete_study(study_name=replaced, storage=storage)
            return aside if study in names and keep else None
        finally:
            self.close(storage)

    def is_damage(self, error: Exception) -> bool:
        return not any(isinstance(known, psycopg.Error | SlimnetError) for known in chain(error))

    def translated(self, error: Exception) -> SlimnetError:
        if isinstance(error, SlimnetError):
            return error
        reason = without_values(" ".join(cause(error).split()), self._address)
        first = [known for known in chain(error) if isinstance(known, psycopg.Error)]
        if any(isinstance(known, psycopg.OperationalError | psycopg.InterfaceError) for known in first):
            return UnavailableError(f"{self.name} cannot be reached ({reason})")
        barred = psycopg.errors.InsufficientPrivilege | psycopg.errors.InvalidSchemaName
        is_barred = any(isinstance(known, barred) for known in first)
        advice = "give who logs in the right to make tables, and to use those that are there"
        advice = advice if is_barred else "use another database"
        return SlimnetError(f"{self.name} cannot be used ({reason}); {advice}")

    def close(self, storage: BaseStorage) -> None:
        assert isinstance(storage, RDBStorage)
        storage.remove_session()
        storage.engine.dispose()

    # Below

    def _storage(self, *, skip_table_creation: bool = False) -> RDBStorage:
        options: dict[str, Any] = {"creator": self._open, "pool_size": 1, "max_overflow": 1}
        return RDBStorage("postgresql+psycopg://", options, skip_table_creation=skip_table_creation)

    def _open(self) -> psycopg.Connection[Any]:
        connection = psycopg.connect(self._login, autocommit=True)
        for statement in SESSION:
            connection.execute(statement)
        connection.autocommit = False
        return connection

    @contextmanager
    def _connected(self) -> Iterator[psycopg.Connection[Any]]:
        with self._open() as connection:
            connection.autocommit = True
            yield connection

    def _check_tables(self, connection: psycopg.Connection[Any]) -> bool:
        """Refuse a database with tables that are called as Optuna's, and are not; whether it has Optuna's."""
        found = connection.execute(
            "SELECT table_name, column_name FROM information_schema.columns "
            "WHERE table_schema = current_schema()"
        ).fetchall()
        tables = {table for table, _ in found}
        foreign = [table for table, column in TABLES if table in tables and (table, column) not in found]
        has_tables = tables.issuperset(table for table, _ in TABLES)
        if not has_tables:  # Optuna makes them with those of its version
            foreign += sorted(tables & VERSIONS)
        if foreign:
            raise SlimnetError(
                f"{self.name} has tables that are not Optuna's ({', '.join(foreign)}); use another database"
            )
        return has_tables

    def _take(self) -> None:
        """Take the study's lock, unless this process has it."""
        if self._lock is not None:
            return
        connection = self._open()
        connection.autocommit = True
        (taken,) = _row(connection, "SELECT pg_try_advisory_lock(%s)", _key(self._study))
        if not taken:
            connection.close()
            self._refuse_if_held(ours=True)
            raise UnavailableError(f"{self.name} has just been let go by an earlier connection; try again")
        self._lock = connection

    def _refuse_if_held(self, *, ours: bool) -> None:
        """Raise StudyBusyError if another process holds the study.

        Args:
            ours: a connection of this process may be the holder, which was lost before the server noticed.
        """
        with self._connected() as connection:
            key = _key(self._study)
            found = connection.execute(
                "SELECT pid, application_name FROM pg_locks JOIN pg_stat_activity USING (pid) "
                "WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND classid = %s AND objid = %s "
                "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
                [key >> 32, key & 0xFFFFFFFF],
            ).fetchone()
            if found is None:
                return
            holder = Holder(*found)
            if ours and holder.name == self._me:
                connection.execute("SELECT pg_terminate_backend(%s)", [holder.pid])
                return
            ours_, _, who = holder.name.partition(" ")
            who = f"process {who.partition(' ')[2]}" if ours_ == OURS else "another process"
            raise StudyBusyError(
                f"{self._study} is being run by {who}, which holds it in {self.name}; wait for it, or stop it"
            )


def _uid(storage: BaseStorage, study: str) -> str | None:
    """The uid of a study in a database; None if it is none of ours."""
    uid: str | None = optuna.load_study(study_name=study, storage=storage).user_attrs.get("uid")
    return uid


def _free(name: str, taken: set[str]) -> str:
    """A name that is not taken: this one, or with a number."""
    free, count = name, 1
    while free in taken:
        count += 1
        free = f"{name}-{count}"
    return free


def _key(name: str) -> int:
    """The number of an advisory lock, from 0 to 2**63 - 1."""
    return int.from_bytes(hashlib.sha256(f"slimnet {name}".encode()).digest()[:8], "big") >> 1


def _row(connection: psycopg.Connection[Any], statement: str, *values: Any) -> tuple[Any, ...]:
    row = connection.execute(statement, values).fetchone()
    assert row is not None
    return tuple(row)
