"""What the tests of the sweeps share."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from optuna.storages._rdb.storage import _VersionManager

sys.path.insert(0, str(Path(__file__).parent))  # test folders are no packages

from object_store import S3, serve_s3
from postgres_server import Server, running_server
from running import Command, Sweep, stop_all

from sweeps import cli


@pytest.fixture(scope="session", autouse=True)
def _migrations_are_read_once() -> Iterator[None]:
    """Optuna runs the files of all its migrations whenever it opens a database, to know the last of them."""
    read, found = _VersionManager.get_head_version, list[str]()

    def head(manager: _VersionManager) -> str:
        if not found:
            found.append(read(manager))
        return found[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_VersionManager, "get_head_version", head)
        yield


@pytest.fixture(autouse=True)
def _no_process_outlives_its_test() -> Iterator[None]:
    yield
    stop_all()


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """A command given in this process: its exit status, output and errors."""

    def give(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["sweeps", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return give


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    """A sweep in an empty runs folder."""
    return Sweep(tmp_path / "runs")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """The smoke sweep, run to its end, for all processes of the tests. Its folder is for reading."""
    ours = tmp_path_factory.getbasetemp()
    shared = ours.parent if "PYTEST_XDIST_WORKER" in os.environ else ours
    sweep = Sweep(shared / "finished" / "runs")
    with FileLock(shared / "finished.lock"):
        if not (sweep.runs / "output.txt").exists():
            result = sweep.run()
            assert result.returncode == 0, result.stderr
            (sweep.runs / "output.txt").write_text(result.stdout)
    return sweep


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server."""
    with running_server() as server:
        yield server


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    """An S3 server, in whose environment this process is."""
    with serve_s3() as server:
        yield server
