"""What a Ray cluster costs: stages that rest, on 1 to 4 workers, and a sweep of stages that take no time.

Runs on the cluster that this machine belongs to, or on one that is started here for it.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import instant
from benchmarks.driver import run_in
from sweeps.config import load_config, resolve
from sweeps.config.sections import Executor
from sweeps.jobs import Job, Place, Watch
from sweeps.stages import Stage, Store, chain

if TYPE_CHECKING:
    from sweeps.executors.ray_cluster import Cluster

WORKERS = (1, 2, 4)
REST = 10.0  # seconds that a stage takes
ROUNDS = 2  # stages for each worker
PLACE = Place("cpu", 1)


def resting(job: Job, place: Place, watch: Watch) -> bool:
    """A stage that needs its place but no processor."""
    time.sleep(REST)
    return instant.compute(job, place, watch)


def main() -> None:
    """Print both tables."""
    import ray

    from sweeps.executors.ray_cluster import join

    with tempfile.TemporaryDirectory() as folder:
        joined = join(Executor(kind="ray", cpus_per_stage=1 / 8), gpus=False)
        print(f"Stages of {REST:g} s.\n\nworkers  stages/s  of the ideal  s per stage above its own")
        for workers in WORKERS:
            began = time.perf_counter()
            count = _rest(joined, Path(folder) / str(workers), workers)
            seconds = time.perf_counter() - began
            beside, ideal = seconds * workers / count - REST, workers / REST
            rate = count / seconds
            print(f"{workers:7}  {rate:8.2f}  {rate / ideal:11.0%}  {beside:25.2f}", flush=True)
        _listen(joined, Path(folder) / "listening", WORKERS[-1])
        _sweep(joined, Path(folder) / "sweep")
        ray.shutdown()


def _rest(cluster: Cluster, runs: Path, workers: int) -> int:
    """Run the stages of so many workers; returns how many there were."""
    from sweeps.executors.ray import RayExecutor

    executor, store = RayExecutor(cluster, PLACE, workers, compute=resting), Store(runs)
    left, ended = [_stage(number) for number in range(ROUNDS * workers)], 0
    while ended < ROUNDS * workers:
        while left and executor.capacity():
            stage = left.pop()
            store.folder(stage).prepare(stage)
            executor.start(Job(stage, store))
        ended += sum(event.ends for event in executor.poll(0.25))
    return ended


def _listen(cluster: Cluster, runs: Path, workers: int) -> None:
    """What the driver's process spends on stages that run."""
    from sweeps.executors.ray import RayExecutor

    executor, store = RayExecutor(cluster, PLACE, workers, compute=resting), Store(runs)
    for stage in map(_stage, range(workers)):
        store.folder(stage).prepare(stage)
        executor.start(Job(stage, store))
    while not all(map(executor.has_begun, (_stage(number).key for number in range(workers)))):
        executor.poll(0.25)
    began, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() - began < REST / 2:
        executor.poll(0.25)
    spent = (time.process_time() - cpu) / (time.perf_counter() - began) / workers
    executor.close()
    print(f"\nTo listen to a stage takes {1000 * spent:.1f} ms of CPU time per second.")


def _stage(number: int) -> Stage:
    settings = load_config("smoke", [f"seed={number}", "sparse.epochs=1"])
    return chain(resolve(settings, {"sparse.lambda": 0.02, "prune.ratio": 0.5}), "float32")[0]


def _sweep(cluster: Cluster, runs: Path) -> None:
    """A whole sweep by the driver, whose own cost shows where stages take no time."""
    from sweeps.executors.ray import RayExecutor

    config = load_config(
        "fashion-mini",
        ["search.sampler=random", "search.stopping=null", "latency=false", "search.ahead=16"],
    )
    executor = RayExecutor(cluster, PLACE, 8, compute=instant.compute)
    began, cpu, own = time.perf_counter(), time.process_time(), time.thread_time()
    record = run_in(runs, config, executor)
    seconds, cpu, own = (
        time.perf_counter() - began,
        time.process_time() - cpu,
        time.thread_time() - own,
    )
    stages = len(list(Store(runs).root.glob("*/*/result.json")))
    rate, trials = stages / seconds, len(record.trials)
    print(
        f"\nA sweep of {trials} trials in {stages} instant stages, on 8 workers: {rate:.1f} stages/s;\n"
        f"{1000 * cpu / stages:.0f} ms of CPU time per stage in the driver's process, "
        f"{1000 * own / stages:.0f} ms of them in its own thread"
    )
