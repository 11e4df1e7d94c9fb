"""Sweeps whose stages are in another folder or at a URL, on stages that take no time."""

from __future__ import annotations

import json
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from object_store import S3, drop
from running import Command

from benchmarks import instant
from sweeps.config import Config, load_config
from sweeps.console import Console
from sweeps.driver import Driver, resume
from sweeps.executors.inline import InlineExecutor
from sweeps.interruption import Interruption
from sweeps.jobs import Job, Place, Watch
from sweeps.outputs import pareto_table, write_outputs
from sweeps.records import StudyRecord
from sweeps.stages import remote as remotes
from sweeps.state import read_study
from sweeps.study import keep_config, make_study
from sweeps.tracking import Tracker
from sweeps.tracking.mode import Mode

SPACE = "{sparse.lambda: {log: [0.001, 0.008], steps: 3}, prune.ratio: {range: [0.2, 0.8], step: 0.1}}"


@pytest.fixture(params=["folder", "memory", "file", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty place of each kind."""
    match request.param:
        case "s3":
            server: S3 = request.getfixturevalue("s3")
            yield server.new_place()
        case "folder":
            yield str(tmp_path / "place")
        case kind:
            yield f"{kind}://{tmp_path}/place"
            drop(f"{kind}://{tmp_path}/place")


@dataclass
class Runner:
    """Runs of a study in one runs folder, and the epochs that were computed in them."""

    runs: Path
    place: str | None
    computed: Counter[str] = field(default_factory=Counter)

    @property
    def config(self) -> Config:
        chosen = ["search.sampler=random", "search.trials=6", f"search.space={SPACE}", "finetune.epochs=3"]
        return load_config("smoke", [*chosen, *([f"stages={self.place}"] if self.place else [])])

    def run(self, epochs: int | None = None, workers: int = 2) -> StudyRecord:
        """Run to the goal, or until so many epochs have been computed."""
        interruption, config = Interruption(), self.config

        def compute(job: Job, place: Place, watch: Watch) -> bool:
            def epoch(row: dict[str, Any]) -> None:
                self.computed[f"{job.key} {row['epoch']}"] += 1
                if sum(self.computed.values()) == epochs:
                    interruption.note(signal.SIGTERM)
                watch.epoch(row)

            return instant.compute(job, place, Watch(epoch, watch.step, watch.warning, watch.stop))

        folder = self.runs / config.study
        folder.mkdir(parents=True, exist_ok=True)
        study = make_study(folder, config, "float32", machine="")
        keep_config(folder, config)
        state, sampling, mirror = resume(study, config, self.runs)
        executor = InlineExecutor(compute, workers)
        tracker, quiet = Tracker(folder, Mode("disabled", "")), Console(quiet=True)
        return Driver(state, study, sampling, mirror, executor, tracker, quiet, interruption).run()


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
