"""Studies whose trials for Optuna are kept elsewhere than in study.db, from the command line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from urllib.parse import quote

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from postgres_server import PASSWORD, Server
from running import Command

from benchmarks.instant import compute
from sweeps import file_system
from sweeps.config import load_config
from sweeps.executors.reporting import Compute
from sweeps.jobs import Job, Place, Watch
from sweeps.study import keep_config, mirror
from sweeps.study.storage.postgres import PostgreSQL

TRIALS = 6
OPTIONS = ("--trials", TRIALS, "--wandb", "disabled", "--set", "curves=false")


@pytest.fixture
def address(postgres: Server, monkeypatch: pytest.MonkeyPatch, instantly: Callable[[Compute], None]) -> str:
    """A database of this test file, whose password is in the environment."""
    monkeypatch.setenv("DB_PASSWORD", PASSWORD)
    instantly(compute)
    return postgres.database("commands").replace("@", ":${DB_PASSWORD}@")


def files_with(text: str, folder: Path) -> list[Path]:
    needles = {text.encode(), quote(text, safe="").encode(), quote(text).encode()}
    return [
        path
        for path in folder.rglob("*")
        if path.is_file() and any(needle in path.read_bytes() for needle in needles)
    ]


def test_a_study_in_postgres_ends_as_one_in_sqlite_though_the_server_is_restarted(
    postgres: Server,
    address: str,
    tmp_path: Path,
    command: Command,
    instantly: Callable[[Compute], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, seconds in {"PAUSE": 0.1, "LONGEST_PAUSE": 0.1, "TOLD_AFTER": 0.0, "AT_THE_END": 60.0}.items():
        monkeypatch.setattr(mirror, name, seconds)
    stages: list[Job] = []
    one_by_one = Lock()

    def restart(job: Job, place: Place, watch: Watch) -> bool:
        with one_by_one:  # else two stages that begin at once may miss their turns
            stages.append(job)
            if len(stages) == 5:
                postgres.stop()
            if len(stages) == 12:
                postgres.start()
        return compute(job, place, watch)

    status, *_ = command("run", "smoke", "--runs", tmp_path / "file", *OPTIONS)
    assert status == 0
    instantly(restart)
    runs = tmp_path / "server"
    status, out, err = command("run", "smoke", "--runs", runs, *OPTIONS, "--storage", address)
    assert (status, err, len(stages) > 12) == (0, "", True)
    pareto = (runs / "smoke" / "pareto.json").read_bytes()
    assert pareto == (tmp_path / "file" / "smoke" / "pareto.json").read_bytes()

    assert "; the sweep goes on, and writes to it when that is possible" in out
    assert "can be written again, and has every trial" in out
    assert not (runs / "smoke" / "study.db").exists()
    url = address.replace("${DB_PASSWORD}", quote(PASSWORD, safe="")).replace(
        "postgresql", "postgresql+psycopg"
    )
    there = optuna.load_study(study_name="smoke", storage=url)
    file = tmp_path / "file" / "smoke" / "study.db"
    here = optuna.load_study(study_name="smoke", storage=f"sqlite:///{file}")
    assert [shown(trial) for trial in there.trials] == [shown(trial) for trial in here.trials]
    assert there.user_attrs.keys() == here.user_attrs.keys()
    assert there.metric_names == here.metric_names

    assert "${DB_PASSWORD}" in (runs / "smoke" / "config.yaml").read_text()
    assert files_with(PASSWORD, tmp_path) == []
    assert PASSWORD not in out + postgres.log()

    os.unlink(runs / "smoke" / "study.json")  # is in the database too
    status, out, err = command("run", "smoke", "--runs", runs, *OPTIONS, "--storage", address)
    assert (status, err) == (0, "")
    assert "nothing left to compute" in out
    assert (runs / "smoke" / "pareto.json").read_bytes() == pareto

    other = ("smoke", "--runs", tmp_path / "other", "--set", f"storage={address}")
    for name in ("run", "check"):
        status, out, err = command(name, *other)
        assert status == 2
        assert "has another study called smoke; give this one another name (--set study=NAME)" in err
        quoted = address.replace("${DB_PASSWORD}", '"${DB_PASSWORD}"').partition("://")[2]
        assert err.endswith(f"delete-study --study-name smoke --storage postgresql+psycopg://{quoted}\n")
    assert not (tmp_path / "other").exists()

    status, out, err = command("rm", "smoke", "--runs", runs, "--yes")
    assert (status, err, f"the study in {PostgreSQL(address, 'smoke').name}" in out) == (0, "", True)
    assert "smoke" not in optuna.get_all_study_names(url)
    assert command("run", *other, *OPTIONS)[0] == 0


def shown(trial: optuna.trial.FrozenTrial) -> tuple[object, ...]:
    latencies = {name for name in trial.user_attrs if "latency" in name}
    attributes = {name: value for name, value in trial.user_attrs.items() if name not in latencies}
    return trial.number, trial.state, trial.values, trial.params, attributes, trial.constraints


def test_a_second_driver_is_told_who_has_the_study(address: str, tmp_path: Path, command: Command) -> None:
    first = PostgreSQL(address, "held")
    first.hold(None)
    options = ("--runs", tmp_path / "runs", *OPTIONS, "--set", "study=held", "--storage", address)
    status, _, err = command("run", "smoke", *options)
    assert status == 3
    assert f"held is being run by process {os.getpid()} on " in err
    assert not (tmp_path / "runs").exists()
    first.release()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("postgresql://sweeper@127.0.0.1:1/sweeps", "; see that its server runs, and that storage is right"),
        (f"postgresql://sweeper:{PASSWORD}@127.0.0.1/sweeps", "is no address such as"),
        ("postgresql://sweeper:hunter2@127.0.0.1/sweeps", "storage holds a password"),
        ("postgresql://127.0.0.1/sweeps?user=me&password=hunter2", "storage holds a password"),
        ("postgres://sweeper:hunter2@127.0.0.1/sweeps", "storage is not known; write postgresql://"),
        ("[postgresql://sweeper:hunter2@127.0.0.1/sweeps]", "storage is"),
        ("mysql", "storage is not known; it takes auto, sqlite, journal or an address such as"),
    ],
    ids=["no server", "odd password", "password", "password in the query", "postgres", "a list", "unknown"],
)
@pytest.mark.parametrize("where", ["option", "file"])
def test_a_storage_that_cannot_be_used_is_refused_before_anything_is_written(
    where: str, given: str, words: str, tmp_path: Path, command: Command, instantly: Callable[[Compute], None]
) -> None:
    instantly(compute)
    options: tuple[object, ...] = ("smoke", "--storage", given)
    if where == "file":
        file = tmp_path / "own.yaml"
        text = (Path(__file__).parents[3] / "sweeps" / "configs" / "smoke.yaml").read_text()
        file.write_text(f"{text}\nstorage: {given if given.startswith('[') else repr(given)}\n")
        options = (file,)
    status, out, err = command("run", *options, "--runs", tmp_path / "runs", *OPTIONS)
    assert status == 2
    assert words in " ".join(err.split())
    assert not any(secret in out + err for secret in (PASSWORD, "hunter2", "cret #1"))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("postgresql://me@127.0.0.1:1/sweeps", "cannot be reached ("),
        ("postgresql://me:${NO_PASSWORD}@127.0.0.1/sweeps", "storage names ${NO_PASSWORD}, which is not set"),
    ],
    ids=["no server", "no variable"],
)
def test_check_refuses_a_storage_that_run_would(
    given: str, words: str, tmp_path: Path, command: Command, instantly: Callable[[Compute], None]
) -> None:
    instantly(compute)
    status, out, err = command("check", "smoke", "--runs", tmp_path / "runs", "--set", f"storage={given}")
    assert (status, out, words in err) == (2, "", True)
    assert list(tmp_path.iterdir()) == []


def test_check_makes_no_tables(postgres: Server, address: str, tmp_path: Path, command: Command) -> None:
    address = address.replace("commands", "looked_at")
    postgres.database("looked_at")
    status, _, err = command("check", "smoke", "--runs", tmp_path / "runs", "--set", f"storage={address}")
    assert (status, err) == (0, "")
    assert postgres.execute("looked_at", "SELECT * FROM pg_tables WHERE schemaname = 'public'") == []


def test_rm_tells_how_to_delete_what_it_cannot_in_a_database(tmp_path: Path, command: Command) -> None:
    study = tmp_path / "smoke"
    keep_config(study, load_config("smoke", ["storage=postgresql://me:${P}@127.0.0.1:1/db?sslmode=disable"]))
    (study / "study.json").write_text(json.dumps({"uid": "abc", "precision": "float32", "data": "1"}))
    status, out, err = command("rm", "smoke", "--runs", tmp_path, "--yes")
    assert (status, f"deleted: {study}" in out, study.exists()) == (0, True, False)
    assert err == (
        "smoke stays in postgresql://127.0.0.1:1/db: storage names ${P}, which is not set; export P. To "
        "delete it there: optuna delete-study --study-name smoke --storage "
        "postgresql+psycopg://me:\"${P}\"'@127.0.0.1:1/db?sslmode=disable'\n"
    )


def test_on_a_network_file_system_a_journal_takes_the_place_of_sqlite(
    tmp_path: Path, command: Command, instantly: Callable[[Compute], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mounts"
    shared = tmp_path / "the share"
    place = str(shared).replace(" ", r"\040")
    mounts.write_text(f"/dev/vda / ext4 rw 0 0\nnas:/home {place} nfs4 rw 0 0\n")
    monkeypatch.setattr(file_system, "MOUNTS", mounts)
    instantly(compute)
    options = ("run", "smoke", "--runs", shared / "runs", *OPTIONS)

    status, _, err = command(*options, "--storage", "sqlite")
    assert status == 2
    assert "is on a network file system (nfs4), where SQLite loses data" in err
    assert "use storage: journal, a PostgreSQL database, or another folder (--runs DIR)" in err
    assert not shared.exists()

    status, out, err = command(*options)
    assert (status, err) == (0, "")
    journal = shared / "runs" / "smoke" / "study.journal"
    assert f"trials for Optuna are in {journal}, as SQLite is not safe" in " ".join(out.split())
    found = optuna.load_study(study_name="smoke", storage=JournalStorage(JournalFileBackend(str(journal))))
    assert [trial.state.name for trial in found.trials] == ["COMPLETE"] * TRIALS
    assert not (journal.parent / "study.db").exists()

    os.unlink(journal.parent / "study.json")
    journal.write_bytes(journal.read_bytes()[:-1])  # as a machine leaves it that goes down
    status, out, err = command(*options)
    assert (status, err) == (0, "")
    assert "nothing left to compute" in out
    assert journal.read_bytes().endswith(b"\n")
