"""watch: a run as another process sees it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from running import CORE, PATIENCE, ROOT, Command, Sweep, gated, swift, wait_until
from terminals import use_terminal

from sweeps import claim
from sweeps.config import load_config
from sweeps.progress import ProgressFile
from sweeps.study import hold, keep_config


def test_watching_a_run_until_it_ends(
    sweep: Sweep, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = sweep.start(core=CORE)
    wait_until(lambda: (sweep.folder / "progress.json").exists() or process.poll() is not None)
    with monkeypatch.context() as patch:
        terminal = use_terminal(patch, 100)
        status, _, err = command("watch", "smoke", "--runs", sweep.runs)
    assert (status, err) == (0, "")
    assert re.search(r"[012] of 3 trials +\d+ of \d+ epochs", terminal.text)
    assert re.search(r"trial +stage +epoch", terminal.text)
    assert re.search(r"(dense|0|1|2) +(sparse|prune|finetune) +\d", terminal.text)
    assert "the run has ended: 3 of 3 trials complete" in terminal.text
    assert process.wait(PATIENCE) == 0
    assert not (sweep.folder / "progress.json").exists()


def test_the_end_of_watching_is_not_that_of_the_run(sweep: Sweep) -> None:
    """The stages take no time, but wait until nobody watches any more."""
    with gated(sweep.runs):
        process = swift(sweep.runs, "--wandb", "disabled")
        wait_until(lambda: (sweep.folder / "progress.json").exists() or process.poll() is not None)
        seen = ProgressFile(sweep.folder).read(since=0.0)
        assert seen is not None
        assert seen.objectives == ["val_accuracy", "params"]  # columns that a narrow display keeps
        watching = subprocess.Popen(
            [sys.executable, "-m", "sweeps", "watch", "smoke", "--runs", str(sweep.runs)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert watching.stdout is not None
        first = watching.stdout.readline()  # it is watching now
        assert re.match(r"\d\d:\d\d:\d\d \d of 3 trials, \d+ of \d+ epochs", first)
        os.kill(watching.pid, signal.SIGINT)
        out, _ = watching.communicate(timeout=PATIENCE)
    assert watching.returncode == 0
    assert "the run goes on; watch it again with: " in out
    assert process.wait(PATIENCE) == 0


def test_watching_ends_when_the_machine_of_the_run_is_dead(
    sweep: Sweep, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_config(sweep.folder, load_config("smoke"))
    (sweep.folder / "study.json").write_text('{"uid": "abc", "precision": "float32", "data": "1"}')
    (sweep.folder / "driver.json").write_text("{}")
    (sweep.folder / "driver.lease").write_text('{"machine": "node7-12345678", "owner": "other", "beats": 0}')
    monkeypatch.setattr(claim, "EXPIRY", 0.1)
    status, out, _ = command("watch", "smoke", "--runs", sweep.runs)
    assert (status, out.splitlines()[0]) == (0, "the run has ended: 0 of 3 trials complete")
    assert out.splitlines()[1].startswith("go on with:  ")


def test_a_study_that_nothing_runs(finished: Sweep, command: Command, tmp_path: Path) -> None:
    status, out, _ = command("watch", "smoke", "--runs", finished.runs)
    first, second = out.splitlines()
    assert (status, first) == (0, "study smoke is not being run: 3 of 3 trials complete")
    assert second.startswith("every trial: ")

    folder = tmp_path / "runs" / "smoke"
    keep_config(folder, load_config("smoke"))
    (folder / "study.json").write_text('{"uid": "abc", "precision": "float32", "data": "1"}')
    status, out, err = command("watch", "smoke", "--runs", tmp_path / "runs", "--data-dir", tmp_path)
    first, second, third = out.splitlines()
    assert (status, first) == (0, "study smoke is not being run: 0 of 3 trials complete"), err
    assert second.startswith("run it with: ")
    assert second.endswith(f"--data-dir {tmp_path}")
    assert third.startswith("every trial: ")


def test_what_an_earlier_run_left_is_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "study" / "progress.json"
    file.parent.mkdir()
    fields = ("trials_done", "trials_failed", "goal", "epochs_done", "epochs_total", "front_size")
    content: dict[str, Any] = {**dict.fromkeys(fields, 1), "seconds_left": None, "running": [], "front": []}
    file.write_text(json.dumps(content))
    found = ProgressFile(file.parent).read(since=0.0)
    assert found is not None
    assert found.goal == 1
    os.utime(file, (time.time() - 100,) * 2)
    with hold(file.parent):
        since = (file.parent / "driver.json").stat().st_mtime
        assert ProgressFile(file.parent).read(since) is None
    for damaged in ("{", "{}", "[]", json.dumps({**content, "running": [{}]})):
        file.write_text(damaged)
        assert ProgressFile(file.parent).read(since=0.0) is None
