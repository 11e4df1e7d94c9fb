"""rm and gc: what they delete, what stays, and what a kill in the middle leaves."""

from __future__ import annotations

import io
import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from running import Command

import slimnet
from benchmarks import instant
from sweeps.executors.reporting import Compute
from sweeps.removal import stages_in
from sweeps.study import hold, removal_lock

SMALLER = ("--set", "study=smaller", "--set", "prune.layer_floor=0.5", "--trials", "2")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the studies are kept that tests copy."""
    return tmp_path_factory.mktemp("made")


@pytest.fixture
def runs(made: Path, tmp_path: Path, command: Command, instantly: Callable[[Compute], None]) -> Path:
    """Two finished studies that share their sparse networks: smoke, and smaller."""
    instantly(instant.compute)
    for folder, studies in (("runs", ((), SMALLER)), ("alone", (SMALLER,))):
        for options in studies if not (made / folder).exists() else ():
            status, _, err = command("run", "smoke", "--runs", made / folder, "--wandb", "disabled", *options)
            assert (status, err) == (0, "")
    shutil.copytree(made / "runs", tmp_path / "runs")
    return tmp_path / "runs"


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Has a user at a terminal type an answer."""

    class Keyboard(io.StringIO):
        def isatty(self) -> bool:
            return True

    return lambda text: monkeypatch.setattr("sys.stdin", Keyboard(f"{text}\n"))


class Killed(BaseException):
    """What nothing handles."""


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file; without those of locks."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.endswith("lock"))
    return {str(path): path.read_bytes() for path in files}


def keys(runs: Path) -> set[str]:
    return {folder.name for folder in stages_in(runs)}


def stages(runs: Path) -> dict[str, bytes]:
    files = snapshot(runs / "stages").items()
    return {path.removeprefix(str(runs)): content for path, content in files}


# rm


def test_rm_shows_what_it_would_delete_and_asks(
    runs: Path, command: Command, answer: Callable[[str], None]
) -> None:
    before = snapshot(runs)
    answer("n")
    status, out, _ = command("rm", "smoke", "--runs", runs)
    assert status == 1
    assert f"{runs / 'smoke'}: " in out
    assert "9 stages that no other study refers to: " in out
    assert "Delete the study smoke? [y/N]" in out
    assert out.endswith("nothing was deleted\n")
    assert snapshot(runs) == before

    answer("y")
    status, out, _ = command("rm", "smoke", "--runs", runs)
    assert (status, f"deleted: {runs / 'smoke'} and 9 stages" in out) == (0, True)
    assert not (runs / "smoke").exists()


def test_rm_leaves_what_another_study_refers_to(runs: Path, made: Path, command: Command) -> None:
    before = snapshot(runs / "smaller")
    assert command("rm", "smoke", "--runs", runs, "--yes")[0] == 0
    assert stages(runs) == stages(made / "alone")
    assert snapshot(runs / "smaller") == before
    status, out, _ = command("run", "smoke", "--runs", runs, "--wandb", "disabled", *SMALLER)
    assert (status, "nothing left to compute" in out) == (0, True)
    assert (
        command("gc", "--runs", runs)[1] == f"nothing to delete in {runs}: every stage belongs to a study\n"
    )


def test_rm_takes_the_name_of_a_study_or_its_config(runs: Path, tmp_path: Path, command: Command) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text((runs / "smaller" / "config.yaml").read_text())
    assert command("rm", config, "--runs", runs, "--yes")[0] == 0
    assert not (runs / "smaller").exists()
    status, _, err = command("rm", "smaller", "--runs", runs, "--yes")
    assert (status, err) == (2, f"Error: {runs} has no study smaller; it has: smoke\n")
    assert command("rm", "stages", "--runs", runs, "--yes")[0] == 2
    assert command("rm", "..", "--runs", runs, "--yes")[0] == 2


def test_rm_without_a_terminal_wants_yes(runs: Path, command: Command) -> None:
    before = snapshot(runs)
    for name in (("rm", "smoke"), ("gc",)):
        shutil.rmtree(runs / "smaller", ignore_errors=True)  # so that gc finds something
        status, _, err = command(*name, "--runs", runs)
        assert status == 2
        assert err == "Error: nothing was deleted, as there is no terminal to ask on; say yes with --yes\n"
    assert snapshot(runs).items() <= before.items()
    assert (runs / "smoke").exists()


def test_rm_refuses_a_study_that_is_being_run(runs: Path, command: Command) -> None:
    before = snapshot(runs)
    with hold(runs / "smoke"):
        status, _, err = command("rm", "smoke", "--runs", runs, "--yes")
    assert (status, "smoke is being run by process" in err) == (3, True)
    assert snapshot(runs) == before


def test_stages_stay_while_another_study_is_being_run(runs: Path, made: Path, command: Command) -> None:
    before = keys(runs)
    with hold(runs / "smaller"):
        status, out, _ = command("rm", "smoke", "--runs", runs, "--yes")
    assert (status, "the stages of smoke stay, as smaller is being run" in out) == (0, True)
    assert not (runs / "smoke").exists()
    assert keys(runs) == before
    assert command("gc", "--runs", runs, "--yes")[0] == 0
    assert stages(runs) == stages(made / "alone")


def test_a_study_that_cannot_be_read_can_be_deleted_but_its_stages_stay(runs: Path, command: Command) -> None:
    before = keys(runs)
    (runs / "smoke" / "trials.jsonl").write_text("{}\n")
    status, out, _ = command("rm", "smoke", "--runs", runs, "--yes")
    assert (status, "the stages of smoke stay, as it is not known which" in out) == (0, True)
    assert keys(runs) == before
    assert not (runs / "smoke").exists()


@pytest.mark.parametrize("deletion", range(4))
def test_rm_that_is_killed_leaves_no_half_of_anything(
    runs: Path, made: Path, command: Command, monkeypatch: pytest.MonkeyPatch, deletion: int
) -> None:
    whole = {stage: snapshot(stage) for stage in stages_in(runs)}
    remove, calls = shutil.rmtree, iter(range(100))

    def killed(path: Path) -> None:
        if next(calls) == deletion:
            next(path.rglob("*.json")).unlink()
            raise Killed
        remove(path)

    with monkeypatch.context() as patch:
        patch.setattr("sweeps.removal.shutil.rmtree", killed)
        with pytest.raises(Killed):
            command("rm", "smoke", "--runs", runs, "--yes")
    assert not (runs / "smoke").exists()
    assert all(snapshot(stage) == whole[stage] for stage in stages_in(runs))
    assert command("status", "smoke", "--runs", runs)[0] == 2

    status, out, _ = command("gc", "--runs", runs, "--yes")
    assert (status, "remains of earlier deletions" in out) == (0, True)
    assert stages(runs) == stages(made / "alone")
    assert {path.name for path in runs.iterdir()} == {"stages", "smaller", ".lock"}


def test_rm_tells_why_stages_stay_that_it_meant_to_delete(
    runs: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another study is begun between the question and the deletion."""
    before = keys(runs)
    found = iter([False, True])
    monkeypatch.setattr("sweeps.study.is_held", lambda folder: next(found))
    status, out, _ = command("rm", "smoke", "--runs", runs, "--yes")
    assert (status, "the stages of smoke stay, as smaller is being run" in out) == (0, True)
    assert keys(runs) == before


def test_rm_without_any_input_wants_yes(
    runs: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", None)  # as of `rm <&-`
    status, _, err = command("rm", "smoke", "--runs", runs)
    assert (status, "say yes with --yes" in err) == (2, True)


# gc


def test_gc_wants_a_runs_folder(tmp_path: Path, command: Command) -> None:
    status, _, err = command("gc", "--runs", tmp_path / "nope")
    assert (status, err) == (2, f"Error: there is no folder {tmp_path / 'nope'}; name one with --runs\n")


def test_gc_shows_what_no_study_needs_and_deletes_it(
    runs: Path, made: Path, command: Command, answer: Callable[[str], None]
) -> None:
    shutil.rmtree(runs / "smoke")
    sparse = next((runs / "stages" / "sparse").iterdir())
    (sparse / "result.json.damaged").write_text("{")
    (runs / "smaller" / "study.db.old").write_text("?")
    before = snapshot(runs)

    status, out, _ = command("gc", "--runs", runs, "--dry-run")
    assert status == 0
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert any(line.startswith("finetune stages of no study 3 ") for line in lines)
    assert "damaged files and databases set aside 2 2 bytes" in lines
    assert "sparse stages" not in out  # the other study has the same
    assert snapshot(runs) == before

    status, out, _ = command("gc", "--runs", runs, "--dry-run", "--json")
    paths = [Path(item["path"]) for item in json.loads(out)]
    assert all(path.exists() for path in paths)

    answer("n")
    assert command("gc", "--runs", runs)[0] == 1
    assert snapshot(runs) == before
    answer("y")
    status, out, _ = command("gc", "--runs", runs)
    assert (status, out.endswith("deleted\n")) == (0, True)
    assert not any(path.exists() for path in paths)
    assert stages(runs) == stages(made / "alone")


def test_gc_refuses_while_a_study_is_being_run(runs: Path, command: Command) -> None:
    shutil.rmtree(runs / "smoke")
    before = snapshot(runs)
    with hold(runs / "smaller"):
        status, _, err = command("gc", "--runs", runs, "--yes")
        assert (status, "smaller is being run by process" in err) == (3, True)
        assert command("gc", "--runs", runs, "--dry-run")[0] == 0
    assert snapshot(runs) == before


def test_gc_leaves_what_a_study_that_cannot_be_read_may_need(runs: Path, command: Command) -> None:
    unused = runs / "stages" / "sparse" / "unused"
    unused.mkdir()
    (runs / "smoke" / "trials.jsonl").write_text("{}\n")
    (runs / "smoke" / "study.db.old").write_text("?")  # which may be all that is left of its trials
    before = snapshot(runs)
    for aside in (runs / "smaller" / "study.db.old", runs / ".removed-earlier" / "config.yaml"):
        aside.parent.mkdir(exist_ok=True)
        aside.write_text("?")
    status, out, err = command("gc", "--runs", runs, "--yes")
    assert (status, unused.is_dir(), out.endswith("deleted\n")) == (2, True, True)
    assert "it is not known which stages are those of smoke" in err
    assert err.endswith(
        f"until then no stage is deleted. Or delete the study: sweeps rm smoke --runs {runs}\n"
    )
    assert snapshot(runs) == before
    status, out, err = command("gc", "--runs", runs, "--yes")
    assert (status, out, "no stage is deleted" in err) == (2, "", True)
    assert command("rm", "smoke", "--runs", runs, "--yes")[0] == 0
    assert command("gc", "--runs", runs, "--yes")[0] == 0
    assert not unused.exists()


def test_gc_leaves_a_stage_that_a_process_still_computes(runs: Path, command: Command) -> None:
    shutil.rmtree(runs / "smoke")
    unused = next(Path(i["path"]) for i in _unneeded(runs, command))
    with FileLock(unused / ".lock"):
        status, out, _ = command("gc", "--runs", runs, "--yes")
    assert (status, "but for 1 stage that a process still holds" in out) == (3, True)
    assert [Path(i["path"]) for i in _unneeded(runs, command)] == [unused]


@pytest.mark.parametrize("lost", ["result.json", "damage"])
def test_controls_stay_while_a_trial_of_the_front_is_to_be_computed_again(
    runs: Path, command: Command, lost: str
) -> None:
    assert command("rm", "smaller", "--runs", runs, "--yes")[0] == 0
    controls = ("--set", "controls.uniform=true", "--set", "controls.scratch=true")
    status, _, err = command("run", "smoke", "--runs", runs, "--wandb", "disabled", *controls)
    assert (status, err) == (0, "")
    front = json.loads(command("pareto", "smoke", "--runs", runs, "--json")[1])["front"]
    accuracy = front[0]["val_accuracy"]
    for path in (runs / "stages" / "finetune").glob("*/result.json"):
        if json.loads(path.read_text())["metrics"]["val_accuracy"] == accuracy:
            path.unlink() if lost == "result.json" else path.write_text("{")
    before = snapshot(runs)
    status, _, err = command("gc", "--runs", runs, "--yes")
    assert (status, "it is not known which stages are those of smoke" in err) == (2, True)
    assert snapshot(runs) == before
    assert command("run", "smoke", "--runs", runs, "--wandb", "disabled", *controls)[0] == 0
    assert "stages of no study" not in command("gc", "--runs", runs, "--dry-run")[1]


def _unneeded(runs: Path, command: Command) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(command("gc", "--runs", runs, "--dry-run", "--json")[1])
    return found


def start_from(study: Path, weights: Path) -> None:
    """Have a study start from the weights in a file."""
    config = study / "config.yaml"
    slimnet.save(weights, slimnet.models.resnet((1,), 4, num_classes=2))
    (study / "ends.jsonl").unlink()  # its trials are others now, of which none has ended
    config.write_text(config.read_text().replace("init: null", f"init: {weights}"))


@pytest.mark.parametrize("named", ["absolute", "relative", "through a link"])
def test_the_network_that_a_study_starts_from_is_kept(
    runs: Path, made: Path, command: Command, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    kept = keys(made / "alone")
    last = next(path for path in stages_in(runs) if path.parent.name == "finetune" and path.name not in kept)
    start_from(runs / "smaller", last / "checkpoint.pt")
    monkeypatch.chdir(runs.parent)
    (runs.parent / "link").symlink_to(runs)
    folder = {"absolute": runs, "relative": Path("runs"), "through a link": Path("link")}[named]
    assert command("rm", "smoke", "--runs", folder, "--yes")[0] == 0
    status, _, err = command("gc", "--runs", folder, "--yes")
    assert status == 0, err
    assert (last / "checkpoint.pt").exists()


def test_weights_of_the_user_are_never_deleted(runs: Path, tmp_path: Path, command: Command) -> None:
    (tmp_path / "mine").mkdir()
    start_from(runs / "smaller", tmp_path / "mine" / "weights.pt")
    assert command("rm", "smaller", "--runs", runs, "--yes")[0] == 0
    assert command("gc", "--runs", runs, "--yes")[0] == 0
    assert (tmp_path / "mine" / "weights.pt").exists()


def test_a_study_that_is_a_link_is_unlinked(runs: Path, tmp_path: Path, command: Command) -> None:
    (runs / "smaller").rename(tmp_path / "elsewhere")
    (runs / "smaller").symlink_to(tmp_path / "elsewhere")
    stage = stages_in(runs)[0]
    stage.rename(tmp_path / "stage")
    stage.symlink_to(tmp_path / "stage")
    for name in ("smaller", "smoke"):
        status, out, err = command("rm", name, "--runs", runs, "--yes")
        assert (status, err, "deleted" in out) == (0, "", True)
    assert {path.name for path in runs.iterdir()} == {"stages", ".lock"}
    assert keys(runs) == set()
    assert (tmp_path / "elsewhere" / "study.json").exists()
    assert (tmp_path / "stage" / "result.json").exists()
    (runs / ".removed-earlier").symlink_to(tmp_path / "elsewhere")
    assert command("gc", "--runs", runs, "--yes")[0] == 0
    assert not (runs / ".removed-earlier").is_symlink()


def test_a_study_does_not_start_while_something_is_deleted(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    order: list[str] = []
    begun = threading.Event()

    def start() -> None:
        begun.set()
        with hold(tmp_path / "study"):
            order.append("started")

    with removal_lock(tmp_path):
        thread = threading.Thread(target=start)
        thread.start()
        begun.wait()
        order.append("deleted")
    thread.join()
    assert order == ["deleted", "started"]
