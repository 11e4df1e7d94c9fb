"""The commands of the README, as they stand there, in a copy of what is committed."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sweeps.cli.studies import check_search
from sweeps.config import load_config

ROOT = Path(__file__).parents[1]
PATIENCE = 500  # seconds
# As little as tells that the study of a README's commands is there.
TINY = "--trials 1 --wandb disabled --set data.image_size=7 --set sparse.epochs=1 --set finetune.epochs=1"
TINY += " --set model.width=4 --set sparse.batch_size=500 --set finetune.batch_size=500"
TINY += " --set controls.uniform=false --set confirm.seeds=1 --set curves=false --set search.stopping=null"

Shell = Callable[[str], str]


def commands() -> list[str]:
    """The lines of the README that are commands, without their comments."""
    lines = re.findall(r"^    (\S.*)$", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    return [re.sub(r"\s+# .*", "", line) for line in lines]


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """Runs a command line in a clone of the repository that has this environment as its .venv."""
    folder = tmp_path_factory.mktemp("clone") / "slimnet"
    done = subprocess.run(["git", "clone", "-q", "--no-hardlinks", ROOT, folder], capture_output=True)
    if done.returncode:
        pytest.skip("this is no git checkout")
    (folder / ".venv").symlink_to(sys.prefix)

    def run(line: str) -> str:
        told = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            ["sh", "-c", line], cwd=folder, env=told, capture_output=True, text=True, timeout=PATIENCE
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout

    return run


@pytest.mark.parametrize("line", [line for line in commands() if line.startswith("make ")])
def test_make_runs_what_the_readme_says(line: str, shell: Shell) -> None:
    """Only looked at: a sweep and the tests take minutes, and making .venv would download gigabytes."""
    told = shell(f"{line} -n")
    assert "sh scripts/setup.sh" in told
    assert "bin/sweeps run fashion-mini" in told or "-m pytest" in told
    assert ("--trials 12" in told) == ("TRIALS=12" in line)


@pytest.mark.parametrize("page", ["README.md", "docs/first-sweep.md", "sweeps/configs/fashion-mini.yaml"])
def test_as_many_trials_as_pages_name_are_in_the_space_of_the_default_sweep(page: str) -> None:
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    named = {line: found[1] for line in lines if (found := re.search(r"(?:TRIALS=|--trials )(\d+)", line))}
    assert named
    for line, trials in named.items():
        given = [quoted or plain for quoted, plain in re.findall(r'--set (?:"([^"]+)"|(\S+))', line)]
        check_search(load_config("fashion-mini", [*given, f"search.trials={trials}"]))


IN_TURN = """
import shlex, sys
from sweeps.cli import main

for line in sys.argv[1:]:
    sys.argv = shlex.split(line)
    try:
        main()
    except SystemExit as ended:
        assert not ended.code, line
    print(end="\f", flush=True)
"""
"""Does what command lines of `sweeps` do, in one Python: each would load torch, and start one that does."""


@pytest.mark.slow  # a sweep, and what exports its network to all formats
def test_the_other_commands_do_what_the_readme_says(shell: Shell) -> None:
    shell(".venv/bin/python examples/own-network-and-pictures/draw.py pictures")
    ours = [line for line in commands() if not line.startswith("make ")]
    assert {shlex.split(line)[1] for line in ours} >= {"status", "export", "init"}
    assert {shlex.split(line)[0] for line in ours} == {".venv/bin/sweeps"}
    assert shell(".venv/bin/sweeps --help")
    *said, end = shell(
        shlex.join([".venv/bin/python", "-c", IN_TURN, f"sweeps run fashion-mini {TINY}", *ours])
    ).split("\f")
    assert (len(said), all(said), end) == (1 + len(ours), True, "")
