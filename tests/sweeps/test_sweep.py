"""Whole sweeps of real stages: going on, being interrupted, failing, and sharing stages."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from running import PATIENCE, ROOT, Command, Sweep, children, gated, swift, wait_until, wait_until_gone

LONG = ("--set", "sparse.epochs=4000")  # minutes, unless it is interrupted
SOME = ("--set", "sparse.epochs=4", "--set", "latency=false")


def trials(sweep: Sweep, command: Command) -> list[dict[str, Any]]:
    status, out, err = command("status", "smoke", "--runs", sweep.runs, "--json")
    assert status == 0, err
    rows: list[dict[str, Any]] = json.loads(out)["trials"]
    return rows


def run(sweep: Sweep, command: Command, *options: str) -> tuple[int, str, str]:
    """A run in this process, whose workers start sooner than those of a process of its own."""
    return command("run", "smoke", "--runs", sweep.runs, "--wandb", "disabled", *options)


# Interruptions


@pytest.mark.slow  # two sweeps in processes of their own, one of which imports torch
def test_ctrl_c_ends_the_epochs_in_hand_and_the_same_command_goes_on(sweep: Sweep) -> None:
    process = sweep.start(*SOME, anew=True)
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
    assert len(sweep.epochs()) == len(set(sweep.epochs())) == 2 * 4 + (4 + 1) + 3


@pytest.mark.slow  # a sweep in a process of its own
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


@pytest.mark.slow  # a sweep in a process of its own
def test_a_hangup_fails_nothing_and_a_second_signal_stops_at_once(sweep: Sweep) -> None:
    epoch = ("--set", "sparse.batch_size=2", "--set", "data.image_size=28")  # of half a minute and more
    process = sweep.start(*LONG, *epoch)
    assert process.stdout is not None
    wait_until(lambda: bool(sweep.log()))
    workers = children(process)
    os.killpg(process.pid, signal.SIGHUP)
    while "stopping after the current epochs" not in process.stdout.readline():
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (128 + signal.SIGHUP, "")
    assert "Go on with: " in out.splitlines()[-1]
    assert not any("failed" in line for line in sweep.log())
    wait_until_gone(workers)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT])
def test_a_batch_schedulers_warning_ends_the_epochs_in_hand(
    number: signal.Signals, sweep: Sweep, command: Command
) -> None:
    """On stages that take no time, but wait until they may go on."""
    at = ("smoke", "--runs", sweep.runs)
    with gated(sweep.runs):
        process = swift(sweep.runs, "--wandb", "disabled")
        sweep.wait_for_epochs(1, process)
        assert "waiting" in command("status", *at)[1]
        wait_until(lambda: "running" in command("status", *at)[1])
        process.send_signal(number)
        assert process.stdout is not None
        while "stopping after the current epochs" not in process.stdout.readline():
            assert process.poll() is None
    _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (128 + number, "")
    status, out, _ = command("status", *at)
    assert (status, "running" in out, "interrupted" in out) == (0, False, True)


# Outputs that go away


def test_a_sweep_outlives_the_reader_of_its_output(tmp_path: Path) -> None:
    process = swift(tmp_path / "runs", "--wandb", "disabled")
    assert process.stdout is not None
    assert process.stdout.readline().startswith("study smoke")
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert err.startswith("the output is lost (Broken pipe); the sweep goes on")
    assert err.count("\n") == 1
    log = (tmp_path / "runs" / "smoke" / "driver.log").read_text()
    assert "the output is lost" in log
    assert (tmp_path / "runs" / "smoke" / "report" / "index.html").exists()


@pytest.mark.parametrize("name", ["status", "pareto", "plan"])
def test_what_only_shows_ends_as_other_tools_do_without_a_reader(finished: Sweep, name: str) -> None:
    command = [sys.executable, "-m", "sweeps", name, "smoke", "--runs", str(finished.runs)]
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (-signal.SIGPIPE, "")
    if Path("/dev/full").exists():
        with open("/dev/full", "wb") as full:
            ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT)
        assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
        assert "Error: the output cannot be written (No space left on device)" in ended.stderr


@pytest.mark.slow  # a sweep in a process of its own
def test_a_closed_terminal_ends_the_epochs_in_hand(sweep: Sweep) -> None:
    ours, theirs = pty.openpty()
    process = sweep.start(*LONG, terminal=theirs)
    os.close(theirs)
    while not sweep.epochs() and process.poll() is None:
        if select.select([ours], [], [], 0.1)[0]:
            os.read(ours, 10_000)
    os.close(ours)
    assert process.wait(PATIENCE) == 128 + signal.SIGHUP
    assert any(line.endswith("stopped ") for line in sweep.log())


def has_begun(process: subprocess.Popen[str]) -> bool:
    """Whether the program has run its first lines; signals that come before are Python's to answer."""
    caught = subprocess.run(
        ["ps", "-o", "caught=", "-p", str(process.pid)], capture_output=True, text=True
    ).stdout
    return bool(int(caught.strip() or "0", 16) >> (signal.SIGTERM - 1) & 1)


def loads_torch(process: subprocess.Popen[str]) -> bool:
    """Whether the server that loads it has been started."""
    return len(children(process)) > 1


@pytest.mark.parametrize("moment", [has_begun, loads_torch])
def test_a_signal_while_it_starts_leaves_no_traceback(
    sweep: Sweep, moment: Callable[[subprocess.Popen[str]], bool]
) -> None:
    process = sweep.start(anew=True)
    wait_until(lambda: moment(process))
    started = children(process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    wait_until_gone(started)
    assert "Traceback" not in err
    assert process.returncode == 130
    assert "Go on with: " in (out + err).splitlines()[-1]


# Two at a time


@pytest.mark.slow  # two sweeps at the same time
def test_studies_share_stages_while_both_run(sweep: Sweep) -> None:
    names = ("one", "two")
    pair = [sweep.start("--set", f"study={name}", core=core) for core, name in enumerate(names)]
    for process in pair:
        out, err = process.communicate(timeout=PATIENCE)
        assert (process.returncode, err) == (0, "")
        assert f"status {sweep.runs}/" in out  # the config's name would find the study smoke
    epochs = sweep.epochs("one") + sweep.epochs("two")
    assert len(epochs) == len(set(epochs)) == 2 * 2 + (2 + 1) + 3
    tables = [json.loads((sweep.runs / name / "pareto.json").read_text()) for name in names]
    assert tables[0]["front"] == tables[1]["front"]


# Failures


def test_divergence_fails_a_trial_with_its_reason_and_the_sweep_goes_on(
    sweep: Sweep, command: Command
) -> None:
    space = "search.space={sparse.lr: [0.1, 1.0e+20], prune.ratio: [0.5]}"
    options = ("--set", space, "--set", "sparse.lambda=0.01", "--set", "sparse.lr=1.0e+20", "--trials", "2")
    status, _, err = run(sweep, command, *options)

    assert status == 1
    rows = {row["sparse.lr"]: row for row in trials(sweep, command)}
    assert rows[0.1]["state"] == "complete"
    assert rows[1e20]["state"] == "failed"
    assert "learning rate" in rows[1e20]["reason"]
    number = rows[1e20]["trial"]
    assert f"trial {number} failed: sparse: the loss became nan" in err
    assert "the dense baseline failed: the loss became nan" in err
    assert f"sweeps retry smoke --runs {sweep.runs}" in err
    assert sweep.pareto()["trials"] == 1
    assert sweep.pareto()["dense"] is None

    status, out, _ = command("retry", "smoke", "--runs", sweep.runs)
    assert (status, f"trials to run again: {number};" in out) == (0, True)
    assert "to run again: the dense baseline\n" in out
    assert run(sweep, command, *options)[0] == 1
    assert len([line for line in sweep.log() if " failed " in line]) == 4  # both were tried again


def test_a_killed_worker_is_replaced_and_its_stage_goes_on(sweep: Sweep) -> None:
    """On stages that take no time, but wait until they may go on."""
    with gated(sweep.runs):
        process = swift(sweep.runs, "--wandb", "disabled", *SOME)
        sweep.wait_for_epochs(1, process)
        os.kill(children(process)[-1], signal.SIGKILL)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (0, "")
    assert "its process was killed by SIGKILL; the system may have run out of memory; it goes on" in out
    whole = 2 * 4 + (4 + 1) + 3
    assert len(sweep.epochs()) == len(set(sweep.epochs())) >= whole - 1  # one may be saved and untold


CRASHING = """
import multiprocessing, os, signal
from slimnet.models import resnet

def network(num_classes, in_channels):
    if multiprocessing.current_process().name.startswith("finetune"):
        print("no such kernel")
        os.kill(os.getpid(), signal.SIGSEGV)
    return resnet([1], 8, num_classes=num_classes, in_channels=in_channels)
"""


@pytest.mark.slow  # each of two trials and the dense network in turn, some of them three times
def test_a_stage_that_crashes_again_and_again_fails_with_its_last_words(
    sweep: Sweep, command: Command, tmp_path: Path
) -> None:
    (tmp_path / "crashing.py").write_text(CRASHING)
    model = f"model={{factory: 'crashing:network', path: {tmp_path}}}"
    status, out, err = run(sweep, command, "--set", model, "--trials", "1")
    reason = "its process was killed by SIGSEGV (3 times)"
    assert status == 1
    assert "it goes on from its last epoch (retry 2 of 2)" in out
    assert f"trial 0 failed: finetune: {reason}\n" in err
    for words in ("    no such kernel\n", "    Fatal Python error: Segmentation fault\n", "in network\n"):
        assert words in err
    (failure,) = (sweep.runs / "stages" / "finetune").glob("*/failure.json")
    assert "no such kernel" in json.loads(failure.read_text())["detail"]
    (log,) = (sweep.folder / "workers").glob("finetune-*")
    assert log.read_text().startswith("no such kernel\n")

    status, out, _ = command("retry", "smoke", "--runs", sweep.runs)
    assert (status, "trials to run again: 0;" in out) == (0, True)


@pytest.mark.slow  # the seconds of a stall
def test_a_worker_that_is_stopped_is_ended_and_its_stage_goes_on(sweep: Sweep) -> None:
    """On stages that take no time, but wait until they may go on."""
    # Seconds, which a busy machine may take to start a worker too; that is then ended, and tried again.
    with gated(sweep.runs):
        patient = ("--set", "stall_minutes=0.1", "--set", "retries=1000")
        process = swift(sweep.runs, "--wandb", "disabled", *SOME, *patient)
        sweep.wait_for_epochs(1, process)
        os.kill(children(process)[-1], signal.SIGSTOP)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (0, "")
    assert "no progress for 6 s, so it was ended; it goes on from its last epoch (retry " in out
    assert len(sweep.epochs()) == len(set(sweep.epochs()))


def test_two_passes_from_the_command_line(sweep: Sweep, command: Command) -> None:
    status, out, _ = run(sweep, command, "--set", "passes=2", "--trials", "1")
    assert status == 0
    (row,) = trials(sweep, command)
    names = ("sparse", "prune", "finetune", "sparse-2", "prune-2", "finetune-2")
    assert [row[name] for name in names] == ["done"] * 6
    assert len(sweep.epochs()) == 2 * 2 * (2 + 1)  # and as many of the dense network
    assert "sparse-2" in out

    import slimnet

    path = out.partition('slimnet.load("')[2].partition('"')[0]
    assert slimnet.count_params(slimnet.load(path)) == sweep.pareto()["front"][0]["params"]


@pytest.mark.slow  # a trial with every control and two seeds: some fifteen stages
def test_all_controls_and_two_seeds_from_the_command_line(sweep: Sweep, command: Command) -> None:
    beside = ("controls={uniform: true, scratch: true, random: true}", "confirm={seeds: 2, points: 1}")
    quick = ("latency=false", "sparse.batch_size=200", "finetune.batch_size=200")
    options = [word for change in (*beside, *quick) for word in ("--set", change)]
    status, out, err = run(sweep, command, "--trials", "1", *options)
    assert (status, err) == (0, "")
    assert len(sweep.epochs()) == len(set(sweep.epochs()))

    table = sweep.pareto()
    assert [row["kind"] for row in table["controls"]] == ["uniform", "scratch", "random"]
    (number,) = {row["trial"] for row in table["controls"]}
    point = next(row for row in table["front"] if row["trial"] == number)
    uniform, scratch, random = table["controls"]
    assert 0.5 * point["params"] < uniform["params"] <= point["params"]
    for row in (scratch, random):  # of both seeds, whose penalties leave other channels
        assert row["params"] == pytest.approx(point["params"], rel=0.1)
    for row in (table["dense"], point, *table["controls"]):
        assert (row["epochs"], row["seeds"]) == (3, [0, 1])
        assert 0 < row["val_accuracy_se"] < 0.1
    accuracies = [row["val_accuracy_mean"] for row in (point, uniform, scratch, random)]
    assert len(set(accuracies)) == 4, "each of them is another network"

    import slimnet

    stages = sweep.runs / "stages"
    checkpoints = {path.parent.name: slimnet.load(path) for path in stages.glob("finetune/*/checkpoint.pt")}
    specs = {key: json.loads((stages / "finetune" / key / "spec.json").read_text()) for key in checkpoints}
    parents = {key: specs[key]["parent"] for key in specs}
    fresh = [key for key in specs if specs[key]["weights"] == "fresh"]
    assert len(fresh) == 2
    for key in fresh:
        (other,) = (one for one in specs if parents[one] == parents[key] and one != key)
        assert checkpoints[key].widths == checkpoints[other].widths
    assert "controls and repeats" in (sweep.folder / "report" / "index.html").read_text()
    assert "Simpler ways to networks of these sizes" in out


def test_what_cannot_be_written_midway_ends_the_sweep_with_one_message(
    sweep: Sweep, command: Command
) -> None:
    (sweep.runs / "stages").mkdir(parents=True)
    (sweep.runs / "stages" / "prune").write_text("in the way")
    status, _, err = run(sweep, command)
    assert status == 2
    (message,) = err.splitlines()
    assert str(sweep.runs / "stages" / "prune") in message
