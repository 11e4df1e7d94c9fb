"""A config whose fields are written in another order is the same config."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from running import Command

from benchmarks import instant
from sweeps.executors.inline import InlineExecutor

FIELDS = {
    "sparse.lambda": "{log: [0.001, 0.008], steps: 8}",
    "prune.ratio": "{range: [0.2, 0.8], step: 0.05}",
}
OBJECTIVES = {"val_accuracy": "maximize", "params": "minimize"}


def written(entries: dict[str, str], *, backwards: bool) -> str:
    chosen = list(entries.items())[::-1] if backwards else entries.items()
    return "{" + ", ".join(f"{key}: {value}" for key, value in chosen) + "}"


@pytest.mark.parametrize(("sampler", "lost"), [("tpe", "study.db"), ("nsga2", "nothing")])
def test_points_and_values_do_not_depend_on_the_order_of_fields_and_objectives(
    sampler: str, lost: str, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "sweeps.executors.local.LocalExecutor", lambda *given: InlineExecutor(instant.compute, 2)
    )
    monkeypatch.setattr("sweeps.executors.processes.ask", lambda question, *args: question(*args))

    def run(runs: Path, trials: int, *, backwards: bool) -> None:
        overrides = [
            f"search.space={written(FIELDS, backwards=backwards)}",
            f"search.objectives={written(OBJECTIVES, backwards=backwards)}",
            f"search.sampler={sampler}",
            "curves=false",
        ]
        options = [part for override in overrides for part in ("--set", override)]
        status, _, err = command(
            "run", "smoke", "--runs", runs, "--wandb", "disabled", "--trials", trials, *options
        )
        assert (status, err) == (0, "")

    halves, whole = tmp_path / "halves", tmp_path / "whole"
    run(halves, 8, backwards=False)
    if lost != "nothing":
        os.unlink(halves / "smoke" / lost)
    run(halves, 14, backwards=True)
    run(whole, 14, backwards=False)
    for name in ("trials.jsonl", "pareto.json"):
        assert (halves / "smoke" / name).read_bytes() == (whole / "smoke" / name).read_bytes()
