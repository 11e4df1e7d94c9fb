"""The batch scripts of docs/slurm, run by SLURM itself."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from running import PATIENCE, ROOT, swift, wait_until
from slurm import Slurm, running_slurm

OPTIONS = ("--wandb", "disabled", "--set", "curves=false")
PYTHON = """#!/bin/sh
shift 2
for last; do :; done
case $last in executor.address=*) export SWIFT_RAY="${last#executor.address=}" ;; esac
exec %s -c "import swift; swift.main()" "$@"
"""
"""Runs `-m sweeps …` with stages that take no time, here or on the cluster that is named last."""


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    with running_slurm() as slurm:
        yield slurm


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The front of an undisturbed sweep."""
    runs = tmp_path_factory.mktemp("undisturbed")
    out, err = swift(runs, *OPTIONS).communicate(timeout=PATIENCE)
    assert err == "", out
    return (runs / "smoke" / "pareto.json").read_bytes()


@pytest.mark.slow  # SLURM lets a job wait for seconds before it starts it again, and Ray takes some to start
@pytest.mark.parametrize(("script", "count"), [("one-node", 1), ("ray", 2)])
def test_a_preempted_sweep_is_queued_again_and_ends_as_an_undisturbed_one(
    script: str, count: int, slurm: Slurm, expected: bytes, tmp_path: Path
) -> None:
    if script == "ray" and find_spec("ray") is None:
        pytest.skip("ray is not installed: pip install 'slimnet[ray]'")
    programs, folder, gate = tmp_path / "bin", tmp_path / "runs" / "smoke", tmp_path / "runs" / "gate"
    programs.mkdir()
    (programs / "python").write_text(PYTHON % sys.executable)
    (programs / "python").chmod(0o755)
    (programs / "ray").symlink_to(Path(sys.executable).with_name("ray"))
    gate.parent.mkdir()
    gate.touch()

    sweep = slurm.submit(
        *("--partition=spare", f"--nodes={count}", "--cpus-per-task=1"),
        *(ROOT / "docs" / "slurm" / f"{script}.sbatch", "smoke", *OPTIONS),
        cwd=tmp_path,
        PYTHON=str(programs / "python"),
        PYTHONPATH=os.pathsep.join((str(ROOT / "tests" / "sweeps"), str(ROOT))),
        RAY_AUTH_TOKEN="of-the-tests-of-slimnet",
    )
    log, said = folder / "driver.log", tmp_path / f"sweep-{sweep}.log"
    wait_until(lambda: log.exists() and " epoch " in log.read_text())
    urgent = slurm.submit(
        "--partition=urgent", "--nodes=2", "--output=urgent.log", "--wrap=true", cwd=tmp_path
    )
    wait_until(lambda: "stopping after the current epochs" in said.read_text())
    gate.unlink()
    wait_until(lambda: slurm.state(urgent) == slurm.state(sweep) == "")

    assert said.read_text().count("study smoke: 3 trials, ") == 2, "once for each turn"
    assert said.read_text().count("Go on with: ") == 1
    assert "3 of 3 trials complete: the goal is reached" in said.read_text()
    assert (folder / "pareto.json").read_bytes() == expected
