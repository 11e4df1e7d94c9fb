"""What every storage of a study does: it is brought up to the record, or set aside and made anew."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import optuna
import pytest
from entries import ENTRIES, FACTS, config, entry
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from postgres_server import PASSWORD, Server

from slimnet.errors import SlimnetError
from sweeps.config import Config
from sweeps.study import DATABASE, JOURNAL, Point, database
from sweeps.study.database import FORMAT, Database, Entry, read_database
from sweeps.study.storage import Storage, chosen_storage
from sweeps.study.storage.files import File
from sweeps.study.storage.postgres import PostgreSQL


@dataclass
class Kept:
    """A storage, and how others see it.

    Attributes:
        study: the study of a name, as any other tool finds it.
        old: where a study is kept, and its config, that was set aside.
        barred: another program holds it meanwhile.
    """

    storage: Storage
    study: Callable[[str], optuna.Study]
    old: tuple[Storage, Config]
    barred: Callable[[], AbstractContextManager[None]]
    is_shared: bool = False


def in_a_file(kind: str, folder: Path) -> Kept:
    storage = chosen_storage(config(storage=kind), folder)
    path = Path(storage.name)

    def study(name: str) -> optuna.Study:
        journal = JournalStorage(JournalFileBackend(str(path))) if kind == "journal" else None
        return optuna.load_study(study_name=name, storage=journal or f"sqlite:///{path}")

    @contextmanager
    def barred() -> Iterator[None]:
        if kind == "journal":
            (lock := path.with_name(f"{path.name}.lock")).touch()
            yield
            lock.unlink()
            return
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            yield

    assert isinstance(storage, File)
    return Kept(storage, study, (type(storage)(path.with_name(f"{path.name}.old")), config()), barred)


def in_postgres(server: Server) -> Kept:
    address = server.database("contract")
    if server.execute("contract", "SELECT 1 FROM pg_tables WHERE tablename = 'studies'"):
        server.execute("contract", "TRUNCATE studies CASCADE")  # quicker than other tables
    login = f"{quote(PASSWORD, safe='')}@"
    storage = PostgreSQL(address, "one")

    def study(name: str) -> optuna.Study:
        url = address.replace("postgresql", "postgresql+psycopg").replace("@", f":{login}")
        return optuna.load_study(study_name=name, storage=url)

    @contextmanager
    def barred() -> Iterator[None]:
        storage.release()
        other = PostgreSQL(address, "one")
        other.hold(FACTS["uid"])
        yield
        other.release()

    old = config().model_copy(update={"study": "one (old)"})  # which no config may be called
    return Kept(storage, study, (storage, old), barred, is_shared=True)


@pytest.fixture(params=["sqlite", "journal", "postgresql"])
def kept(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    """Each storage, empty."""
    if request.param != "postgresql":
        yield in_a_file(request.param, tmp_path)
        assert {path.name.partition(".old")[0] for path in tmp_path.iterdir()} <= {DATABASE, JOURNAL}
        return
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    kept = in_postgres(request.getfixturevalue("postgres"))
    yield kept
    assert isinstance(kept.storage, PostgreSQL)
    kept.storage.release()


@pytest.fixture
def begun(kept: Kept) -> Kept:
    """Each storage, with a study that has all entries."""
    Database.open(kept.storage, config(), FACTS, ENTRIES).close()
    return kept


def test_a_study_is_made_that_other_tools_can_read(kept: Kept) -> None:
    assert Database.open(kept.storage, config(), FACTS, ENTRIES).replaced is None

    study = kept.study("one")
    assert study.user_attrs == {**FACTS, "format": FORMAT}
    assert study.metric_names == ["val_accuracy", "params"]
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert [trial.state.name for trial in study.trials] == [
        "COMPLETE",
        "FAIL",
        "COMPLETE",
        "RUNNING",
        "RUNNING",
    ]
    assert study.trials[2].values == [0.52, 998.0]
    assert study.trials[3].params == {"sparse.lambda": 3, "prune.ratio": 0.7, "model.blocks": "[1, 1]"}
    assert study.trials[3].user_attrs == {"sparse.lambda": 0.0316228, "model.blocks": [1, 1]}


def test_trials_are_added_and_told(kept: Kept) -> None:
    study = Database.open(kept.storage, config(), FACTS, [])
    for number in range(3):
        study.put(entry(number, "running"))
    study.put(entry(2, "failed"))
    study.put(entry(0))

    assert read_database(kept.storage, config()) == (
        FACTS,
        [entry(0), entry(1, "running"), entry(2, "failed")],
    )

    again = Database.open(kept.storage, config(), FACTS, [entry(0), entry(1, "running"), entry(2, "failed")])
    again.put(entry(1))
    again.put(entry(3, "running"))
    assert again.replaced is None
    assert read_database(kept.storage, config())[1] == [
        entry(0),
        entry(1),
        entry(2, "failed"),
        entry(3, "running"),
    ]


@pytest.mark.parametrize("had", [ENTRIES[:2], [replace(e, state="running", values=None) for e in ENTRIES]])
def test_a_study_that_lags_behind_is_brought_up(kept: Kept, had: Sequence[Entry]) -> None:
    Database.open(kept.storage, config(), FACTS, had).close()
    assert Database.open(kept.storage, config(), FACTS, ENTRIES).replaced is None
    assert read_database(kept.storage, config()) == (FACTS, ENTRIES)


def test_what_others_note_on_a_study_stays(begun: Kept) -> None:
    begun.study("one").set_user_attr("remark", "good")
    Database.open(begun.storage, config(), FACTS, [*ENTRIES, entry(5)])
    assert begun.study("one").user_attrs == {**FACTS, "format": FORMAT, "remark": "good"}


def test_what_people_look_for_is_shown_with_each_trial(kept: Kept) -> None:
    keys = {"stage.sparse": "abc", "stage.prune": "def"}
    entries = [
        entry(0, notes={**keys, "test_accuracy": 0.9}, violations={"params": 0.25, "val_accuracy": -0.5}),
        entry(1, notes={**keys, "test_accuracy": 0.8}, violations={"params": -0.25, "val_accuracy": 0}),
        entry(2, "running", notes=keys),
    ]
    study = Database.open(kept.storage, config(), FACTS, [entries[0]])
    for number, now in enumerate(entries[1:], 1):
        study.put(replace(entry(number, "running"), notes=keys))
        study.put(now)
    found = kept.study("one")
    shown = [
        {name: trial.user_attrs.get(name) for name in (*keys, "test_accuracy")} for trial in found.trials
    ]
    assert shown == [{**keys, "test_accuracy": accuracy} for accuracy in (0.9, 0.8, None)]
    assert [trial.constraints for trial in found.trials] == [one.violations for one in entries]
    assert [trial.number for trial in found.best_trials] == [1]  # the other one violates a constraint
    assert Database.open(kept.storage, config(), FACTS, entries).replaced is None
    assert [known.point for known in read_database(kept.storage, config())[1]] == [
        one.point for one in entries
    ]

    other = [entries[0], replace(entries[1], notes={**keys, "test_accuracy": 0.7}), entries[2]]
    assert "another trial 1" in str(Database.open(kept.storage, config(), FACTS, other).replaced)


def test_a_study_that_another_program_holds_at_the_beginning_is_left_as_it_is(begun: Kept) -> None:
    with begun.barred(), pytest.raises(SlimnetError):
        Database.open(begun.storage, config(), FACTS, ENTRIES)
    assert Database.open(begun.storage, config(), FACTS, ENTRIES).replaced is None


def test_a_study_of_another_version_is_made_anew(begun: Kept) -> None:
    begun.study("one").set_user_attr("format", 1)
    replaced = Database.open(begun.storage, config(), FACTS, ENTRIES).replaced
    assert "was written by another version of slimnet; it was set aside as" in str(replaced)


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        ([*ENTRIES[:2], entry(2, "running")], "had 5 trials, and the record of the study has 3"),
        ([*ENTRIES[:2], entry(2, "failed"), *ENTRIES[3:]], "had another trial 2"),
        ([entry(0, values=(0.5, 999.0)), *ENTRIES[1:]], "had another trial 0"),
        ([*ENTRIES[:4], replace(ENTRIES[4], point=entry(5).point)], "had another trial 4"),
        (
            [*ENTRIES[:4], replace(ENTRIES[4], point=Point(ENTRIES[4].point.params, {"a": 1}))],
            "another trial 4",
        ),
    ],
)
def test_a_study_with_other_trials_is_made_anew(tmp_path: Path, now: list[Entry], reason: str) -> None:
    begun = in_a_file("journal", tmp_path)  # the quickest: it is the same in all
    Database.open(begun.storage, config(), FACTS, ENTRIES).close()
    study = Database.open(begun.storage, config(), FACTS, now)
    assert study.replaced is not None
    assert reason in study.replaced
    assert ".old and made anew" in study.replaced
    assert read_database(begun.storage, config()) == (FACTS, now)
    assert read_database(*begun.old) == (FACTS, ENTRIES)
    study.put(entry(len(now), "running"))


@pytest.mark.parametrize(
    ("settings", "facts", "reason"),
    [
        (config(), {**FACTS, "uid": "other"}, "was of another study"),
        (config(study="two"), FACTS, "had no study two"),
        (
            config(**{"search.objectives": "{val_accuracy: maximize, params: maximize}"}),
            FACTS,
            "another study",
        ),
    ],
)
def test_another_study_is_set_aside(
    begun: Kept, settings: Config, facts: dict[str, str], reason: str
) -> None:
    replaced = Database.open(begun.storage, settings, facts, ENTRIES).replaced
    if begun.is_shared and settings.study == "two":
        assert replaced is None
        assert read_database(begun.storage, config()) == (FACTS, ENTRIES)
    else:
        assert reason in str(replaced)
    assert read_database(begun.storage, settings) == (facts, ENTRIES)


@pytest.mark.parametrize("now", ["running", "complete"])
def test_a_retry_leaves_nothing_beside_the_study(kept: Kept, now: str) -> None:
    failed = entry(1, "failed", notes={"reason": "the loss became nan"})
    Database.open(kept.storage, config(), FACTS, [ENTRIES[0], failed, *ENTRIES[2:]]).close()
    again = entry(1, now, notes={"test_accuracy": 0.9} if now == "complete" else {})
    entries = [ENTRIES[0], again, *ENTRIES[2:]]
    assert Database.open(kept.storage, config(), FACTS, entries).replaced is None
    assert [trial.state.name for trial in kept.study("one").trials][1] == now.upper()
    assert Database.open(kept.storage, config(), FACTS, entries).replaced is None
    with pytest.raises(SlimnetError):
        read_database(*kept.old)


def test_a_study_that_is_made_anew_is_seen_whole_or_not_at_all(
    begun: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    changed = [entry(0, values=(0.5, 999.0)), *ENTRIES[1:]]
    with monkeypatch.context() as patch:
        patch.setattr(database, "create_trial", die)
        with pytest.raises(KeyboardInterrupt):
            Database.open(begun.storage, config(), FACTS, changed)
    assert read_database(begun.storage, config()) == (FACTS, ENTRIES)
    assert "and made anew" in str(Database.open(begun.storage, config(), FACTS, changed).replaced)
    assert read_database(begun.storage, config()) == (FACTS, changed)
    assert read_database(*begun.old) == (FACTS, ENTRIES)


def test_a_trial_that_someone_else_has_ended_is_an_error_that_names_the_storage(begun: Kept) -> None:
    study = Database.open(begun.storage, config(), FACTS, ENTRIES)
    begun.study("one").tell(3, [0.5, 1.0])
    with pytest.raises(SlimnetError, match=f"{re.escape(begun.storage.name)} cannot be used"):
        study.put(entry(3, "failed"))
    again = Database.open(begun.storage, config(), FACTS, ENTRIES)
    assert "another trial 3" in str(again.replaced)
