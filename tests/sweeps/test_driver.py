"""Sweeps in processes of their own: going on, being interrupted, failing, and sharing stages."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from running import PATIENCE, Command, Sweep, children, wait_until_gone

pytestmark = pytest.mark.slow  # whole sweeps, each of which imports torch in two processes

LONG = ("--set", "sparse.epochs=400", "--set", "sparse.batch_size=8")  # minutes, unless it is interrupted
SOME = ("--set", "sparse.epochs=5")


def trials(sweep: Sweep, command: Command) -> list[dict[str, Any]]:
    status, out, err = command("status", "smoke", "--runs", sweep.runs, "--json")
    assert status == 0, err
    rows: list[dict[str, Any]] = json.loads(out)["trials"]
    return rows


# Going on


def test_a_sweep_that_reached_its_goal_says_so_and_computes_nothing(finished: Sweep) -> None:
    before, table = finished.log(), finished.pareto()
    result = finished.run()
    assert result.returncode == 0
    assert "the goal is reached" in result.stdout
    assert finished.log() == before
    assert finished.pareto() == table


def test_a_study_is_rebuilt_from_its_stages_and_more_trials_follow(
    finished: Sweep, tmp_path: Path, command: Command
) -> None:
    shutil.copytree(finished.runs, tmp_path / "runs")
    sweep = Sweep(tmp_path / "runs")
    (sweep.folder / "study.db").unlink()
    status, _, err = command("status", "smoke", "--runs", sweep.runs)
    assert status == 2
    assert "the next `run` rebuilds it" in err
    assert not (sweep.folder / "study.db").exists()

    assert sweep.run("--trials", "5").returncode == 0

    after = trials(sweep, command)
    assert after[:3] == trials(finished, command)
    assert [row["trial"] for row in after] == [0, 1, 2, 3, 4]
    assert len(sweep.epochs()) == len(set(sweep.epochs())) == len(finished.epochs()) + 2


# Interruptions


def test_ctrl_c_ends_the_epochs_in_hand_and_the_same_command_goes_on(sweep: Sweep) -> None:
    process = sweep.start(*SOME)
    sweep.wait_for_epochs(1, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)

    assert (process.returncode, err) == (130, "")
    last = out.splitlines()[-1]
    assert last.startswith("interrupted with 0 of 3 trials complete")
    assert last.endswith(f"-m sweeps run smoke --runs {sweep.runs} --wandb disabled {' '.join(SOME)}")
    assert any(line.endswith("stopped ") for line in sweep.log())
    epochs = sweep.epochs()

    assert sweep.run(*SOME).returncode == 0
    assert sweep.epochs()[: len(epochs)] == epochs
    assert len(sweep.epochs()) == len(set(sweep.epochs())) == 3 * 5 + 3


def test_a_second_driver_is_told_who_has_the_study_and_sigterm_ends_the_first(
    sweep: Sweep, command: Command
) -> None:
    process = sweep.start(*LONG)
    sweep.wait_for_epochs(1, process)
    for arguments in (("run", "smoke", "--wandb", "disabled", *LONG), ("retry", "smoke")):
        status, out, err = command(*arguments, "--runs", sweep.runs)
        assert (status, out) == (3, "")
        assert err.startswith(f"Error: smoke is being run by process {process.pid} on ")
    assert process.poll() is None

    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (143, "")
    assert "Go on with: " in out.splitlines()[-1]


def test_a_hangup_fails_nothing_and_a_second_signal_stops_at_once(sweep: Sweep) -> None:
    process = sweep.start(*LONG, "--set", "sparse.batch_size=2", start_new_session=True)
    sweep.wait_for_epochs(1, process)
    workers = children(process)
    os.killpg(process.pid, signal.SIGHUP)
    time.sleep(0.5)
    assert process.poll() is None  # an epoch of 2,000 steps takes longer
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (128 + signal.SIGHUP, "")
    assert "Go on with: " in out.splitlines()[-1]
    assert not any("failed" in line for line in sweep.log())
    wait_until_gone(workers)


@pytest.mark.parametrize("seconds", [0.3, 1.5])
def test_a_signal_while_it_starts_leaves_no_traceback(sweep: Sweep, seconds: float) -> None:
    process = sweep.start()
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert "Traceback" not in err
    if process.returncode != -signal.SIGINT:  # that is how a process ends before Python runs its first line
        assert process.returncode == 130
        assert "Go on with: " in (out + err).splitlines()[-1]


# Two at a time


def test_studies_share_stages_while_both_run(sweep: Sweep) -> None:
    names = ("one", "two")
    pair = [sweep.start("--set", f"study={name}", core=core) for core, name in enumerate(names)]
    for process in pair:
        out, err = process.communicate(timeout=PATIENCE)
        assert (process.returncode, err) == (0, "")
        assert f"status {sweep.runs}/" in out  # the config's name would find the study smoke
    epochs = sweep.epochs("one") + sweep.epochs("two")
    assert len(epochs) == len(set(epochs)) == 3 * 2 + 3
    tables = [json.loads((sweep.runs / name / "pareto.json").read_text()) for name in names]
    assert tables[0]["front"] == tables[1]["front"]


# Failures


def test_divergence_fails_a_trial_with_its_reason_and_the_sweep_goes_on(
    sweep: Sweep, command: Command
) -> None:
    space = "search.space={sparse.lr: [0.1, 1.0e+20], prune.ratio: [0.5]}"
    options = ("--set", space, "--set", "sparse.lambda=0.01", "--set", "sparse.lr=1.0e+20", "--trials", "2")
    result = sweep.run(*options)

    assert result.returncode == 1
    rows = {row["sparse.lr"]: row for row in trials(sweep, command)}
    assert rows[0.1]["state"] == "complete"
    assert rows[1e20]["state"] == "failed"
    assert "learning rate" in rows[1e20]["reason"]
    number = rows[1e20]["trial"]
    assert f"trial {number} failed: sparse: the loss became nan" in result.stderr
    assert "the dense baseline failed: the loss became nan" in result.stderr
    assert f"-m sweeps retry smoke --runs {sweep.runs}" in result.stderr
    assert sweep.pareto()["trials"] == 1
    assert sweep.pareto()["dense"] is None

    status, out, _ = command("retry", "smoke", "--runs", sweep.runs)
    assert (status, f"trials to run again: {number};" in out) == (0, True)
    assert sweep.run(*options).returncode == 1
    assert len([line for line in sweep.log() if " failed " in line]) == 4  # both were tried again


def test_a_killed_worker_fails_its_trials_which_go_on_when_tried_again(
    sweep: Sweep, command: Command
) -> None:
    process = sweep.start(*SOME, core=0)
    sweep.wait_for_epochs(6, process)  # the dense network is done; the first trial's training has begun
    os.kill(children(process)[-1], signal.SIGKILL)
    _, err = process.communicate(timeout=PATIENCE)

    assert process.returncode == 1
    before = trials(sweep, command)
    failed = [row["trial"] for row in before if row["state"] == "failed"]
    assert failed
    for number in failed:
        assert "killed by SIGKILL" in before[number]["reason"]
        assert f"trial {number} failed" in err
    done = sweep.epochs()

    status, out, _ = command("retry", "smoke", failed[0], "--runs", sweep.runs)
    assert (status, f"again: {', '.join(map(str, failed))};" in out) == (0, True)  # all that shared the stage
    assert sweep.run(*SOME).returncode == 0
    after = trials(sweep, command)
    assert [row["prune.ratio"] for row in after] == [row["prune.ratio"] for row in before]
    assert {row["state"] for row in after} == {"complete"}
    assert sweep.epochs()[: len(done)] == done
    assert len(sweep.epochs()) == len(set(sweep.epochs()))  # it went on from its checkpoint


def test_what_cannot_be_written_midway_ends_the_sweep_with_one_message(sweep: Sweep) -> None:
    (sweep.runs / "stages").mkdir(parents=True)
    (sweep.runs / "stages" / "prune").write_text("in the way")
    process = sweep.start()
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    (message,) = err.splitlines()
    assert str(sweep.runs / "stages" / "prune") in message


def test_a_stage_damaged_midway_ends_the_sweep_and_its_workers(sweep: Sweep) -> None:
    process = sweep.start(*LONG)
    sweep.wait_for_epochs(1, process)
    workers = children(process)
    path = next((sweep.runs / "stages" / "sparse").iterdir())
    (path / "failure.json").write_text("{")
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    assert f"delete the folder {path}" in err
    wait_until_gone(workers)
