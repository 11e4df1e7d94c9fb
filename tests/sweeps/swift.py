"""`python -m sweeps` whose stages take no time, in processes without torch, which may be killed anywhere.

    python -c 'import swift; swift.main()' run smoke …

Environment variables:
    SWIFT_LOG     a file that gets a line for every stage that starts, every epoch that was computed and
                  saved, and every process that kills itself
    SWIFT_DRIVER  the number of the line of the program at which the driver kills itself
    SWIFT_WORKER  the seed of the lines at which workers kill themselves, if they do
    SWIFT_RAY     the address of the Ray cluster on which stages run; `auto` starts one

After an epoch stages wait while there is a file `gate` in the runs folder.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from types import FrameType
from typing import Any

from found import FOUND

from benchmarks import instant
from sweeps.executors import local, processes
from sweeps.executors.reporting import report
from sweeps.jobs import Job, Place, Watch
from sweeps.records import Row
from sweeps.signals import end_on_signals

LINES = 1500  # from which workers draw theirs: more than most of them run, so that some survive
OURS = ("/sweeps/", "/benchmarks/instant.py", "/slimnet/files.py")


def main() -> None:
    """Run the command line."""
    end_on_signals()
    from sweeps.cli import main as run

    processes.PRELOADED[:] = ["swift"]
    processes.ask = lambda question, *arguments: FOUND  # type: ignore[assignment]
    local._work = work
    if address := os.environ.get("SWIFT_RAY"):
        run_on_ray(address)
    if lines := os.environ.get("SWIFT_DRIVER"):
        die_at(int(lines), "driver")
    run()


def run_on_ray(address: str) -> None:
    """Have the command line run stages on a cluster, though not the questions, which need torch."""
    import clusters  # noqa: F401 - sets the token
    from ray._private import services

    from sweeps.executors import ray, ray_head
    from sweeps.executors.ray_cluster import Cluster

    if address == "auto":
        services.find_gcs_addresses = cache(set)  # as if no cluster of others were on this machine
        ray_head.SILENT = 2.0
    sys.argv += ["--executor", "ray", "--set", f"executor.address={address}"]
    Cluster.ask = lambda self, question, *arguments, note: FOUND  # type: ignore[method-assign]
    ray.RayExecutor = partial(ray.RayExecutor, compute=gated)  # type: ignore[misc, assignment]


def gated(job: Job, place: Place, watch: Watch) -> bool:
    """An instant stage that waits after an epoch while the gate is closed."""

    def epoch(row: Row) -> None:
        watch.epoch(row)
        wait_at_gate(job)

    return instant.compute(job, place, replace(watch, epoch=epoch))


def wait_at_gate(job: Job) -> None:
    while (job.store.root.parent / "gate").exists():
        time.sleep(0.05)


def work(send: processes.Send, stop: Callable[[], bool], job: Job, place: Place, log: Path | None) -> None:
    """What a worker process runs."""
    if log is not None:
        processes.print_to(log)
    start = note(f"start {job.key}")
    if seed := os.environ.get("SWIFT_WORKER"):
        draw = random.Random(f"{seed} {job.key} {start}")
        die_at(draw.randrange(LINES), "worker")
    report(compute, job, place, stop, send)


def compute(job: Job, place: Place, watch: Watch) -> bool:
    """An instant stage that notes its epochs."""

    def epoch(row: Row) -> None:
        note(f"epoch {job.key} {row['epoch']}")
        watch.epoch(row)
        wait_at_gate(job)

    return instant.compute(job, place, replace(watch, epoch=epoch))


def note(text: str) -> int:
    """Add a line to the log, if there is one; returns how often it had the line before."""
    path = os.environ.get("SWIFT_LOG")
    if path is None:
        return 0
    with open(path, "a+") as file:
        file.seek(0)
        before = file.read().splitlines().count(text)
        file.write(f"{text}\n")
    return before


@cache
def is_ours(file: str) -> bool:
    return any(part in file for part in OURS) and "/tests/" not in file


def die_at(number: int, who: str) -> None:
    """Kill this process at a line of the program, counted over all of its threads."""
    left = [number]

    def enter(frame: FrameType, event: str, argument: object) -> Any:
        return line if is_ours(frame.f_code.co_filename) else None

    def line(frame: FrameType, event: str, argument: object) -> Any:
        left[0] -= event == "line"
        if left[0] == -1:
            note(f"kill {who}")
            os.kill(os.getpid(), signal.SIGKILL)
        return line

    threading.settrace(enter)
    sys.settrace(enter)
