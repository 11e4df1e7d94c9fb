"""A sweep that is killed again and again finds what one that is left alone finds."""

from __future__ import annotations

import random
import signal
import time
from functools import partial
from pathlib import Path

import pytest
from running import CORE, PATIENCE, Sweep, children, wait_until, wait_until_gone

KILLS = 6
OPTIONS = (
    *("--workers", "1", "--trials", "4"),
    *("--set", "sparse.epochs=5", "--set", "finetune.epochs=2"),
    *("--set", "search.sampler=tpe", "--set", "search.ahead=1"),
)
TORN = "EOFError: Ran out of input\n"
EPOCHS = 2 * 5 + (5 + 2) + 4 * 2  # two values of λ, the dense network, four prunings


def has_lines(sweep: Sweep, number: int) -> bool:
    """Whether the driver's log has so many lines."""
    return len(sweep.log()) >= number


@pytest.mark.slow  # eight starts of a sweep, each of which imports torch
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
