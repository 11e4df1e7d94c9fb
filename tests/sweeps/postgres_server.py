"""A PostgreSQL server of the tests' own, on a free port; without its programs the tests are skipped."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from ports import free_port
from running import survived_by

PASSWORD = "se/cret #1@home"  # that an address has to quote
USERS = ("postgres", "nobody")  # of which one runs the server, as root may not


class Server:
    """A server that may be stopped and started again.

    Attributes:
        port: on 127.0.0.1, and of the socket in `folder`.
    """

    def __init__(self, folder: Path) -> None:
        psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed")
        programs = _programs()
        if programs is None:
            pytest.skip("PostgreSQL is not installed; scripts/test-extras.sh does")
        self._connect = psycopg.connect
        self._programs, self._folder = programs, folder
        self._data, self._as = folder / "data", _user()
        self.port = free_port()
        password = folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        if self._as is not None:
            shutil.chown(folder, self._as)
        options = ("--no-sync", "-A", "scram-sha-256", "-U", "sweeper", f"--pwfile={password}", "-E", "UTF8")
        self._call("initdb", "-D", str(self._data), *options)
        password.unlink()
        self.start()

    def start(self) -> None:
        where = f"-p {self.port} -h 127.0.0.1 -k {self._folder}"
        options = f"{where} -F -c shared_buffers=16MB -c max_connections=30"
        log = str(self._folder / "log")
        self._call("pg_ctl", "-D", str(self._data), "-w", "-l", log, "-o", options, "start")

    def stop(self) -> None:
        """Stop at once, as a failing machine does."""
        self._call("pg_ctl", "-D", str(self._data), "-w", "-m", "immediate", "stop")

    def database(self, name: str) -> str:
        """The address, without the password, of a database, which is made if there is none yet."""
        if not self.execute("postgres", f"SELECT 1 FROM pg_database WHERE datname = '{name}'"):
            self.execute("postgres", f'CREATE DATABASE "{name}"')
        return f"postgresql://sweeper@127.0.0.1:{self.port}/{name}"

    def connection(self, database: str) -> Any:
        """Another program's connection to a database."""
        where = f"host=127.0.0.1 port={self.port} user=sweeper dbname={database}"
        return self._connect(where, password=PASSWORD, autocommit=True)

    def execute(self, database: str, statement: str) -> list[tuple[object, ...]]:
        """What another program does, or finds, in a database."""
        with self.connection(database) as connection:
            cursor = connection.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []

    def _user(self) -> dict[str, Any]:
        if self._as is None:
            return {}
        return {"user": self._as, "group": pwd.getpwnam(self._as).pw_gid, "cwd": "/"}

    def guarded(self) -> AbstractContextManager[None]:
        """Stops it at the end."""
        control = str(self._programs / "pg_ctl")
        return survived_by('"$1" -D "$2" -w -m immediate stop', control, str(self._data), **self._user())

    def log(self) -> str:
        return (self._folder / "log").read_text()

    def _call(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), *arguments]
        with (self._folder / "setup.log").open("a") as log:
            streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
            subprocess.run(command, check=True, timeout=60, **streams, **self._user())


@contextmanager
def running_server() -> Iterator[Server]:
    """A server in a temporary folder, which is not pytest's, as these are closed to other users."""
    with TemporaryDirectory(prefix="slimnet-postgres-", ignore_cleanup_errors=True) as folder:
        server = Server(Path(folder))
        with server.guarded():
            yield server


def _programs() -> Path | None:
    """The newest folder with the server's programs."""
    folders = [Path(found).parent] if (found := shutil.which("pg_ctl")) else []
    versions = Path("/usr/lib/postgresql").glob("*/bin/pg_ctl")
    folders += [path.parent for path in sorted(versions, key=lambda path: int(path.parts[-3]), reverse=True)]
    return next((folder for folder in folders if (folder / "initdb").exists()), None)


def _user() -> str | None:
    """The user that runs the server; None if it is this one."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(user for user in USERS if user in known)
