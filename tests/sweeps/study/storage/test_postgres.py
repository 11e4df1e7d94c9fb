"""The study in PostgreSQL: who holds it, a server that goes away, and a database that is not fit for it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from entries import ENTRIES, FACTS, config, entry
from postgres_server import PASSWORD, Server
from running import wait_until

from slimnet.errors import SlimnetError
from sweeps.study import StudyBusyError, mirror
from sweeps.study.database import Database, Entry, read_database
from sweeps.study.mirror import InBackground, Mirror, mirrored
from sweeps.study.storage import held_storage
from sweeps.study.storage.postgres import PostgreSQL

NUMBERS = count()
UID = FACTS["uid"]


@pytest.fixture
def address(postgres: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new database, whose password is in the environment."""
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    return postgres.database(f"d{next(NUMBERS)}")


@pytest.fixture
def storage(address: str) -> Iterator[PostgreSQL]:
    """A storage that holds the study in it."""
    storage = PostgreSQL(address, "one")
    storage.hold(UID)
    yield storage
    storage.release()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"PAUSE": 0.1, "LONGEST_PAUSE": 0.1, "TOLD_AFTER": 0.0, "AT_THE_END": 0.3}.items():
        monkeypatch.setattr(mirror, name, seconds)


def database_of(address: str) -> str:
    return address.rpartition("/")[2]


def test_one_process_holds_a_study_and_the_next_may_when_it_has_died(address: str, tmp_path: Path) -> None:
    script = (
        "import sys\nfrom sweeps.study.storage.postgres import PostgreSQL\n"
        "PostgreSQL(sys.argv[1], 'one').hold(None)\nprint('held', flush=True)\nsys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        settings = config(storage=address)
        with pytest.raises(StudyBusyError) as busy, held_storage(settings, tmp_path, UID):
            pass
        assert f"one is being run by process {other.pid} on {os.uname().nodename}, which holds it" in str(
            busy.value
        )
        with held_storage(config(storage=address, study="two"), tmp_path, None):
            pass  # another study in the same database
        other.kill()
    wait_until(lambda: is_free(address))
    with held_storage(settings, tmp_path, UID):
        assert not is_free(address)


def is_free(address: str) -> bool:
    storage = PostgreSQL(address, "one")
    try:
        storage.hold(UID)
    except StudyBusyError:
        return False
    storage.release()
    return True


def test_what_is_noted_while_the_server_is_away_is_written_when_it_is_back(
    postgres: Server, storage: PostgreSQL, at_once: None
) -> None:
    study = mirrored(storage, config(), FACTS, ENTRIES[:1])
    assert isinstance(study, InBackground)
    said: list[str] = []

    def is_told(words: str) -> bool:
        said.extend(study.update())
        return any(words in sentence for sentence in said)

    wait_until(lambda: study.update() == [] and has(storage, ENTRIES[:1]))
    postgres.stop()
    for one in ENTRIES[1:]:
        study.add(one)
    wait_until(lambda: is_told(f"{storage.name} cannot be reached ("))
    assert "; the sweep goes on, and writes to it when that is possible" in said[0]
    postgres.start()
    wait_until(lambda: is_told(f"{storage.name} can be written again, and has every trial"))
    assert len(said) == 2, "it is said once"
    assert has(storage, ENTRIES)
    assert is_free_for_others(storage) is False, "and the study is held again"
    study.add(entry(5, "running"))
    assert study.close() == []
    assert has(storage, [*ENTRIES, entry(5, "running")])


def has(storage: PostgreSQL, entries: list[Entry]) -> bool:
    try:
        return read_database(storage, config()) == (FACTS, entries)
    except SlimnetError:
        return False


def is_free_for_others(storage: PostgreSQL) -> bool:
    other = PostgreSQL(storage.name.replace("//", "//sweeper@"), "one")
    try:
        other.hold(UID)
    except StudyBusyError:
        return False
    return True


def test_a_server_that_does_not_come_back_is_left_to_the_next_run(
    postgres: Server, storage: PostgreSQL, at_once: None
) -> None:
    study = Mirror(storage, config(), FACTS, ENTRIES[:1])
    assert study.update() == []
    postgres.stop()
    try:
        study.add(ENTRIES[1])
        said = study.close()
    finally:
        postgres.start()
    assert said[-1].startswith(f"{storage.name} cannot be reached (")
    assert said[-1].endswith(", also at the end; the next run brings it up to date")
    again = Mirror(storage, config(), FACTS, ENTRIES)
    assert again.close() == []
    assert has(storage, ENTRIES)


def test_a_server_that_is_slow_to_answer_holds_nobody_up(
    postgres: Server, storage: PostgreSQL, address: str, at_once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = mirrored(storage, config(), FACTS, ENTRIES[:1])
    wait_until(lambda: study.update() == [] and has(storage, ENTRIES[:1]))
    with postgres.connection(database_of(address)) as other, other.transaction():
        other.execute("LOCK TABLE trials")
        study.add(ENTRIES[1])
        slow = [f"{storage.name} is slow to answer; the next run brings it up to date"]
        assert study.close(lambda name: name != storage.name) == slow, "as soon as nobody waits"
        monkeypatch.setattr(mirror, "SLOWEST_END", 0.5)
        assert study.close() == slow
    wait_until(lambda: has(storage, ENTRIES[:2]))


def test_a_driver_that_took_the_study_meanwhile_ends_this_one(
    postgres: Server, storage: PostgreSQL, address: str, at_once: None
) -> None:
    behind = Mirror(storage, config(), FACTS, ENTRIES[:1])
    assert behind.update() == []
    name, other = database_of(address), PostgreSQL(address, "one")
    postgres.stop()
    postgres.start()
    other.hold(UID)
    study = InBackground(behind)
    study.add(ENTRIES[1])
    with pytest.raises(StudyBusyError, match="one is being run by process"):
        wait_until(lambda: study.update() == ["never"])
    other.release()
    assert postgres.execute(name, "SELECT number FROM trials WHERE number = 1") == []


def test_a_study_is_held_again_after_a_restart_of_the_server_though_nothing_is_to_be_written(
    postgres: Server, storage: PostgreSQL, address: str, at_once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "LOOK", 0.0)
    study = Mirror(storage, config(), FACTS, ENTRIES)
    assert study.update() == []
    postgres.stop()
    postgres.start()
    assert study.update() == []
    assert not is_free(address)
    assert study.close() == []


def test_another_study_of_the_name_is_left_alone(storage: PostgreSQL, address: str) -> None:
    Database.open(storage, config(), FACTS, ENTRIES).close()
    for uid in ("another", None):
        with pytest.raises(StudyBusyError):
            PostgreSQL(address, "one").hold(uid)
    storage.release()
    for uid in ("another", None):
        with pytest.raises(SlimnetError, match="has another study called one; give this one another name"):
            PostgreSQL(address, "one").hold(uid)
    assert has(storage, ENTRIES)


def test_what_was_set_aside_goes_with_its_study(postgres: Server, storage: PostgreSQL, address: str) -> None:
    copied = PostgreSQL(address, "one.old")  # whose folder is a copy, with the uid
    Database.open(copied, config(study="one.old"), FACTS, []).close()
    for first in (entry(0), entry(0, values=(0.1, 1.0)), entry(0)):
        Database.open(storage, config(), FACTS, [first]).close()
    storage.release()
    found = "SELECT study_name FROM studies ORDER BY 1"
    assert len(postgres.execute(database_of(address), found)) == 4
    assert storage.delete(UID)
    assert postgres.execute(database_of(address), found) == [("one.old",)]
    assert not storage.delete(UID)


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        (
            "CREATE TABLE trials (song text)",
            "has tables that are not Optuna's (trials); use another database",
        ),
        (
            "CREATE TABLE alembic_version (version_num text)",
            "has tables that are not Optuna's (alembic_version); use another database",
        ),
        ("UPDATE alembic_version SET version_num = 'v1.3.0.a'", "cannot be used (The runtime optuna version"),
        ("ALTER TABLE studies RENAME study_name TO song", "tables that are not Optuna's (studies); use"),
        ("REVOKE CREATE ON SCHEMA public FROM PUBLIC", "cannot be used (permission denied for schema public"),
        (
            "REVOKE ALL ON studies FROM PUBLIC",
            "give who logs in the right to make tables, and to use those that are there",
        ),
    ],
    ids=[
        "another program's",
        "another program's versions",
        "another schema",
        "studies of songs",
        "no rights",
        "no rights to tables",
    ],
)
def test_a_database_that_is_not_fit_is_refused(
    postgres: Server, address: str, statement: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if any(words in statement for words in ("UPDATE", "ALTER", "studies")):
        storage = PostgreSQL(address, "one")
        Database.open(storage, config(), FACTS, ENTRIES).close()
        storage.release()
    postgres.execute(database_of(address), statement)
    before = postgres.execute(database_of(address), "SELECT tablename FROM pg_tables ORDER BY 1")
    if "REVOKE" in statement:
        if not postgres.execute("postgres", "SELECT 1 FROM pg_roles WHERE rolname = 'guest'"):
            postgres.execute("postgres", f"CREATE ROLE guest LOGIN PASSWORD '{PASSWORD}'")
        address = address.replace("sweeper", "guest")
    with pytest.raises(SlimnetError) as refused:
        PostgreSQL(address, "one").hold(UID)
    assert reason in str(refused.value)
    assert PASSWORD not in str(refused.value)
    assert postgres.execute(database_of(address), "SELECT tablename FROM pg_tables ORDER BY 1") == before


def test_a_database_that_is_spoilt_while_the_sweep_runs_is_told_and_the_sweep_goes_on(
    postgres: Server, storage: PostgreSQL, address: str
) -> None:
    study = Mirror(storage, config(), FACTS, ENTRIES[:1])
    assert study.update() == []
    postgres.execute(database_of(address), "ALTER TABLE trials RENAME state TO song")
    study.add(ENTRIES[1])
    (said,) = study.update()
    assert said.startswith(f"{storage.name} cannot be used (column trials.state does not exist)")
    assert said.endswith("The sweep goes on without it")
    assert study.update() == study.close() == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("sweeper", "nobody"), 'password authentication failed for user "nobody"'),
        (("sweeper@", "${LOGIN}@"), 'password authentication failed for user "${LOGIN}"'),
        (("/d", "/no-d"), 'database "no-d'),
        (("sweeper@", "sweeper:${NO_PASSWORD}@"), "storage names ${NO_PASSWORD}, which is not set"),
        (("@127.0.0.1:", "@127.0.0.1:1"), "cannot be reached ("),
    ],
    ids=["no user", "a password in a variable of the user", "no database", "no variable", "no server"],
)
def test_a_server_that_cannot_be_reached_is_an_error_before_the_sweep(
    address: str, change: tuple[str, str], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGIN", "sweeper:hunter2")
    address = address.replace(*change)
    if change[0].endswith(":"):
        address = f"{address.rpartition(':')[0]}:1/one"
    with pytest.raises(SlimnetError) as refused, held_storage(config(storage=address), tmp_path, None):
        pass
    assert reason in str(refused.value)
    assert not any(secret in str(refused.value) for secret in (PASSWORD, "hunter2"))


def test_the_password_may_be_in_a_variable(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGPASSWORD")
    monkeypatch.setenv("SECRET", PASSWORD)
    storage = PostgreSQL(address.replace("@", ":${SECRET}@"), "one")
    storage.hold(None)
    storage.release()
    assert storage.name == address.replace("sweeper@", "")


def test_the_encoding_of_the_client_does_not_matter(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "SQL_ASCII")
    storage = PostgreSQL(address, "one")
    storage.hold(None)
    Database.open(storage, config(), FACTS, ENTRIES).close()
    assert has(storage, ENTRIES)
    storage.release()
