"""The command `check`, and the look that a run begins with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from running import Command, Sweep

from benchmarks import instant
from sweeps.executors.inline import InlineExecutor
from sweeps.executors.reporting import Compute


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions are answered in this process, which has torch."""
    monkeypatch.setattr("sweeps.executors.processes.ask", lambda question, *arguments: question(*arguments))
    monkeypatch.setattr("sweeps.executors.processes.warm_up", lambda: None)


@pytest.fixture
def instantly(monkeypatch: pytest.MonkeyPatch) -> None:
    compute: Compute = instant.compute
    monkeypatch.setattr("sweeps.executors.local.LocalExecutor", lambda *given: InlineExecutor(compute, 2))


def test_what_a_study_is_made_of_is_shown_and_nothing_is_written(tmp_path: Path, command: Command) -> None:
    status, out, err = command("check", "smoke", "--runs", tmp_path / "runs", "--workers", 2)
    assert (status, err) == (0, "")
    for part in (
        "data: fashion-mini, 10 classes, images of 7x7 in 1 channel",
        "train: 4,000 images, 400 per class",
        "network: resnet, 8,066 parameters, 171,720 MACs per image, 10 outputs",
        "stages.0.0.conv1 to stages.0.0.conv2 (2)",
        "it is the network's output",
        "48 of 162 channels can be pruned",
        "at prune.ratio 0.9: ",
        "2 workers with ",
        "a training step: ",
        "sweep: 3 trials, at most 10 epochs left with all controls and seeds: about ",
    ):
        assert part in out, part
    assert list(tmp_path.iterdir()) == []


def test_the_same_facts_as_json_with_the_warnings(tmp_path: Path, command: Command) -> None:
    options = ("--runs", tmp_path / "runs", "--set", "sparse.batch_size=5000", "--json")
    status, out, err = command("check", "smoke", *options)
    facts = json.loads(out)
    assert (status, err, facts["study"]) == (0, "", "smoke")
    assert facts["network"]["params"] == 8066
    assert facts["network"]["groups"][0]["name"] == "conv1"
    assert facts["data"]["train"] == [400] * 10
    assert facts["machine"]["kind"] in ("cpu", "cuda", "mps", "xpu")
    assert facts["seconds"] > 0
    whole, few = facts["warnings"]
    assert whole.startswith("sparse.batch_size is 5000")
    assert few.startswith("BatchNorm moves its running statistics by 0.1 at a step, so that after 3 steps")
    assert list(tmp_path.iterdir()) == []


def test_warnings_go_to_stderr_and_are_no_failure(tmp_path: Path, command: Command) -> None:
    status, _, err = command("check", "smoke", "--runs", tmp_path, "--set", "prune.min_channels=64")
    assert status == 0
    assert err.startswith("Warning: prune.min_channels is 64, and no layer")


@pytest.mark.parametrize("name", ["check", "run"])
def test_a_study_that_cannot_run_is_one_message_and_nothing_is_written(
    name: str, tmp_path: Path, command: Command
) -> None:
    status, out, err = command(name, "smoke", "--runs", tmp_path / "runs", "--set", "prune.keep=[nolayer]")
    assert (status, out) == (2, "")
    (message,) = err.splitlines()
    assert message.startswith("Error: no trial could prune this network: at prune.ratio 0.3, ")
    assert list(tmp_path.iterdir()) == []


def test_a_new_study_is_looked_at_and_one_that_has_begun_is_not_again(
    sweep: Sweep, command: Command, instantly: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def ask(question: Callable[..., object], *arguments: object) -> object:
        asked.append(question.__name__)
        return question(*arguments)

    monkeypatch.setattr("sweeps.executors.processes.ask", ask)
    run = ("run", "smoke", "--runs", sweep.runs, "--wandb", "disabled")
    status, out, err = command(*run, "--set", "sparse.batch_size=5000")
    assert (status, asked) == (0, ["examine"])
    assert "network: resnet, 8,066 parameters, 171,720 MACs; 48 of 162 channels can be pruned; about " in out
    assert err.startswith("Warning: sparse.batch_size is 5000")

    asked.clear()
    status, out, err = command(*run, "--set", "sparse.batch_size=5000")
    assert (status, asked, err) == (0, [], "")
    assert "nothing left to compute" in out

    status, out, _ = command(*run, "--set", "sparse.batch_size=5000", "--trials", 5)
    assert (status, asked) == (0, ["prepare"])
    assert "5 of 5 trials complete" in out

    status, out, _ = command(
        "check", "smoke", "--runs", sweep.runs, "--set", "sparse.batch_size=5000", "--trials", 5
    )
    assert (status, "sweep: 5 trials (5 of them sampled), at most 0 epochs left" in out) == (0, True)
