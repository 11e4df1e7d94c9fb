"""What counts as uploaded: what the server, asked for it, has of a run. The real SDK against the stand-in."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from fake_wandb import USER, FakeWandb
from projected import OFFLINE, STEPS, Wait, steps, track
from tracked import failed, run_id, study, trial

from sweeps.records import StudyRecord
from sweeps.tracking import SyncResult, projection, sdk, sync

EVERY = [run_id(name) for name in ("dense", 0, "study")]
TABLES = ["controls", "front", "not_complete", "trials"]


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in counts at once what it was sent."""
    monkeypatch.setattr(projection, "CONFIRM_SECONDS", 0.5)


def elsewhere(record: StudyRecord, project: str) -> StudyRecord:
    """The study with another W&B project in its config."""
    wandb = record.config.wandb.model_copy(update={"project": project})
    return replace(record, config=record.config.model_copy(update={"wandb": wandb}))


def test_files_that_were_refused_are_uploaded_later(study_dir: Path, server: FakeWandb) -> None:
    record = study(trial(0), goal=1)
    server.refuse_files = True

    warnings = track(study_dir, record)

    assert len(warnings) == 1
    assert run_id("study") in warnings[0]
    assert "media/" in warnings[0]
    assert "complete the record with: python -m sweeps sync" in warnings[0]
    assert steps(server, 0) == STEPS
    assert server.runs[run_id("study")].media() == []
    assert server.committed("run_table") == []
    results = sync(study_dir, record)
    assert [(result.run_id, result.ok) for result in results] == [(run_id("study"), False)]

    server.refuse_files = False
    assert sync(study_dir, record) == [SyncResult(run_id("study"), ok=True)]

    assert steps(server, 0) == STEPS
    assert steps(server, "study") == [0]
    assert len(server.runs[run_id("study")].media()) == len(TABLES) + 1  # and a chart
    assert len(server.committed("run_table")) == len(TABLES)
    assert [one.state for one in server.artifacts] == ["COMMITTED"] * len(TABLES)
    assert sync(study_dir, record) == []


def by_hand(study_dir: Path, name: int | str) -> None:
    """Uploads a run's folder with `wandb sync`."""
    folder = next(study_dir.glob(f"wandb/offline-run-*{run_id(name)}"))
    command = [sys.executable, "-m", "wandb", "sync", str(folder)]
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    subprocess.run(command, check=True, capture_output=True, env=environment, cwd=study_dir)


def test_what_was_synced_by_hand_is_asked_for_and_not_sent_again(study_dir: Path, server: FakeWandb) -> None:
    record = study(trial(0), goal=1)
    track(study_dir, record, mode=OFFLINE)
    by_hand(study_dir, 0)
    assert steps(server, 0) == STEPS

    assert track(study_dir, record) == []

    assert sync(study_dir, record) == []
    assert steps(server, 0) == STEPS


def test_a_marker_of_an_upload_that_the_server_has_not_is_not_believed(
    study_dir: Path, server: FakeWandb
) -> None:
    record = study(trial(0), goal=1)
    track(study_dir, record, mode=OFFLINE)
    folder = next(study_dir.glob(f"wandb/offline-run-*{run_id(0)}"))
    (folder / f"run-{run_id(0)}.wandb.synced").touch()

    results = sync(study_dir, record)

    assert [(result.run_id, result.ok) for result in results] == [(one, True) for one in EVERY]
    assert steps(server, 0) == STEPS


def test_a_marker_is_not_believed_for_rows_that_the_server_refused(
    study_dir: Path, server: FakeWandb, wait: Wait
) -> None:
    record = study(trial(0), goal=1)
    track(study_dir, record, mode=OFFLINE)
    server.refuse_history = True
    by_hand(study_dir, 0)
    assert list(study_dir.glob("wandb/*/*.synced"))
    assert steps(server, 0) == []

    server.refuse_history = False
    assert all(result.ok for result in sync(study_dir, record))
    assert steps(server, 0) == STEPS


def test_another_project_gets_everything_too(study_dir: Path, server: FakeWandb) -> None:
    record = study(trial(0), goal=1)
    track(study_dir, record)
    other = elsewhere(record, "other")

    assert track(study_dir, other) == []

    for project in ("slimnet", "other"):
        runs = server.projects[f"{USER}/{project}"]
        assert {name: len(run.history) for name, run in runs.items()} == dict(
            zip(EVERY, (4, 6, 1), strict=True)
        )
    assert sync(study_dir, record) == sync(study_dir, other) == []


def test_wandbs_folders_go_once_every_server_that_was_used_has_their_runs(
    study_dir: Path, server: FakeWandb
) -> None:
    def kept() -> list[str]:
        return sorted(path.name.split("-", 1)[-1] for path in study_dir.glob("wandb/*") if path.is_dir())

    record = study(trial(0), goal=1)
    mine = study_dir / "wandb" / "run-20260101_000000-mine"
    mine.mkdir(parents=True)
    track(study_dir, record, mode=OFFLINE)
    server.refuse_files = True
    track(study_dir, record)
    assert [name for name in kept() if "study" in name], "its tables and chart have not arrived"
    assert not [name for name in kept() if "dense" in name or "smoke-0" in name]

    server.refuse_files = False
    sync(study_dir, record)
    assert kept() == ["20260101_000000-mine"]

    other = elsewhere(record, "other")
    track(study_dir, other, mode=OFFLINE)
    assert sync(study_dir, record) == []
    assert len(kept()) == 4, "what was not uploaded to the other project stays"
    assert all(result.ok for result in sync(study_dir, other))
    assert kept() == ["20260101_000000-mine"]


def test_another_entity_gets_everything_too(study_dir: Path, server: FakeWandb) -> None:
    record = study(trial(0), goal=1)
    track(study_dir, record)
    wandb = record.config.wandb.model_copy(update={"entity": "team"})
    other = replace(record, config=record.config.model_copy(update={"wandb": wandb}))

    assert [result.ok for result in sync(study_dir, other)] == [True] * 3

    assert {name: len(run.history) for name, run in server.projects["team/slimnet"].items()} == {
        name: len(run.history) for name, run in server.runs.items()
    }


def test_another_server_gets_everything_too(
    study_dir: Path, server: FakeWandb, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = study(trial(0), goal=1)
    track(study_dir, record)
    second = FakeWandb()
    second.start()
    monkeypatch.setenv("WANDB_BASE_URL", second.url)
    sdk.shut_down()  # wandb reads its environment once

    assert [result.ok for result in sync(study_dir, record)] == [True] * 3

    second.stop()
    assert second.unknown == []
    for one in (server, second):
        assert {name: len(run.history) for name, run in one.runs.items()} == dict(
            zip(EVERY, (4, 6, 1), strict=True)
        )


def test_what_was_tracked_offline_for_another_project_is_written_for_this_one(
    study_dir: Path, server: FakeWandb
) -> None:
    record = study(trial(0), goal=1)
    track(study_dir, record)

    assert track(study_dir, elsewhere(record, "other"), mode=OFFLINE) == []

    assert len(list(study_dir.glob("wandb/offline-run-*"))) == 3


def test_a_run_that_was_deleted_on_the_server_is_told_and_comes_back_only_if_asked_for(
    study_dir: Path, server: FakeWandb
) -> None:
    record = study(trial(0), trial(1), goal=2)
    track(study_dir, record)
    server.delete(run_id(0))

    (result,) = sync(study_dir, record)
    assert (result.run_id, result.ok, result.gone) == (run_id(0), False, True)
    assert "was it deleted there?" in str(result.reason)
    assert run_id(0) not in server.runs

    again = run_id("0-again1")
    (result,) = sync(study_dir, record, force=True)
    assert (result.run_id, result.ok) == (run_id(0), True)
    assert f"begun anew as {again}: it" in str(result.anew)
    assert server.runs[again].steps() == STEPS
    assert server.runs[again].attributes["displayName"] == server.runs[run_id(1)].attributes[
        "displayName"
    ].replace("trial 1", "trial 0").replace("λ 0.02", "λ 0.01")
    assert sync(study_dir, record) == []
    assert track(study_dir, record) == []
    assert steps(server, 1) == STEPS


def test_a_deleted_run_does_not_end_the_tracking_of_the_others(study_dir: Path, server: FakeWandb) -> None:
    track(study_dir, study(trial(0, 2, False, 0)))
    server.delete(run_id(0))
    (study_dir / "wandb" / "projection.jsonl").unlink()

    warnings = track(study_dir, study(trial(0), trial(1), goal=2))

    (warning,) = warnings
    assert "deleted" in warning
    assert "--force" in warning
    assert run_id(0) not in server.runs
    assert steps(server, 1) == STEPS


def test_a_retried_trial_gives_the_study_a_run_with_all_of_its_rows(
    study_dir: Path, server: FakeWandb
) -> None:
    """Rows cannot be put between others on a server."""
    track(study_dir, study(failed(trial(0, 1, False, 0), "killed"), trial(1), goal=2))
    assert steps(server, "study") == [1]

    (told,) = track(study_dir, study(trial(0), trial(1), goal=2))

    again = run_id("study-again1")
    assert f"the run {run_id('study')} is begun anew as {again}: rows of trials that were run again" in told
    assert server.runs[again].steps() == [0, 1]
    assert sync(study_dir, study(trial(0), trial(1), goal=2)) == []


def test_rows_that_came_twice_are_told(study_dir: Path, server: FakeWandb) -> None:
    record = study(trial(0), goal=1)
    track(study_dir, record)
    run = server.runs[run_id(0)]
    run.history += [dict(row, _step=row["_step"] + 6) for row in run.history]

    (result,) = sync(study_dir, record)

    assert (result.run_id, result.ok, result.gone) == (run_id(0), False, True)
    assert "the server has 12 rows" in str(result.reason)
    assert [result.ok for result in sync(study_dir, record, force=True)] == [True]
    assert server.runs[run_id("0-again1")].steps() == STEPS


def test_the_history_is_the_same_online_resumed_offline_and_synced(
    study_dir: Path, server: FakeWandb
) -> None:
    """Of every run, without when it was logged."""

    def histories(project: str) -> dict[str, list[dict[str, object]]]:
        runs = server.projects[f"{USER}/{project}"]
        return {
            name: [
                {key: value for key, value in row.items() if key not in ("_timestamp", "_runtime")}
                for row in run.history
            ]
            for name, run in runs.items()
        }

    whole = study(trial(0), trial(1), goal=2)
    parts = [study(trial(0), goal=2), study(trial(0), trial(1, 2, False, 0), goal=2), whole]
    track(study_dir, *(elsewhere(part, "at-once") for part in parts))
    for part in parts:
        track(study_dir, elsewhere(part, "resumed"))
    track(study_dir, elsewhere(parts[0], "later"), mode=OFFLINE)
    track(study_dir, elsewhere(whole, "later"), mode=OFFLINE)
    sync(study_dir, elsewhere(whole, "later"))

    assert histories("at-once") == histories("resumed") == histories("later")
    assert {name: len(rows) for name, rows in histories("later").items()} == {
        run_id("dense"): 4,
        run_id(0): 6,
        run_id(1): 6,
        run_id("study"): 2,
    }


def test_a_run_lasts_as_long_as_its_training_and_its_rows_have_their_times(
    study_dir: Path, server: FakeWandb
) -> None:
    first, cut, tuned = trial(0).stages
    long = replace(first, result={**(first.result or {}), "seconds": 3600.0})
    cut = replace(cut, result={**(cut.result or {}), "ended": 1_700_000_000.0})
    record = study(replace(trial(0), stages=(long, cut, tuned)), goal=1)

    track(study_dir, record)
    (study_dir / "wandb" / "projection.jsonl").unlink()
    track(study_dir, record)

    run = server.runs[run_id(0)]
    assert run.history[3]["_timestamp"] == 1_700_000_000.0
    assert run.summary["_wandb"]["runtime"] == run.summary["_runtime"] == 3602
    assert run.summary["seconds"] == 3602.0
