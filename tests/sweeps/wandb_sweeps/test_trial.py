"""Trials that a real agent of W&B runs, which a server on the loopback gives points to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from fake_wandb import FakeWandb, ServerRun
from running import PATIENCE, ROOT, Command, swift
from tracked import study, trial, with_networks

from sweeps.config import load_config
from sweeps.records import StudyRecord
from sweeps.tracking import sdk
from sweeps.wandb_sweeps.trial import followed

ROWS = 2 + 1 + 1  # epochs of sparse training, pruning, epochs of fine-tuning
POINT = {"sparse.lambda": 0.005, "prune.ratio": 0.5}


AGENT = """
import sys
from wandb import wandb_agent
from wandb.cli.cli import cli

wandb_agent.Agent.POLL_INTERVAL = 0.2  # seconds between two looks at its run, instead of five
cli(["agent", *sys.argv[1:]])
"""
IMPATIENT = """
from wandb.sdk.lib import run_stopping

run_stopping.RunStopChecker.__init__.__kwdefaults__["poll_interval"] = 0.2  # seconds, instead of fifteen
"""


def agent(tmp_path: Path) -> None:
    """Run an agent until the server has no run for it."""
    work = tmp_path / "work"
    work.mkdir(exist_ok=True)
    log = tmp_path / "agent.log"
    with (
        log.open("w") as out,  # no pipe, which a trial that outlives its agent would hold open
        subprocess.Popen(
            [sys.executable, "-c", AGENT, "me/slimnet/sweep1"],
            env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests" / "sweeps")))},
            cwd=work,
            stdout=out,
            stderr=out,
            start_new_session=True,
        ) as agent,
    ):
        try:
            status = agent.wait(PATIENCE)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(agent.pid, signal.SIGKILL)
    assert status == 0, log.read_text()


@pytest.fixture
def sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an agent tells of its sweep."""
    for name, value in {"SWEEP_ID": "sweep1", "PROJECT": "slimnet", "ENTITY": "me"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)


def follow(record: StudyRecord, folder: Path, run: str, artifacts: str) -> None:
    """Log a trial as the run that an agent was given."""
    os.environ["WANDB_RUN_ID"] = run
    sdk.shut_down()  # wandb reads its environment once
    with followed(run, load_config("smoke", [f"wandb.artifacts={artifacts}"]), folder, lambda: record):
        pass


def test_an_agent_uploads_the_networks_that_are_on_the_front_as_they_end(
    tmp_path: Path, server: FakeWandb, sweep: None
) -> None:
    first, worse, better = (with_networks(trial(number), tmp_path) for number in (1, 0, 2))
    last = worse.stages[-1]
    bad = replace(last, result={**(last.result or {}), "metrics": {**last.metrics, "val_accuracy": 0.1}})
    worse = replace(worse, stages=(*worse.stages[:-1], bad))
    for run, one in (("a", first), ("b", worse), ("c", better)):
        record = replace(study(replace(one, number=0)), name=f"smoke-{run}")
        follow(record, tmp_path / run, run, "front")
    found = [one for one in server.committed("model") if one.collection == "smoke"]
    assert [(one.logged_by, one.metadata["params"]) for one in found] == [("a", 800), ("c", 700)]
    assert all(one.logged_by in one.aliases for one in found)
    assert server.runs["a"].attributes["groupName"] == "smoke"


@pytest.mark.parametrize(("artifacts", "uploaded"), [("all", 1), ("none", 0)])
def test_an_agent_uploads_all_networks_or_none(
    tmp_path: Path, server: FakeWandb, sweep: None, artifacts: str, uploaded: int
) -> None:
    record = replace(study(with_networks(trial(0), tmp_path)), name="smoke-a")
    follow(record, tmp_path / "runs", "a", artifacts)
    assert len([one for one in server.committed("model") if one.collection == "smoke"]) == uploaded


@pytest.mark.parametrize("stopped", [True, False])
def test_a_run_that_was_stopped_is_not_handed_out_again(
    tmp_path: Path, server: FakeWandb, sweep: None, stopped: bool
) -> None:
    record = study(trial(0, 2, False, 0))
    follow(record, tmp_path / "runs", "a", "none")  # as after an interruption
    server.runs["a"].preempting, server.runs["a"].stopped = False, stopped
    follow(record, tmp_path / "runs", "a", "none")
    assert server.runs["a"].preempting is not stopped
    assert server.runs["a"].summary["state"] == ("stopped" if stopped else "running")


@pytest.mark.slow  # an agent and three runs of the command line, if on stages that take no time
def test_an_agent_runs_a_trial_shares_stages_and_goes_on(
    tmp_path: Path, command: Command, server: FakeWandb
) -> None:
    runs = tmp_path / "runs"
    process = swift(runs, "--wandb", "disabled")
    assert (process.communicate(timeout=PATIENCE)[1], process.returncode) == ("", 0)
    trained = sorted(runs.glob("stages/sparse/*/result.json"))
    status, _, err = command("wandb-sweep", "smoke", "--runs", runs)
    assert status == 0, err
    (sweep,) = server.sweeps
    assert sweep["command"][2:5] == ["-m", "sweeps", "wandb-trial"]
    sweep["command"][2:4] = ["-c", IMPATIENT + "import swift; swift.main()"]

    server.give_out("abc", POINT)
    server.give_out("abc", POINT)  # as after a preemption
    agent(tmp_path)

    run = server.runs["abc"]
    assert run.steps() == list(range(ROWS))
    assert run.opened > 1
    assert run.exit_code == 0
    assert run.summary["state"] == "complete"
    assert run.summary["params"] > 0
    assert run.attributes["groupName"] == "smoke"
    assert run.attributes["displayName"] == "λ 0.005 · ratio 0.5"
    assert run.attributes["sweep"] == "sweep1"
    assert sorted(runs.glob("stages/sparse/*/result.json")) == trained
    front = json.loads((runs / "smoke-abc" / "pareto.json").read_text())["front"]
    assert [row["ratio"] for row in front] == [0.5]


# An agent and a run of the command line, which must be under way when it is stopped.
@pytest.mark.slow
def test_a_run_that_hyperband_stops_ends_after_its_epoch_and_is_told_as_stopped(
    tmp_path: Path, command: Command, server: FakeWandb
) -> None:
    runs = tmp_path / "runs"
    single = ("search.objectives={val_accuracy: maximize}", "search.stopping=0", "finetune.epochs=1000")
    overrides = [word for one in single for word in ("--set", one)]
    status, _, err = command("wandb-sweep", "smoke", *overrides, "--runs", runs)
    assert status == 0, err
    (sweep,) = server.sweeps
    assert sweep["early_terminate"] == {"type": "hyperband", "min_iter": 250, "eta": 3}
    sweep["early_terminate"]["min_iter"] = 1
    sweep["command"][2:4] = ["-c", IMPATIENT + "from sweeps.__main__ import main; main()"]
    server.runs["best"] = ServerRun("best", "me/slimnet", history=[{"val_accuracy": 1.0}])

    server.give_out("worse", POINT)
    agent(tmp_path)

    run = server.runs["worse"]
    assert (run.summary["state"], run.exit_code, run.preempting) == ("stopped", 0, False)
    assert ROWS <= len(run.history) < 1000
    assert run.summary["val_accuracy"] == run.history[-1]["val_accuracy"]
    assert [row["val_accuracy"] for row in run.history if "val_accuracy" in row] == [
        row["finetune/val_accuracy"] for row in run.history if "finetune/val_accuracy" in row
    ]
