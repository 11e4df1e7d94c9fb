"""The networks of trials as artifacts: which are uploaded, under which names, from where."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
from fake_wandb import FakeWandb, ServerArtifact
from projected import OFFLINE, ONLINE, Wait, steps, track, wait_for
from tracked import content, run_id, stage, study, trial, with_networks

from sweeps.records import StudyRecord
from sweeps.tracking import Tracker, projection, sdk, sync


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection, "CONFIRM_SECONDS", 0.5)


@pytest.fixture
def record(tmp_path: Path) -> StudyRecord:
    """Two trials that share their sparse stage, of which the second is on the front."""
    trials = [with_networks(trial(number), tmp_path) for number in (0, 1)]
    return replace(study(*trials, goal=2), front=[1])


def uploading(record: StudyRecord, artifacts: str) -> StudyRecord:
    wandb = record.config.wandb.model_copy(update={"artifacts": artifacts})
    return replace(record, config=record.config.model_copy(update={"wandb": wandb}))


def models(server: FakeWandb) -> dict[str, list[ServerArtifact]]:
    """The versions that the server has received, by name."""
    found: dict[str, list[ServerArtifact]] = {}
    for one in server.committed("model"):
        found.setdefault(one.collection, []).append(one)
    return found


def test_the_networks_of_the_front_are_uploaded_with_their_lineage(
    study_dir: Path, server: FakeWandb, record: StudyRecord
) -> None:
    assert track(study_dir, record) == []

    found = models(server)
    assert {name: len(versions) for name, versions in found.items()} == {
        "smoke-sparse": 1,
        "smoke-prune": 1,
        "smoke": 1,
    }
    (sparse,), (pruned,), (tuned,) = found["smoke-sparse"], found["smoke-prune"], found["smoke"]
    keys = [stage.key for stage in record.trials[1].stages]
    for artifact, key in zip((sparse, pruned, tuned), keys, strict=True):
        assert artifact.files["network.pt"] == len(content(key))
        assert key in artifact.aliases
    assert {"trial-1", "best", "latest"} <= set(tuned.aliases)
    assert (sparse.used_by, pruned.used_by, tuned.used_by) == ([run_id(1)], [run_id(1)], [])
    assert tuned.logged_by == run_id(1)
    assert pruned.metadata["parent"] == f"smoke-sparse:{keys[0]}"
    assert tuned.metadata["parent"] == f"smoke-prune:{keys[1]}"
    assert tuned.metadata["params"] == 800
    assert set(server.runs[run_id(1)].attributes["tags"]) >= {"smoke", "λ 0.02", "ratio 0.7", "front", "best"}
    assert "front" not in server.runs[run_id(0)].attributes["tags"]


def test_no_second_copy_of_a_network_is_kept(
    tmp_path: Path, study_dir: Path, server: FakeWandb, record: StudyRecord
) -> None:
    track(study_dir, record)

    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    copies = [path for path in files if path.read_bytes().startswith(b"the network of")]
    assert {path.parent.parent.name for path in copies} == {"stages"}


def test_all_networks_are_uploaded_as_trials_end_and_what_they_share_once(
    study_dir: Path, server: FakeWandb, record: StudyRecord
) -> None:
    early = replace(record, trials=record.trials[:1], goal=3, front=[0])
    assert track(study_dir, uploading(early, "all")) == []
    assert [one.metadata["trial"] for one in models(server)["smoke"]] == [0]

    assert track(study_dir, uploading(record, "all")) == []

    assert {name: len(versions) for name, versions in models(server).items()} == {
        "smoke-sparse": 1,
        "smoke-prune": 2,
        "smoke": 2,
    }
    assert models(server)["smoke-sparse"][0].used_by == [run_id(0), run_id(1)]


def test_none_are_uploaded_where_none_are_wanted(
    study_dir: Path, server: FakeWandb, record: StudyRecord
) -> None:
    assert track(study_dir, uploading(record, "none")) == []
    assert models(server) == {}


def test_sync_uploads_the_networks_of_what_was_tracked_offline(
    study_dir: Path, server: FakeWandb, record: StudyRecord
) -> None:
    assert track(study_dir, record, mode=OFFLINE) == []

    assert all(result.ok for result in sync(study_dir, record))

    assert models(server).keys() == {"smoke-sparse", "smoke-prune", "smoke"}
    assert sync(study_dir, record) == []


def test_a_network_that_was_refused_is_told_and_uploaded_later(
    study_dir: Path, server: FakeWandb, record: StudyRecord
) -> None:
    server.refuse_files = True
    (warning,) = track(study_dir, record)
    assert "is not complete" in warning
    assert models(server) == {}

    server.refuse_files = False
    assert all(result.ok for result in sync(study_dir, record))

    assert models(server).keys() == {"smoke-sparse", "smoke-prune", "smoke"}
    assert {one.state for one in server.artifacts} == {"COMMITTED"}


def test_each_run_that_failed_names_its_own_reason(
    study_dir: Path, server: FakeWandb, record: StudyRecord
) -> None:
    server.refuse_files = True
    reasons = {result.run_id: result.reason for result in sync(study_dir, record) if not result.ok}
    assert reasons.keys() == {run_id(1), run_id("study")}
    assert reasons[run_id(1)] == "the server has not received the network smoke"
    assert str(reasons[run_id("study")]).startswith("the server has not received 9 files, such as media/")


def test_the_front_of_more_trials_is_another_one(
    tmp_path: Path, study_dir: Path, server: FakeWandb, record: StudyRecord
) -> None:
    track(study_dir, record)
    opened = server.runs[run_id(1)].opened
    as_accurate = stage("finetune", True, params=700, val_accuracy=0.8)
    third = replace(trial(2), stages=(*trial(2).stages[:-1], as_accurate))
    more = [*record.trials, with_networks(third, tmp_path)]
    running = replace(record, trials=more, goal=4)
    track(study_dir, running)
    assert server.runs[run_id(1)].opened == opened, "before the end, the front is not known"
    assert "front" in server.runs[run_id(1)].attributes["tags"]

    track(study_dir, replace(record, trials=more, goal=3, front=[2]))

    tags = {number: server.runs[run_id(number)].attributes["tags"] for number in (0, 1, 2)}
    assert ["front" in tags[number] for number in (0, 1, 2)] == [False, False, True]
    versions = {alias: one.metadata["trial"] for one in models(server)["smoke"] for alias in one.aliases}
    assert (versions["best"], versions["trial-1"], versions["trial-2"]) == (2, 1, 2)
    assert sync(study_dir, replace(record, trials=more, goal=3, front=[2])) == []


def test_the_same_networks_of_another_study_and_of_runs_begun_again_are_uploaded_too(
    tmp_path: Path, server: FakeWandb, record: StudyRecord
) -> None:
    """A server keeps each content once, as that of the first run that logged it."""
    folder = tmp_path / "one" / "smoke"
    assert track(folder, record) == []
    assert track(tmp_path / "two" / "smoke", replace(record, uid="b" * len(record.uid))) == []

    for name in list(server.runs):
        server.delete(name)
    sync(folder, record)
    assert all(result.ok for result in sync(folder, record, force=True))
    assert sync(folder, record) == []


def test_networks_have_the_time_that_they_take_to_upload(
    study_dir: Path, server: FakeWandb, record: StudyRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those of a run that was open before they were there."""
    monkeypatch.setattr(sdk, "SLOWEST", 100)  # bytes a second
    monkeypatch.setattr(sdk, "FINISH_TIMEOUT", 4.0)
    tracker = Tracker(study_dir, ONLINE)
    begun = replace(record, trials=[trial(0, 1, False, 0)], goal=3, front=[])
    tracker.update(uploading(begun, "all"))
    wait_for(lambda: steps(server, 0) == [0])
    server.slow_networks = 5.0
    tracker.update(uploading(replace(begun, trials=record.trials[:1]), "all"))
    wait_for(lambda: any(one.kind == "model" for one in server.artifacts))
    asked = itertools.count()

    assert tracker.close(0.1, lambda: next(asked) >= 0) == []

    assert next(asked) > 0
    assert models(server).keys() == {"smoke-sparse", "smoke-prune", "smoke"}


def test_networks_that_take_too_long_are_left_to_sync(
    study_dir: Path, server: FakeWandb, record: StudyRecord, monkeypatch: pytest.MonkeyPatch, wait: Wait
) -> None:
    monkeypatch.setattr(sdk, "LONGEST", 0.5)
    monkeypatch.setattr(sdk, "SLOWEST", 1)  # a second for each byte, but for the bound
    wait(2)
    server.slow_networks = 60.0

    warning, *_ = track(study_dir, record)

    assert "its networks were not uploaded within 2 seconds" in warning
