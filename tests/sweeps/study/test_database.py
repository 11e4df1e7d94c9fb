"""The Optuna study as a projection: brought up to the record, or set aside and made anew."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from slimnet.errors import SlimnetError
from sweeps.config import Config, load_config
from sweeps.study import Point, database
from sweeps.study.database import FORMAT, Database, Entry, LockedError, read_database

FACTS = {"uid": "abc", "precision": "float32", "data": "123"}
SPACE = (
    "{sparse.lambda: {log: [0.001, 0.1], steps: 5}, prune.ratio: {range: [0.1, 0.7], step: 0.2}, "
    "model.blocks: [[1], [1, 1]]}"
)
STRENGTHS = [0.001, 0.00316228, 0.01, 0.0316228, 0.1]


def config(**overrides: Any) -> Config:
    given = {"study": "one", "search.space": SPACE, "search.trials": 20, **overrides}
    return load_config("smoke", [f"{key}={value}" for key, value in given.items()])


def entry(number: int, state: str = "complete", **changes: Any) -> Entry:
    params = {
        "sparse.lambda": STRENGTHS[number % 5],
        "prune.ratio": [0.1, 0.3, 0.5, 0.7][number % 4],
        "model.blocks": [[1], [1, 1]][number % 2],
    }
    values = (0.5 + number / 100, 1000.0 - number) if state == "complete" else None
    attributes = {"NSGAIISampler:generation": number // 3, "study": {"NSGAIISampler:parent:1": [0, 2]}}
    return replace(Entry(number, Point(params, attributes), values, state), **changes)  # type: ignore[arg-type]


ENTRIES = [entry(0), entry(1, "failed"), entry(2), entry(3, "running"), entry(4, "running")]


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
    Database.open(path, config(), FACTS, ENTRIES).close()
    return path


@pytest.fixture
def begun(path: Path, made: Path) -> Path:
    """A study that has all entries."""
    shutil.copyfile(made, path)
    return path


def test_a_study_is_made_that_other_tools_can_read(path: Path) -> None:
    assert Database.open(path, config(), FACTS, ENTRIES).replaced is None

    study = optuna_study(path)
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
    assert names(path.parent) == ["study.db"]


def test_trials_are_added_and_told(path: Path) -> None:
    study = Database.open(path, config(), FACTS, [])
    for number in range(3):
        study.put(entry(number, "running"))
    study.put(entry(2, "failed"))
    study.put(entry(0))

    assert read_database(path, config()) == (FACTS, [entry(0), entry(1, "running"), entry(2, "failed")])

    again = Database.open(path, config(), FACTS, [entry(0), entry(1, "running"), entry(2, "failed")])
    again.put(entry(1))
    again.put(entry(3, "running"))
    assert again.replaced is None
    assert read_database(path, config())[1] == [entry(0), entry(1), entry(2, "failed"), entry(3, "running")]


@pytest.mark.parametrize(
    "had", [[], ENTRIES[:2], [replace(e, state="running", values=None) for e in ENTRIES]]
)
def test_a_study_that_lags_behind_is_brought_up(path: Path, had: Sequence[Entry]) -> None:
    Database.open(path, config(), FACTS, had).close()
    inode = path.stat().st_ino
    assert Database.open(path, config(), FACTS, ENTRIES).replaced is None
    assert read_database(path, config()) == (FACTS, ENTRIES)
    assert path.stat().st_ino == inode
    assert names(path.parent) == ["study.db"]


def test_what_others_note_on_a_study_stays(begun: Path) -> None:
    optuna_study(begun).set_user_attr("remark", "good")
    Database.open(begun, config(), FACTS, [*ENTRIES, entry(5)])
    assert optuna_study(begun).user_attrs == {**FACTS, "format": FORMAT, "remark": "good"}


def test_what_people_look_for_is_shown_with_each_trial(path: Path) -> None:
    keys = {"stage.sparse": "abc", "stage.prune": "def"}
    entries = [
        entry(0, notes={**keys, "test_accuracy": 0.9}, violations={"params": 0.25, "val_accuracy": -0.5}),
        entry(1, notes={**keys, "test_accuracy": 0.8}, violations={"params": -0.25, "val_accuracy": 0}),
        entry(2, "running", notes=keys),
    ]
    study = Database.open(path, config(), FACTS, [entries[0]])
    for number, now in enumerate(entries[1:], 1):
        study.put(replace(entry(number, "running"), notes=keys))
        study.put(now)
    found = optuna_study(path)
    shown = [
        {name: trial.user_attrs.get(name) for name in (*keys, "test_accuracy")} for trial in found.trials
    ]
    assert shown == [{**keys, "test_accuracy": accuracy} for accuracy in (0.9, 0.8, None)]
    assert [trial.constraints for trial in found.trials] == [one.violations for one in entries]
    assert [trial.number for trial in found.best_trials] == [1]  # the other one violates a constraint
    assert Database.open(path, config(), FACTS, entries).replaced is None
    assert [known.point for known in read_database(path, config())[1]] == [one.point for one in entries]

    other = [entries[0], replace(entries[1], notes={**keys, "test_accuracy": 0.7}), entries[2]]
    assert "another trial 1" in str(Database.open(path, config(), FACTS, other).replaced)


def test_a_study_of_another_version_is_made_anew(begun: Path) -> None:
    optuna_study(begun).set_user_attr("format", 1)
    replaced = Database.open(begun, config(), FACTS, ENTRIES).replaced
    assert "was written by another version of slimnet; it was set aside as study.db.old" in str(replaced)


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
def test_a_study_with_other_trials_is_made_anew(begun: Path, now: list[Entry], reason: str) -> None:
    study = Database.open(begun, config(), FACTS, now)
    assert study.replaced is not None
    assert reason in study.replaced
    assert "study.db.old" in study.replaced
    assert read_database(begun, config()) == (FACTS, now)
    assert read_database(begun.with_name("study.db.old"), config()) == (FACTS, ENTRIES)
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
    begun: Path, settings: Config, facts: dict[str, str], reason: str
) -> None:
    replaced = Database.open(begun, settings, facts, ENTRIES).replaced
    assert replaced is not None
    assert reason in replaced
    assert read_database(begun, settings) == (facts, ENTRIES)


@pytest.mark.parametrize("now", ["running", "complete"])
def test_a_retry_leaves_nothing_beside_the_study(path: Path, now: str) -> None:
    failed = entry(1, "failed", notes={"reason": "the loss became nan"})
    Database.open(path, config(), FACTS, [ENTRIES[0], failed, *ENTRIES[2:]]).close()
    again = entry(1, now, notes={"test_accuracy": 0.9} if now == "complete" else {})
    entries = [ENTRIES[0], again, *ENTRIES[2:]]
    assert Database.open(path, config(), FACTS, entries).replaced is None
    assert [trial.state.name for trial in optuna_study(path).trials][1] == now.upper()
    assert Database.open(path, config(), FACTS, entries).replaced is None
    assert names(path.parent) == ["study.db"]


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

    study = Database.open(begun, config(), FACTS, ENTRIES)

    assert study.replaced is not None
    assert study.replaced.endswith("set aside as study.db.old-2 and made anew")
    assert read_database(begun, config()) == (FACTS, ENTRIES)
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
    assert read_database(begun, config()) == (FACTS, ENTRIES)
    assert names(begun.parent) == ["study.db", "study.db-journal"]
    assert Database.open(begun, config(), FACTS, ENTRIES).replaced is None
    assert names(begun.parent) == ["study.db"]


def test_a_journal_without_its_file_does_not_spoil_the_next(begun: Path) -> None:
    kill_in_a_transaction(begun)
    begun.unlink()
    Database.open(begun, config(), FACTS, ENTRIES[:1])
    assert read_database(begun, config()) == (FACTS, ENTRIES[:1])


@pytest.mark.parametrize("place", ["_set_aside", "create_trial"])
def test_a_process_killed_while_it_makes_the_study_anew(
    path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    path.write_bytes(b"garbage" * 1000)

    def die(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(database, place, die)
        with pytest.raises(KeyboardInterrupt):
            Database.open(path, config(), FACTS, ENTRIES)
    assert names(path.parent) == ["study.db", "study.db.new"]
    path.with_name("study.db.new-journal").write_bytes(b"left over")

    assert Database.open(path, config(), FACTS, ENTRIES).replaced is not None
    assert names(path.parent) == ["study.db", "study.db.old"]
    assert read_database(path, config()) == (FACTS, ENTRIES)


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
    study = Database.open(begun, config(), FACTS, ENTRIES)
    monkeypatch.setattr(database, "WAIT", 0.1)
    with another_process(begun, statement):
        for work in (
            lambda: study.put(entry(5, "running")),
            lambda: study.put(entry(3, "failed")),
            lambda: Database.open(begun, config(), FACTS, ENTRIES),
        ):
            with pytest.raises(LockedError, match=r"study\.db is locked by another program"):
                work()
    study.put(entry(5, "running"))
    assert read_database(begun, config()) == (FACTS, [*ENTRIES, entry(5, "running")])
    assert names(begun.parent) == ["study.db"]


def test_a_file_that_cannot_be_opened_is_named_and_left_alone(path: Path) -> None:
    path.mkdir()
    with pytest.raises(SlimnetError, match=r"study\.db cannot be used \(unable to open"):
        Database.open(path, config(), FACTS, ENTRIES)
    assert names(path.parent) == ["study.db"]


def test_a_trial_that_someone_else_has_ended_is_an_error_that_names_the_file(begun: Path) -> None:
    study = Database.open(begun, config(), FACTS, ENTRIES)
    optuna_study(begun).tell(3, [0.5, 1.0])
    with pytest.raises(SlimnetError, match=r"study\.db cannot be used .* move it away"):
        study.put(entry(3, "failed"))


def test_a_path_may_hold_any_characters(tmp_path: Path) -> None:
    path = tmp_path / "50% of #1? {größer} & so" / "study.db"
    path.parent.mkdir()
    Database.open(path, config(), FACTS, ENTRIES[:3]).close()
    study = Database.open(path, config(), FACTS, ENTRIES)
    study.put(entry(3, "failed"))
    assert [entry.state for entry in read_database(path, config())[1]][3] == "failed"
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

    facts, entries = read_database(path, config())

    assert (facts, entries) == (FACTS, ENTRIES)
    assert path.read_bytes() == content
    assert names(path.parent) == ["study.db"]
    assert Database.open(path, config(), facts, entries).replaced is not None
    assert read_database(path, config()) == (FACTS, ENTRIES)


def rename_the_study(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE studies SET study_name = 'two'")


@pytest.mark.parametrize("damage", [Path.unlink, corrupt, rename_the_study])
def test_a_study_that_cannot_be_read_is_named(path: Path, damage: Any) -> None:
    earlier_study(path)
    damage(path)
    before = names(path.parent)
    with pytest.raises(SlimnetError, match=r"study\.db cannot be used .* move it away"):
        read_database(path, config())
    assert names(path.parent) == before
