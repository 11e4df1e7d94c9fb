"""A sweep whose checkpoints were damaged while it was interrupted."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
from running import Command, Sweep, wait_until


@pytest.mark.slow  # two runs of a sweep
def test_a_damaged_checkpoint_is_told_on_the_console_and_in_the_log(sweep: Sweep, command: Command) -> None:
    def interrupt_after(epochs: int) -> None:
        wait_until(lambda: len(sweep.epochs()) >= epochs)
        os.kill(os.getpid(), signal.SIGINT)

    def run_until_interrupted(epochs: int) -> tuple[int, str, str]:
        options = ("--wandb", "disabled", "--set", "sparse.epochs=500")
        with ThreadPoolExecutor() as pool:
            pool.submit(interrupt_after, epochs)
            return command("run", "smoke", "--runs", sweep.runs, *options)

    assert run_until_interrupted(4)[0] == 130
    for checkpoint in (sweep.runs / "stages" / "sparse").glob("*/checkpoint.pt"):
        checkpoint.write_bytes(checkpoint.read_bytes()[:5000])
    assert len(sweep.epochs()) == len(set(sweep.epochs()))

    status, out, err = run_until_interrupted(len(sweep.epochs()) + 1)

    told = f"{checkpoint} is truncated: its end is missing; the training goes on from the checkpoint before"
    assert (status, err) == (130, "")
    assert told in out
    assert any(line.endswith(told) for line in sweep.log())
    assert len(sweep.epochs()) > len(set(sweep.epochs()))  # an epoch was computed again
