"""A sweep whose checkpoint was damaged while it was interrupted."""

from __future__ import annotations

import signal

import pytest
from running import PATIENCE, Sweep

OPTIONS = ("--workers", "1", "--set", "sparse.epochs=60")


@pytest.mark.slow  # two starts of a sweep, each of which imports torch
def test_a_damaged_checkpoint_is_told_on_the_console_and_in_the_log(sweep: Sweep) -> None:
    process = sweep.start(*OPTIONS)
    sweep.wait_for_epochs(3, process)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE)
    (checkpoint,) = (sweep.runs / "stages" / "sparse").glob("*/checkpoint.pt")
    checkpoint.write_bytes(checkpoint.read_bytes()[:5000])

    process = sweep.start(*OPTIONS)
    count = len(sweep.epochs())
    sweep.wait_for_epochs(count + 1, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)

    told = f"{checkpoint} is truncated: its end is missing; the training goes on from the checkpoint before"
    assert told in out
    assert err == ""
    assert any(line.endswith(told) for line in sweep.log())
    assert sweep.epochs()[count] == sweep.epochs()[count - 1]  # that epoch was computed again
