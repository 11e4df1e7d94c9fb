"""The study in SQLite: files that are damaged, locked, or of an earlier version."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest
from entries import ENTRIES, FACTS, STRENGTHS, config, entry
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from slimnet.errors import SlimnetError
from sweeps.study import database
from sweeps.study.database import Database, read_database
from sweeps.study.storage import LockedError, sqlite
from sweeps.study.storage.sqlite import SQLite


def optuna_study(path: Path, name: str = "one") -> optuna.Study:
    """What any other tool finds in the file."""
    return optuna.load_study(study_name=name, storage=f"sqlite:///{path}")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the study is to be."""
    return tmp_path / "study.db"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "study.db"
    Database.open(SQLite(path), config(), FACTS, ENTRIES).close()
    return path


@pytest.fixture
def begun(path: Path, made: Path) -> Path:
    """A study that has all entries."""
    shutil.copyfile(made, path)
    return path


def corrupt(path: Path) -> None:
    """Overwrite what lies behind the first pages, as a failing disk does."""
    content = bytearray(path.read_bytes())
    content[8192:] = b"\x99" * len(content[8192:])
    path.write_bytes(content)


def drop_a_table(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE trial_params")


def age(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v1.3.0.a'")


def belong_to_another_program(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE songs (title TEXT)")


@pytest.mark.parametrize(
    "damage",
    [
        corrupt,
        drop_a_table,
        age,
        belong_to_another_program,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"not a database, but long enough to be looked at" * 100),
        lambda path: os.truncate(path, path.stat().st_size // 2),
    ],
    ids=["corrupt", "a table lost", "another schema", "another program's", "empty", "garbage", "cut off"],
)
def test_a_damaged_file_is_set_aside_and_made_anew(begun: Path, damage: Any) -> None:
    begun.with_name("study.db.old").write_text("kept")
    damage(begun)
    content = begun.read_bytes()

    study = Database.open(SQLite(begun), config(), FACTS, ENTRIES)

    assert study.replaced is not None
    assert study.replaced.endswith("set aside as study.db.old-2 and made anew")
    assert read_database(SQLite(begun), config()) == (FACTS, ENTRIES)
    assert begun.with_name("study.db.old").read_text() == "kept"
    assert begun.with_name("study.db.old-2").read_bytes() == content
    assert names(begun.parent) == ["study.db", "study.db.old", "study.db.old-2"]


def kill_in_a_transaction(path: Path) -> None:
    """Leave the file and its journal as a process leaves them that is killed while it writes."""
    image = path.parent / "image"
    image.mkdir()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA cache_size=1")  # changed pages are written at once
        connection.execute("UPDATE trial_params SET distribution_json = 'x'")
        connection.execute("UPDATE trials SET number = 9")
        for file in (path, path.with_name("study.db-journal")):
            shutil.copyfile(file, image / file.name)
    for file in list(image.iterdir()):
        file.replace(path.parent / file.name)
    image.rmdir()


def test_what_a_killed_process_was_writing_is_taken_back(begun: Path) -> None:
    kill_in_a_transaction(begun)
    assert read_database(SQLite(begun), config()) == (FACTS, ENTRIES)
    assert names(begun.parent) == ["study.db", "study.db-journal"]
    assert Database.open(SQLite(begun), config(), FACTS, ENTRIES).replaced is None
    assert names(begun.parent) == ["study.db"]


def test_a_journal_without_its_file_does_not_spoil_the_next(begun: Path) -> None:
    kill_in_a_transaction(begun)
    begun.unlink()
    Database.open(SQLite(begun), config(), FACTS, ENTRIES[:1])
    assert read_database(SQLite(begun), config()) == (FACTS, ENTRIES[:1])


@pytest.mark.parametrize("place", [(SQLite, "set_aside"), (database, "create_trial")])
def test_a_process_killed_while_it_makes_the_study_anew(
    path: Path, monkeypatch: pytest.MonkeyPatch, place: tuple[Any, str]
) -> None:
    path.write_bytes(b"garbage" * 1000)

    def die(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(*place, die)
        with pytest.raises(KeyboardInterrupt):
            Database.open(SQLite(path), config(), FACTS, ENTRIES)
    assert names(path.parent) == ["study.db", "study.db.new"]
    path.with_name("study.db.new-journal").write_bytes(b"left over")

    assert Database.open(SQLite(path), config(), FACTS, ENTRIES).replaced is not None
    assert names(path.parent) == ["study.db", "study.db.old"]
    assert read_database(SQLite(path), config()) == (FACTS, ENTRIES)


@contextmanager
def another_process(path: Path, statement: str) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the file until its input is closed."""
    script = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); c.execute('BEGIN'); "
        "c.execute(sys.argv[2]).fetchone(); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path), statement],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process


@pytest.mark.parametrize("statement", ["SELECT * FROM trials", "UPDATE trials SET number = 9"])
def test_a_file_that_stays_locked_is_named(
    begun: Path, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    study = Database.open(SQLite(begun), config(), FACTS, ENTRIES)
    monkeypatch.setattr(sqlite, "WAIT", 0.1)
    with another_process(begun, statement):
        for work in (
            lambda: study.put(entry(5, "running")),
            lambda: study.put(entry(3, "failed")),
            lambda: Database.open(SQLite(begun), config(), FACTS, ENTRIES),
        ):
            with pytest.raises(LockedError, match=r"study\.db is locked by another program"):
                work()
    study.put(entry(5, "running"))
    assert read_database(SQLite(begun), config()) == (FACTS, [*ENTRIES, entry(5, "running")])
    assert names(begun.parent) == ["study.db"]


def test_a_file_that_cannot_be_opened_is_named_and_left_alone(path: Path) -> None:
    path.mkdir()
    with pytest.raises(SlimnetError, match=r"study\.db cannot be used \(unable to open"):
        Database.open(SQLite(path), config(), FACTS, ENTRIES)
    assert names(path.parent) == ["study.db"]


def test_a_path_may_hold_any_characters(tmp_path: Path) -> None:
    path = tmp_path / "50% of #1? {größer} & so" / "study.db"
    path.parent.mkdir()
    Database.open(SQLite(path), config(), FACTS, ENTRIES[:3]).close()
    study = Database.open(SQLite(path), config(), FACTS, ENTRIES)
    study.put(entry(3, "failed"))
    assert [entry.state for entry in read_database(SQLite(path), config())[1]][3] == "failed"
    assert names(tmp_path) == [path.parent.name]
    assert names(path.parent) == ["study.db"]


def earlier_study(path: Path) -> None:
    """A study as an earlier version left it: steps of a log entry are categories, the last has no point."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name="one", storage=f"sqlite:///{path}", directions=["maximize", "minimize"]
    )
    for key, value in FACTS.items():
        study.set_user_attr(key, value)
    distributions = {
        "sparse.lambda": CategoricalDistribution(STRENGTHS),
        "prune.ratio": FloatDistribution(0.1, 0.7, step=0.2),
        "model.blocks": CategoricalDistribution(["[1]", "[1, 1]"]),
    }
    for known in ENTRIES:
        states = {"complete": TrialState.COMPLETE, "failed": TrialState.FAIL, "running": TrialState.RUNNING}
        params = {**known.point.params, "model.blocks": str(known.point.params["model.blocks"])}
        if params["prune.ratio"] == 0.3:
            params["prune.ratio"] = 0.1 + 0.2  # as a sampler rounds it
        study.add_trial(
            create_trial(
                state=states[known.state],
                values=known.values,
                params=params,
                distributions=distributions,
                system_attrs=known.point.attributes,
            )
        )
    study.ask()


def test_a_study_of_an_earlier_version_is_read_and_taken_over(path: Path) -> None:
    earlier_study(path)
    content = path.read_bytes()

    facts, entries = read_database(SQLite(path), config())

    assert (facts, entries) == (FACTS, ENTRIES)
    assert path.read_bytes() == content
    assert names(path.parent) == ["study.db"]
    assert Database.open(SQLite(path), config(), facts, entries).replaced is not None
    assert read_database(SQLite(path), config()) == (FACTS, ENTRIES)


def rename_the_study(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE studies SET study_name = 'two'")


@pytest.mark.parametrize("damage", [Path.unlink, corrupt, rename_the_study])
def test_a_study_that_cannot_be_read_is_named(path: Path, damage: Any) -> None:
    earlier_study(path)
    damage(path)
    before = names(path.parent)
    with pytest.raises(SlimnetError, match=r"study\.db cannot be used .* move it away"):
        read_database(SQLite(path), config())
    assert names(path.parent) == before
