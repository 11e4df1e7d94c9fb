"""The study in a journal: locks that were left, and files that are damaged."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from entries import ENTRIES, FACTS, config, entry

from sweeps.study.database import Database, read_database
from sweeps.study.storage import LockedError
from sweeps.study.storage.journal import GRACE, Journal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Of a journal that has all entries."""
    path = tmp_path / "study.journal"
    Database.open(Journal(path), config(), FACTS, ENTRIES).close()
    return path


def test_a_lock_is_respected_until_its_holder_counts_as_dead(path: Path) -> None:
    study, lock = Database.open(Journal(path), config(), FACTS, ENTRIES), path.with_name("study.journal.lock")
    lock.touch()
    with pytest.raises(LockedError, match=r"study\.journal is locked by another program"):
        study.put(entry(5, "running"))
    assert read_database(Journal(path), config()) == (FACTS, ENTRIES)
    long_ago = time.time() - GRACE - 1
    os.utime(lock, (long_ago, long_ago))
    study.put(entry(5, "running"))
    assert read_database(Journal(path), config())[1] == [*ENTRIES, entry(5, "running")]
    assert not lock.exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: os.truncate(path, path.stat().st_size - 5),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\x00garbage\n" * 100),
        lambda path: path.write_text("[5]\n" * 100),
        lambda path: path.write_text('{"op_code": 4, "worker_id": "x", "study_id": 7}\n'),
    ],
    ids=["cut off", "empty", "garbage", "another program's", "without a beginning"],
)
def test_a_damaged_journal_is_set_aside_and_made_anew(path: Path, damage: Any) -> None:
    damage(path)
    content = path.read_bytes()
    study = Database.open(Journal(path), config(), FACTS, ENTRIES)
    assert str(study.replaced).endswith("set aside as study.journal.old and made anew")
    assert read_database(Journal(path), config()) == (FACTS, ENTRIES)
    assert path.with_name("study.journal.old").read_bytes() == content
