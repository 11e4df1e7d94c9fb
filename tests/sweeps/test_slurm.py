"""The batch scripts of docs/slurm, run by SLURM itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
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
UNWATCHED = """#!/bin/sh
case " $* " in *" --head "*) set -- "$@" --include-dashboard=false ;; esac
exec %s "$@"
"""
"""Runs `ray …` without its dashboard, which takes longer to start than the rest."""
SWEEP = """
trap 'status=${status:-138}; echo USR1 >> running' USR1
trap 'status=${status:-143}; echo TERM >> running' TERM
echo sweep >> running
until [ "$status" ] && [ -e gate ]; do sleep 0.05; done
exit "$status"
"""
RAY = """
for word; do case $word in --port=*) port=${word#--port=};; --node-ip-address=*) host=${word#*=};; esac; done
touch starting
until [ -e start ]; do sleep 0.05; done
exec %s -c 'import socket, sys, time
with socket.create_server((sys.argv[1], int(sys.argv[2]))): time.sleep(60)' "$host" "$port"
"""
SCRIPTS = ROOT / "docs" / "slurm"


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
        pytest.skip("ray is not installed: pip install ray")
    sweep = begun(slurm, script, count, tmp_path)
    folder, said = tmp_path / "runs" / "smoke", tmp_path / f"sweep-{sweep}.log"
    urgent = slurm.submit(
        "--partition=urgent", "--nodes=2", "--output=urgent.log", "--wrap=true", cwd=tmp_path
    )
    wait_until(lambda: "stopping after the current epochs" in said.read_text())
    (tmp_path / "runs" / "gate").unlink()
    wait_until(lambda: slurm.state(urgent) == slurm.state(sweep) == "")

    assert said.read_text().count("study smoke: 3 trials, ") == 2, "once for each turn"
    assert said.read_text().count("Go on with: ") == 1
    assert "3 of 3 trials complete: the goal is reached" in said.read_text()
    assert (folder / "pareto.json").read_bytes() == expected


@pytest.mark.slow  # as the above
def test_a_sweep_that_is_cancelled_is_not_queued_again(slurm: Slurm, tmp_path: Path) -> None:
    sweep = begun(slurm, "one-node", 1, tmp_path)
    said = tmp_path / f"sweep-{sweep}.log"
    slurm.call("scancel", sweep)
    wait_until(lambda: "stopping after the current epochs" in said.read_text())
    (tmp_path / "runs" / "gate").unlink()
    wait_until(lambda: slurm.state(sweep) == "")
    assert said.read_text().count("Go on with: ") == 1, "it has saved what it had"
    assert slurm.outcome(sweep) == ("CANCELLED", 0)


def begun(slurm: Slurm, script: str, count: int, folder: Path) -> str:
    """Submit a sweep that has saved an epoch, and waits while there is a file `gate` in its runs folder."""
    log = folder / "runs" / "smoke" / "driver.log"
    log.parents[1].mkdir()
    (log.parents[1] / "gate").touch()
    programs = folder / "bin"
    made(programs / "python", PYTHON % sys.executable)
    made(programs / "ray", UNWATCHED % Path(sys.executable).with_name("ray"))
    sweep = slurm.submit(
        *("--partition=spare", f"--nodes={count}", "--cpus-per-task=1"),
        *(SCRIPTS / f"{script}.sbatch", "smoke", *OPTIONS),
        cwd=folder,
        PYTHON=str(programs / "python"),
        PYTHONPATH=os.pathsep.join((str(ROOT / "tests" / "sweeps"), str(ROOT))),
        RAY_AUTH_TOKEN="of-the-tests-of-slimnet",
    )
    wait_until(lambda: log.exists() and " epoch " in log.read_text())
    return sweep


@pytest.mark.parametrize("script", ["one-node", "ray"])
@pytest.mark.parametrize(
    ("signals", "queued"), [(["USR1"], True), (["TERM"], False), (["USR1", "TERM"], True)]
)
def test_only_what_is_announced_queues_the_job_again(
    script: str, signals: list[str], queued: bool, tmp_path: Path
) -> None:
    """Without SLURM, whose signals reach the whole job, except for USR1."""
    (tmp_path / "start").touch()
    with in_a_job(script, tmp_path) as job:
        wait_until((tmp_path / "running").exists)
        for name in signals:
            send = os.kill if name == "USR1" else os.killpg
            send(job.pid, signal.Signals[f"SIG{name}"])
            wait_until(partial(is_in, name, tmp_path / "running"))
        (tmp_path / "gate").touch()
        assert job.wait(PATIENCE) == 128 + signal.Signals[f"SIG{signals[0]}"]
    assert (tmp_path / "queued").exists() == queued


def test_what_is_announced_while_ray_starts_queues_the_job_again(tmp_path: Path) -> None:
    with in_a_job("ray", tmp_path) as job:
        wait_until((tmp_path / "starting").exists)
        job.send_signal(signal.SIGUSR1)
        (tmp_path / "gate").touch()
        (tmp_path / "start").touch()
        assert job.wait(PATIENCE) == 128 + signal.SIGUSR1
    assert (tmp_path / "queued").exists()


def is_in(word: str, file: Path) -> bool:
    return word in file.read_text()


@contextmanager
def in_a_job(script: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A script run as SLURM runs it, with programs that only tell what they are asked for."""
    programs = {
        "python": SWEEP,
        "ray": RAY % sys.executable,
        "scontrol": '[ "$1 $2" = "requeue 7" ] && touch queued',
    }
    for name, text in programs.items():
        made(folder / "bin" / name, f"#!/bin/bash\n{text}")
    facts = {"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "1", "SLURM_NNODES": "1", "RAY_AUTH_TOKEN": "-"}
    path = os.pathsep.join((str(folder / "bin"), os.environ["PATH"]))
    environment = {**os.environ, **facts, "PYTHON": str(folder / "bin" / "python"), "PATH": path}
    command = ["bash", str(SCRIPTS / f"{script}.sbatch"), "smoke"]
    with subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True) as job:
        try:
            yield job
        finally:
            with suppress(ProcessLookupError):
                os.killpg(job.pid, signal.SIGKILL)


def made(program: Path, text: str) -> None:
    program.parent.mkdir(exist_ok=True)
    program.write_text(text)
    program.chmod(0o755)
