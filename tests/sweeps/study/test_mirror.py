"""study.db as a mirror of the record: written when it can be, and never waited for."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweeps.config import load_config
from sweeps.study import Point, mirror
from sweeps.study.database import Entry, read_database
from sweeps.study.mirror import Mirror
from sweeps.study.storage.sqlite import SQLite

FACTS: dict[str, Any] = {"uid": "abc", "precision": "float32", "data": "1", "networks": {}, "machine": "cpu"}
CONFIG = load_config(
    "smoke", ["study=one", "search.space={prune.ratio: {range: [0.1, 0.9], step: 0.1}}", "search.trials=5"]
)


def entry(number: int) -> Entry:
    return Entry(number, Point({"prune.ratio": round(0.1 + number / 10, 1)}), None, "running")


def complete(number: int) -> Entry:
    return replace(entry(number), state="complete", values=(0.5, 100.0))


def opened(path: Path, entries: Sequence[Entry] = ()) -> Mirror:
    return Mirror(SQLite(path), CONFIG, FACTS, entries)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("PAUSE", "TOLD_AFTER", "AT_THE_END"):
        monkeypatch.setattr(mirror, name, 0.0)
    return tmp_path / "study.db"


def test_what_is_noted_is_written_at_the_next_update(path: Path) -> None:
    study = opened(path, [complete(0), entry(1)])
    assert not path.exists()
    assert study.update() == []
    study.tell(complete(1))
    study.add(entry(2))
    study.add(entry(3))
    study.tell(replace(entry(3), state="failed"))
    assert read_database(SQLite(path), CONFIG) == (FACTS, [complete(0), entry(1)])
    assert study.close() == []
    now = [complete(0), complete(1), entry(2), replace(entry(3), state="failed")]
    assert read_database(SQLite(path), CONFIG) == (FACTS, now)


def test_a_lock_is_told_once_and_what_is_noted_meanwhile_is_written_after_it(path: Path) -> None:
    study = opened(path, [entry(0)])
    study.update()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    study.tell(complete(0))
    study.add(entry(1))
    (said,) = study.update()
    assert "study.db is locked by another program" in said
    assert "the sweep goes on" in said
    assert study.update() == []
    other.execute("ROLLBACK")
    (said,) = study.update()
    assert said == f"{path} can be written again, and has every trial"
    assert read_database(SQLite(path), CONFIG)[1] == [complete(0), entry(1)]


def test_a_file_that_is_locked_from_the_first_to_the_last_moment_is_left_to_the_next_run(path: Path) -> None:
    opened(path, [entry(0)]).close()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    said = opened(path, [complete(0)]).close()
    assert said[-1].startswith(f"{path} is locked by another program")
    assert said[-1].endswith(", also at the end; the next run brings it up to date")
    other.execute("ROLLBACK")
    assert opened(path, [complete(0)]).close() == []
    assert read_database(SQLite(path), CONFIG)[1] == [complete(0)]


def end_a_trial(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE trials SET state = 'FAIL'")


@pytest.mark.parametrize(
    ("damage", "kept"),
    [(Path.unlink, False), (lambda path: path.write_bytes(b"garbage" * 1000), True), (end_a_trial, True)],
    ids=["deleted", "garbage", "a trial ended by someone else"],
)
def test_a_file_that_is_damaged_while_the_sweep_runs_is_made_anew(
    path: Path, damage: Any, kept: bool
) -> None:
    study = opened(path, [entry(0)])
    study.update()
    damage(path)
    study.tell(complete(0))
    said = study.update()
    assert [" set aside as study.db.old and made anew" in text for text in said] == [True] * kept
    assert read_database(SQLite(path), CONFIG)[1] == [complete(0)]


def test_a_file_that_cannot_be_used_is_told_and_the_sweep_goes_on(path: Path) -> None:
    path.mkdir()
    study = opened(path)
    (said,) = study.update()
    assert f"{path} cannot be used" in said
    assert "The sweep goes on without it" in said
    study.add(entry(0))
    assert study.update() == study.close() == []
