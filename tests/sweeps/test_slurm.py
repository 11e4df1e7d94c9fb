"""The batch scripts of docs/slurm, run by SLURM itself."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from running import PATIENCE, ROOT, swift, wait_until
from slurm import running_slurm

SCRIPT = ROOT / "docs" / "slurm" / "one-node.sbatch"
OPTIONS = ("--wandb", "disabled", "--set", "curves=false")


@pytest.mark.slow  # SLURM waits some seconds before it starts a job again
def test_a_preempted_sweep_is_queued_again_and_ends_with_the_front_of_an_undisturbed_one(
    tmp_path: Path,
) -> None:
    with running_slurm() as slurm:
        undisturbed = swift(tmp_path / "undisturbed", *OPTIONS)
        python, second = (
            tmp_path / "python",
            tmp_path / "second",
        )  # whose stages take no time once `second` exists
        python.write_text(f'#!/bin/sh\nshift 2\nexec {sys.executable} -c "import swift; swift.main()" "$@"\n')
        python.chmod(0o755)
        path = os.pathsep.join((str(ROOT / "tests" / "sweeps"), str(ROOT)))
        sweep = slurm.submit(
            *("--partition=spare", "--cpus-per-task=1", SCRIPT, "smoke", *OPTIONS),
            cwd=tmp_path,
            PYTHON=str(python),
            PYTHONPATH=path,
            SWIFT_PAUSE=str(second),
        )
        folder = tmp_path / "runs" / "smoke"
        log = folder / "driver.log"
        wait_until(lambda: log.exists() and " epoch " in log.read_text())
        urgent = slurm.submit("--partition=urgent", "--output=urgent.log", "--wrap=true", cwd=tmp_path)
        wait_until(lambda: slurm.state(urgent) == "" and "PENDING" in slurm.state(sweep))
        assert not (folder / "pareto.json").exists() or "complete" not in (folder / "pareto.json").read_text()
        second.touch()
        wait_until(lambda: slurm.state(sweep) == "")

        said = (tmp_path / f"sweep-{sweep}.log").read_text()
        assert "stopping after the current epochs" in said
        assert "Go on with: " in said
        assert said.count("study smoke: 3 trials, ") == 2, "in one log"
        assert "3 of 3 trials complete: the goal is reached" in said
        undisturbed.communicate(timeout=PATIENCE)
        expected = tmp_path / "undisturbed" / "smoke" / "pareto.json"
        assert (folder / "pareto.json").read_bytes() == expected.read_bytes()
