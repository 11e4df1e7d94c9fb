"""Sweeps whose stages are in another folder or at a URL, on stages that take no time."""

from __future__ import annotations

import json
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from elsewhere import Runner
from object_store import S3, new_place
from running import PATIENCE, Command, swift, wait_until

from sweeps.outputs import pareto_table, write_outputs
from sweeps.stages import remote as remotes
from sweeps.state import read_study


@pytest.fixture(params=["folder", "memory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty place of each kind; `file` is tested by the commands."""
    yield from new_place(request, tmp_path)


def test_the_front_is_that_of_stages_in_the_runs_folder(tmp_path: Path, place: str) -> None:
    expected = pareto_table(Runner(tmp_path / "plain", None).run())
    there = Runner(tmp_path / "runs", place)
    study = there.run()
    assert pareto_table(study) == expected
    assert pareto_table(read_study(there.runs, there.config)) == expected

    other = Runner(tmp_path / "other", place)  # which finds everything there
    assert pareto_table(other.run()) == expected
    assert not other.computed
    trial = read_study(other.runs, other.config).trials[0]
    assert trial.stages[-1].history == study.trials[0].stages[-1].history


def test_an_empty_runs_folder_goes_on_with_what_another_has_begun(tmp_path: Path, place: str) -> None:
    first, second = Runner(tmp_path / "first", place), Runner(tmp_path / "second", place)
    first.run(epochs=6)
    assert not read_study(first.runs, first.config).ended
    second.run()
    assert pareto_table(first.run()) == pareto_table(read_study(second.runs, second.config))
    assert set((first.computed + second.computed).values()) == {1}


def test_two_drivers_at_once_share_what_they_compute(tmp_path: Path, place: str) -> None:
    runners = [Runner(tmp_path / name, place) for name in ("one", "other")]
    threads = [threading.Thread(target=runner.run, kwargs={"workers": 1}) for runner in runners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    fronts = [pareto_table(read_study(runner.runs, runner.config)) for runner in runners]
    assert fronts[0] == fronts[1]
    assert set((runners[0].computed + runners[1].computed).values()) == {1}


def test_commands_read_and_delete_copies(tmp_path: Path, command: Command) -> None:
    runner = Runner(tmp_path / "runs", f"file://{tmp_path}/place")
    study = runner.run()
    write_outputs(runner.runs / "smoke", study)
    config = (runner.runs / "smoke" / "config.yaml", "--runs", runner.runs)
    code, out, err = command("status", *config, "--json")
    assert (code, err) == (0, "")
    assert {trial["state"] for trial in json.loads(out)["trials"]} == {"complete"}
    assert command("plan", *config)[0] == 0
    assert command("report", *config)[0] == 0

    assert command("gc", "--runs", runner.runs, "--json", "--dry-run")[1].strip() == "[]"
    code, out, _ = command("rm", "smoke", "--runs", runner.runs, "--yes")
    assert code == 0
    assert not list((runner.runs / "stages").rglob("result.json"))
    other = Runner(tmp_path / "other", runner.place)
    other.run()
    assert not other.computed


def test_stages_that_another_runs_folder_keeps_there_stay(tmp_path: Path, command: Command) -> None:
    one, other = Runner(tmp_path / "a", None), Runner(tmp_path / "b", str(tmp_path / "a" / "stages"))
    one.run(epochs=2)
    other.run()
    found = sorted((tmp_path / "a").rglob("result.json"))
    assert "keeps stages there too" in command("rm", "smoke", "--runs", one.runs, "--yes")[1]
    status, _, err = command("gc", "--runs", one.runs, "--yes")
    assert (status, f"{other.runs.resolve()} keeps stages there too; if" in err) == (0, True)
    assert sorted((tmp_path / "a").rglob("result.json")) == found
    next(one.runs.glob("stages/.used-by-*")).unlink()
    assert command("gc", "--runs", one.runs, "--yes")[0] == 0
    assert not list((tmp_path / "a").rglob("result.json"))


def test_copies_on_a_scratch_disk_are_deleted_too(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLIMNET_SCRATCH", str(tmp_path / "scratch"))
    runner, other = (Runner(tmp_path / runs, f"file://{tmp_path}/place") for runs in "ab")
    runner.run(epochs=2)
    assert list((tmp_path / "scratch").rglob("history.jsonl"))
    assert command("rm", "smoke", "--runs", runner.runs, "--yes")[0] == 0
    assert not list((tmp_path / "scratch").rglob("history.jsonl"))
    other.run(epochs=2)
    assert "keeps stages there too" in command("rm", "smoke", "--runs", other.runs, "--yes")[1]


def test_a_place_out_of_reach_is_one_sentence_and_changes_nothing(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remotes, "PATIENCE", 0.0)
    pytest.importorskip("s3fs", reason="needs the extra `store`")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a secret of theirs")
    runs = tmp_path / "runs"
    code, out, err = command("run", "smoke", "--runs", runs, "--set", "stages=s3://bucket/stages")
    assert (code, out) == (2, "")
    assert "the stages at s3://bucket/stages cannot be reached" in err
    assert "secret" not in err
    assert len(err.strip().splitlines()) == 1
    assert not runs.exists()


@pytest.mark.slow  # three starts of a sweep
def test_a_sweep_that_is_killed_goes_on_in_an_empty_runs_folder(tmp_path: Path, s3: S3) -> None:
    """On S3, in processes of their own."""
    place, log = s3.new_place(), tmp_path / "log"
    options = ("--wandb", "disabled", "--quiet", "--set", "latency=false", "--set", "sparse.epochs=4")
    there = (*options, "--set", f"stages={place}")
    undisturbed = swift(tmp_path / "plain", *options)
    (tmp_path / "first" / "stages").mkdir(parents=True)
    (tmp_path / "first" / "stages" / "gate").touch()
    first = swift(tmp_path / "first", *there, env={"SWIFT_LOG": str(log)}, anew=True)
    files, path = fsspec.core.url_to_fs(place, use_listings_cache=False)
    wait_until(
        lambda: sum(name.endswith("stage.json") for name in files.find(path)) == 2 or first.poll() is not None
    )
    first.send_signal(signal.SIGKILL)
    assert first.communicate(timeout=PATIENCE)[1] == ""

    second = swift(tmp_path / "second", *there, env={"SWIFT_LOG": str(log)}, anew=True)
    for process in (second, undisturbed):
        assert (process.communicate(timeout=PATIENCE)[1], process.returncode) == ("", 0)
    fronts = [tmp_path / runs / "smoke" / "pareto.json" for runs in ("second", "plain")]
    assert fronts[0].read_bytes() == fronts[1].read_bytes()
    epochs = Counter(line for line in log.read_text().splitlines() if line.startswith("epoch"))
    assert set(epochs.values()) == {1}
    assert "secret" not in "".join(
        file.read_text(errors="replace") for file in tmp_path.rglob("*") if file.is_file()
    )
