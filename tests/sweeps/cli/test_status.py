"""status: the words for how far a trial is; plan: the time that is left."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from found import FOUND
from running import Command

from benchmarks import instant
from slimnet.errors import SlimnetError
from slimnet.precision import Precision
from sweeps.check import examine
from sweeps.config import Config
from sweeps.executors.reporting import Compute
from sweeps.jobs import Place
from sweeps.machine import Machine, look
from sweeps.progress import Progress, ProgressFile, RunningStage
from sweeps.study import Facts, hold


@pytest.fixture
def runs(tmp_path: Path, command: Command, instantly: Callable[[Compute], None]) -> Path:
    """The smoke study, its stages computed in no time."""
    instantly(instant.compute)
    status, _, err = command("run", "smoke", "--runs", tmp_path / "runs", "--wandb", "disabled")
    assert (status, err) == (0, "")
    return tmp_path / "runs"


def states(runs: Path, command: Command) -> list[str]:
    status, out, _ = command("status", "smoke", "--runs", runs, "--json")
    assert status == 0
    return [trial["state"] for trial in json.loads(out)["trials"]]


def lose_results(runs: Path, command: Command, *trials: int) -> None:
    """Have the fine-tuning of some trials lack its result."""
    rows = json.loads(command("status", "smoke", "--runs", runs, "--json")[1])["trials"]
    lost = {rows[number]["val_accuracy"] for number in trials}
    for result in (runs / "stages" / "finetune").glob("*/result.json"):
        if json.loads(result.read_text())["metrics"]["val_accuracy"] in lost:
            result.unlink()


def test_a_trial_is_running_waiting_or_interrupted(runs: Path, command: Command) -> None:
    lose_results(runs, command, 0, 2)
    assert states(runs, command) == ["interrupted", "complete", "interrupted"]
    out = command("status", "smoke", "--runs", runs)[1]
    assert out.startswith("study smoke: 1 of 3 trials complete, 2 unfinished (2 interrupted)\n")
    with hold(runs / "smoke"):
        assert states(runs, command) == ["waiting", "complete", "waiting"]  # it prepares itself
        stage = RunningStage("finetune", (2,), 0.005, 0.5, 0.0, 1)
        file = ProgressFile(runs / "smoke")
        file.write(Progress(1, 0, 3, 0.0, 1.0, None, [stage], [], 0))
        assert states(runs, command) == ["waiting", "complete", "running"]
        out = command("status", "smoke", "--runs", runs)[1]
        assert out.startswith("study smoke: 1 of 3 trials complete, 2 unfinished (1 waiting, 1 running)\n")
    assert states(runs, command) == ["interrupted", "complete", "interrupted"]
    for folder in (runs / "stages").glob("*/*"):
        for file_ in folder.iterdir():
            file_.unlink()
    assert states(runs, command) == ["waiting"] * 3


def test_a_study_that_is_just_being_begun_can_be_watched(tmp_path: Path, command: Command) -> None:
    (tmp_path / "smoke").mkdir()
    with hold(tmp_path / "smoke"):
        status, _, err = command("status", "smoke", "--runs", tmp_path)
    watch = f"it is being run, watch it with: sweeps watch smoke --runs {tmp_path}"
    assert (status, err) == (2, f"Error: {tmp_path} has no study smoke yet; {watch}\n")


def test_a_plan_tells_the_time_by_the_stages_that_are_done(runs: Path, command: Command) -> None:
    plan = ("plan", "smoke", "--runs", runs, "--trials", 5)
    status, out, _ = command(*plan, "--workers", 2)
    assert status == 0
    # Each took 1 s, and 0.4 s to start: two prunings, two fine-tunings of an epoch, three measurements.
    assert out.endswith("time left: about 5 s with 2 workers, as its 13 finished stages took on cpu\n")
    assert "with 1 worker, as" in command(*plan, "--workers", 1)[1]
    facts = json.loads(command(*plan, "--workers", 2, "--json")[1])
    assert facts["seconds_left"] == pytest.approx((2 * 1.4 + 2 * 1.4 + 3 * 1.4) / 2)
    assert (facts["pace"]["stages"], facts["pace"]["workers"]) == (13, 2)

    out = command("plan", "smoke", "--runs", runs)[1]
    assert out.endswith("time left: none, as everything is computed\n")


def test_a_plan_of_a_new_study_tries_a_few_steps(
    tmp_path: Path, command: Command, instantly: Callable[[Compute], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    instantly(instant.compute)
    plan = ("plan", "smoke", "--runs", tmp_path / "runs", "--workers", 1)
    status, out, _ = command(*plan)
    assert (status, "with 1 worker, by a few steps tried on cpu (" in out) == (0, True)

    def fail(question: Callable[..., object], *arguments: object) -> object:
        if question is examine:
            raise SlimnetError("the data are elsewhere")
        return question(*arguments)

    monkeypatch.setattr("sweeps.executors.processes.ask", fail)
    status, out, _ = command(*plan)
    assert (status, out.splitlines()[-1]) == (0, "time left: not known: the data are elsewhere")
    assert not (tmp_path / "runs").exists()


def test_a_plan_asks_those_who_would_compute_the_study(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = replace(FOUND.machine, kind="cuda", name="a GPU of the cluster", precision="bfloat16")

    class Cluster:
        def __init__(self, config: Config, note: object) -> None:
            assert config.executor.kind == "ray"

        def ask(self, question: Callable[..., object], *arguments: object) -> object:
            return {look: machine, examine: replace(FOUND, machine=machine)}[question]

        def places(self, machine: Machine) -> list[Place]:
            return [Place("cuda:0", 1)] * 3

    monkeypatch.setattr("sweeps.executors.processes.ask", None)  # nobody here
    monkeypatch.setattr("sweeps.cli.plan.engine_of", Cluster)
    known: list[str] = []

    def facts(uid: str, precision: Precision, *others: Any) -> Facts:
        known.append(precision)
        return Facts(uid, precision, *others)

    monkeypatch.setattr("sweeps.cli.studies.Facts", facts)
    status, out, err = command("plan", "smoke", "--executor", "ray", "--runs", tmp_path)
    assert (status, err, known) == (0, "", ["bfloat16"])
    assert out.endswith(" with 3 workers, by a few steps tried on cuda (a GPU of the cluster)\n")
