"""A study as a W&B sweep."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml
from fake_wandb import FakeWandb
from running import Command

from slimnet.errors import SlimnetError
from sweeps.config import load_config
from sweeps.wandb_sweeps.definition import definition


def test_a_sweep_has_the_space_and_the_objectives() -> None:
    config = load_config(
        "smoke", ["search.space={sparse.lambda: {log: [0.001, 0.1]}, prune.ratio: [0.3, 0.5]}"]
    )
    sweep = definition(config, ["smoke"], scheduled=False)
    assert sweep["method"] == "random"
    assert sweep["parameters"] == {
        "sparse.lambda": {"distribution": "log_uniform_values", "min": 0.001, "max": 0.1},
        "prune.ratio": {"values": [0.3, 0.5]},
    }
    assert sweep["metrics"] == [
        {"name": "val_accuracy", "goal": "maximize"},
        {"name": "params", "goal": "minimize"},
    ]


@pytest.mark.parametrize(
    ("overrides", "method"),
    [
        (["search.sampler=grid"], "grid"),
        (["search.objectives={val_accuracy: maximize}", "search.sampler=tpe"], "bayes"),
        (["search.objectives={val_accuracy: maximize}"], "random"),
    ],
)
def test_the_search_that_comes_nearest(overrides: list[str], method: str) -> None:
    assert definition(load_config("smoke", overrides), ["smoke"], scheduled=False)["method"] == method


SINGLE = ["search.objectives={val_accuracy: maximize}", "search.stopping=0.001", "finetune.epochs=8"]


@pytest.mark.parametrize(
    ("overrides", "first"),
    [
        (SINGLE, 2),
        ([*SINGLE, "finetune.evaluate_every=4"], 1),
        ([*SINGLE, "finetune.evaluate_every=8"], None),
        ([*SINGLE, "search.stopping=null"], None),
        ([*SINGLE, "search.objectives={val_accuracy: maximize, params: minimize}"], None),
        ([*SINGLE, "search.objectives={params: minimize}"], None),
        ([*SINGLE, "search.space={finetune.epochs: [2, 4, 8]}"], None),
    ],
)
def test_w_and_b_stops_runs_where_it_can_judge_them(overrides: list[str], first: int | None) -> None:
    sweep = definition(load_config("smoke", overrides), ["smoke"], scheduled=False)
    rule = {"type": "hyperband", "min_iter": first, "eta": 3}
    assert sweep.get("early_terminate") == (rule if first else None)
    assert "early_terminate" not in definition(load_config("smoke", SINGLE), ["smoke"], scheduled=True)


def test_w_and_b_itself_cannot_choose_in_a_conditional_space() -> None:
    space = "search.space={sparse.penalty: [l1, proximal], sparse.lambda: {by: sparse.penalty, l1: [0.01]}}"
    config = load_config("smoke", [space, "search.trials=2"])
    with pytest.raises(SlimnetError, match="use --scheduler"):
        definition(config, ["smoke"], scheduled=False)
    assert definition(config, ["smoke"], scheduled=True)["parameters"]["sparse.lambda"] == {"values": [0.01]}


def test_the_command_makes_a_sweep_and_says_how_to_go_on(
    command: Command, server: FakeWandb, tmp_path: Path
) -> None:
    status, out, err = command("wandb-sweep", "smoke", "--scheduler", "--runs", tmp_path / "runs")
    assert status == 0, err
    lines = [line.split(":  ")[-1].strip() for line in out.splitlines()]
    assert lines[0].endswith("/me/slimnet/sweeps/sweep1")
    assert lines[1].endswith("wandb sweep-scheduler me/slimnet/sweep1")
    assert lines[2].endswith("wandb agent me/slimnet/sweep1")
    (sweep,) = server.sweeps
    assert sweep["command"] == [
        sys.executable, "-P", "-m", "sweeps", "wandb-trial", "smoke", "--runs", str(tmp_path / "runs"),
    ]  # fmt: skip
    assert Path(sweep["scheduler"]["source"]).is_file()


def test_its_yaml_can_be_printed_for_the_page(command: Command) -> None:
    status, out, _ = command("wandb-sweep", "smoke", "--print")
    assert status == 0
    assert yaml.safe_load(out)["parameters"]["prune.ratio"] == {"values": [0.3, 0.5, 0.7, 0.9]}


def test_without_a_key_it_is_said_what_to_do(command: Command) -> None:
    status, _, err = command("wandb-sweep", "smoke")
    assert status == 2
    assert "wandb login, or in WANDB_API_KEY, or use --print" in " ".join(err.split())


def test_a_trial_outside_of_an_agent_is_refused(command: Command, tmp_path: Path) -> None:
    status, _, err = command("wandb-trial", "smoke", "--runs", tmp_path / "runs")
    assert status == 2
    assert "sweeps wandb-sweep CONFIG" in " ".join(err.split())
    assert not (tmp_path / "runs").exists()
