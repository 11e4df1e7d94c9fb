"""A sweep that is killed again and again finds what one that is left alone finds."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from running import CORE, PATIENCE, Sweep, children, is_alive, swift, wait_until, wait_until_gone

from sweeps.tracking.offline import read_offline_run

KILLS = 5
OPTIONS = (
    *("--workers", "1", "--trials", "4"),
    *("--set", "sparse.epochs=5", "--set", "finetune.epochs=2"),
    *("--set", "sparse.batch_size=500", "--set", "finetune.batch_size=500"),
    *("--set", "search.sampler=tpe", "--set", "search.ahead=1", "--set", "latency=false"),
)
TORN = "EOFError: Ran out of input\n"
EPOCHS = 2 * 5 + (5 + 2) + 4 * 2  # two values of λ, the dense network, four prunings


def has_lines(sweep: Sweep, number: int) -> bool:
    """Whether the driver's log has so many lines."""
    return len(sweep.log()) >= number


@pytest.mark.slow  # seven starts of a sweep
def test_a_sweep_killed_at_random_moments_finds_what_an_undisturbed_one_finds(
    sweep: Sweep, tmp_path: Path
) -> None:
    alone = Sweep(tmp_path / "alone")
    undisturbed = alone.start(*OPTIONS, core=CORE + 1)
    # Lines that a driver may still log, and then seconds that it lives on; every fourth dies while it starts.
    lives = [(random.randint(1, 3) if kill % 4 else 0, random.uniform(0, 0.3)) for kill in range(KILLS)]
    print("lives of the drivers in lines and seconds:", lives)

    for lines, seconds in lives:
        wanted = len(sweep.log()) + lines
        process = sweep.start(*OPTIONS, core=CORE)
        wait_until(partial(has_lines, sweep, wanted))
        time.sleep(seconds)
        below = children(process)
        process.send_signal(signal.SIGKILL)
        _, err = process.communicate()
        # A worker that was being born cannot read its orders to the end, which Python itself tells.
        assert err == "" or err.endswith(TORN)
        wait_until_gone(below)
    for last in (sweep.start(*OPTIONS, core=CORE), undisturbed):
        _, err = last.communicate(timeout=PATIENCE)
        assert (last.returncode, err) == (0, "")
    assert (sweep.folder / "pareto.json").read_bytes() == (alone.folder / "pareto.json").read_bytes()
    assert len(alone.epochs()) == len(set(alone.epochs())) == EPOCHS
    # A line that a killed driver had no time to write is missing; none is there twice.
    assert len(sweep.epochs()) == len(set(sweep.epochs())) >= EPOCHS - KILLS
    assert not list((sweep.runs / "stages").rglob(".*.??????*"))


LIVES = 10  # of the driver
STARTED = 38_000  # lines of the program until the first stage starts, more or less
TRIALS = 16
SPACE = "{sparse.lambda: {log: [0.001, 0.008], steps: 4}, prune.ratio: {range: [0.2, 0.8], step: 0.05}}"


def start(runs: Path, sampler: str, log: Path, **environment: str) -> subprocess.Popen[str]:
    """Start a sweep of two workers whose stages take no time."""
    overrides = (
        *(f"search.sampler={sampler}", f"search.space={SPACE}", "search.ahead=3"),
        *("sparse.epochs=4", "finetune.epochs=2", "curves=true", "retries=1000"),
    )
    options = ["--workers", "2", "--trials", str(TRIALS), "--wandb", "offline", "--quiet"]
    changes = [part for override in overrides for part in ("--set", override)]
    return swift(runs, *options, *changes, env={"SWIFT_LOG": str(log), **environment})


def processes_of(log: Path, drivers: list[int]) -> list[int]:
    """The processes of sweeps and all that they started, by what they inherit.

    Those that are forked have the driver's session, and those that began anew an environment variable.
    """
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            session = int((path / "stat").read_text().rpartition(")")[2].split()[3])
            if session in drivers or f"SWIFT_LOG={log}\0" in (path / "environ").read_text():
                found.append(int(path.name))
    return [pid for pid in found if is_alive(pid)]


def tracked(study: Path) -> list[tuple[str, int]]:
    """The W&B runs of a study, without its uid, each with its rows."""
    folders = sorted(study.glob("wandb/offline-run-*"), key=lambda path: path.name.split("-", 3)[-1])
    return [
        (folder.name.split("-", 3)[-1].rpartition("-")[0], len(read_offline_run(folder).history))
        for folder in folders
    ]


@pytest.mark.slow  # fourteen starts of a sweep
@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_drivers_and_workers_killed_at_random_lines_lose_nothing(tmp_path: Path, sampler: str) -> None:
    seed = int(os.environ.get("SLIMNET_KILL_SEED", 0))
    draw = random.Random(f"{seed} {sampler}")
    alone, log = tmp_path / "alone", tmp_path / "log"
    undisturbed = start(alone, sampler, tmp_path / "alone.log")
    runs, drivers = tmp_path / "runs", []
    for life in range(LIVES):
        at = draw.choice([draw.randrange(STARTED), *(STARTED + draw.randrange(40_000) for _ in range(3))])
        killed = start(runs, sampler, log, SWIFT_DRIVER=str(at), SWIFT_WORKER=f"{seed} {life}")
        drivers.append(killed.pid)
        _, err = killed.communicate(timeout=PATIENCE)
        assert killed.returncode in (-signal.SIGKILL, 0), err
    for last in (start(runs, sampler, log, SWIFT_WORKER=f"{seed} last"), undisturbed):
        drivers.append(last.pid)
        _, err = last.communicate(timeout=PATIENCE)
        assert (last.returncode, err) == (0, "")

    for name in ("pareto.json", "pareto.csv", "trials.jsonl"):
        assert (runs / "smoke" / name).read_bytes() == (alone / "smoke" / name).read_bytes()
    lines = log.read_text().splitlines()
    assert len([line for line in lines if line.startswith("kill ")]) >= 25
    epochs = [line for line in lines if line.startswith("epoch ")]
    assert len(epochs) == len(set(epochs))
    whole = [line for line in (tmp_path / "alone.log").read_text().splitlines() if line.startswith("epoch ")]
    assert set(epochs) <= set(whole)
    assert tracked(runs / "smoke") == tracked(alone / "smoke")
    assert not list((runs / "stages").rglob(".*.??????*"))
    wait_until(lambda: not processes_of(log, drivers), seconds=30)
