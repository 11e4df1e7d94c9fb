"""How long a worker takes to its first training step, once the first worker has paid for the imports."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from sweeps.config import load_config, resolve
from sweeps.executors.local import LocalExecutor
from sweeps.jobs import Job, Place
from sweeps.stages import Store, chain

WORKERS = 8
PLACE = Place("cpu", 1)


def main() -> None:
    """Print the time of the first worker, and the median of those after it."""
    with tempfile.TemporaryDirectory() as folder:
        executor = LocalExecutor([PLACE])
        first, *later = (_seconds_to_first_step(executor, Path(folder), seed) for seed in range(WORKERS))
        executor.close()
    print(
        f"first worker {first:.2f} s, later ones {statistics.median(later):.2f} s "
        f"({min(later):.2f} to {max(later):.2f}): process, data, network, trace and one step"
    )


def _seconds_to_first_step(executor: LocalExecutor, runs: Path, seed: int) -> float:
    """Start the default sweep's sparse stage, and end it when it reports."""
    config = resolve(
        load_config("fashion-mini", [f"seed={seed}"]), {"sparse.lambda": 0.004, "prune.ratio": 0.5}
    )
    stage = chain(config, "float32")[0]
    store = Store(runs)
    store.folder(stage).prepare(stage)
    started = time.perf_counter()
    executor.start(Job(stage, store))
    while not any(event.kind == "step" for event in executor.poll(1.0)):
        pass
    seconds = time.perf_counter() - started
    executor.close()
    return seconds
