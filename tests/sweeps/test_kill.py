"""A sweep that is killed again and again finds what one that is left alone finds."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest
from running import PATIENCE, Sweep, children, wait_until, wait_until_gone

KILLS = 10
LONGEST = 2.5  # seconds that a driver lives, after it was started or after its first worker was
OPTIONS = (
    *("--workers", "1", "--trials", "4"),
    *("--set", "sparse.epochs=8", "--set", "finetune.epochs=3"),
    *("--set", "search.sampler=tpe", "--set", "search.ahead=1"),
)
EPOCHS = 3 * 8 + 4 * 3  # two values of λ and the dense network; four prunings


@pytest.mark.slow  # ten starts of a sweep, each of which imports torch
def test_a_sweep_killed_at_ten_random_moments_finds_what_an_undisturbed_one_finds(
    sweep: Sweep, tmp_path: Path
) -> None:
    alone = Sweep(tmp_path / "alone")
    undisturbed = alone.start(*OPTIONS, core=1)
    lives = [round(random.uniform(0, LONGEST), 2) for _ in range(KILLS)]
    print("lives of the drivers in seconds:", lives)

    for number, life in enumerate(lives):
        before = len(sweep.log())
        process = sweep.start(*OPTIONS, core=0)
        if number % 4:  # every fourth dies while it starts
            wait_until(lambda before=before: len(sweep.log()) > before)
        time.sleep(life)
        below = children(process)
        process.send_signal(signal.SIGKILL)
        _, err = process.communicate()
        assert err == ""
        wait_until_gone(below)
    for last in (sweep.start(*OPTIONS, core=0), undisturbed):
        _, err = last.communicate(timeout=PATIENCE)
        assert (last.returncode, err) == (0, "")
    assert (sweep.folder / "pareto.json").read_bytes() == (alone.folder / "pareto.json").read_bytes()
    assert len(alone.epochs()) == len(set(alone.epochs())) == EPOCHS
    # A line that a killed driver had no time to write is missing; none is there twice.
    assert len(sweep.epochs()) == len(set(sweep.epochs())) >= EPOCHS - KILLS
    assert not list((sweep.runs / "stages").rglob(".*.??????*"))
