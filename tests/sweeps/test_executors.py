"""Stages in processes of their own: how they end, and that none outlives the driver."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from running import is_alive, wait_until_gone

from sweeps.config import load_config, resolve
from sweeps.executors import Event, LocalExecutor
from sweeps.machine import Slot
from sweeps.stages import Stage, Store, chain
from sweeps.worker import Job

SLOTS = [Slot("cpu", 1), Slot("cpu", 1)]


@pytest.fixture
def executor() -> Iterator[LocalExecutor]:
    executor = LocalExecutor(SLOTS)
    yield executor
    executor.kill()


def sparse_stage(epochs: int = 2, lr: float = 0.1) -> Stage:
    settings = load_config("smoke", [f"sparse.epochs={epochs}", f"sparse.lr={lr}"])
    return chain(resolve(settings, {"sparse.lambda": 0.02, "prune.ratio": 0.5}), "float32")[0]


def job(runs: Path, stage: Stage) -> Job:
    return Job.of(stage, Store(runs), SLOTS[0])


def events_until(executor: LocalExecutor, *kinds: str, seconds: float = 300) -> list[Event]:
    """All events up to the first of one of the kinds."""
    events: list[Event] = []
    deadline = time.monotonic() + seconds
    while not any(event.kind in kinds for event in events):
        assert time.monotonic() < deadline, f"no {kinds} among {events}"
        events += executor.poll(0.2)
    return events


def test_a_stage_reports_its_epochs_and_its_end(tmp_path: Path, executor: LocalExecutor) -> None:
    stage = sparse_stage()
    executor.start(job(tmp_path, stage), executor.free_slots()[0])
    assert executor.free_slots() == SLOTS[1:]

    events = events_until(executor, "done", "failed")

    assert events[-1] == Event(stage.key, "done")
    assert [event.epoch for event in events if event.kind == "epoch"] == [1, 2]
    assert executor.free_slots() == SLOTS
    assert Store(tmp_path).state(stage) == "done"


def test_a_mistake_and_a_defect_are_reported_each_in_a_sentence(
    tmp_path: Path, executor: LocalExecutor
) -> None:
    diverging, defective = job(tmp_path, sparse_stage(lr=1e20)), job(tmp_path, sparse_stage())
    del defective.spec["recipe"]
    executor.start(diverging, executor.free_slots()[0])
    executor.start(defective, executor.free_slots()[0])

    events = events_until(executor, "failed")
    while executor.free_slots() != SLOTS:
        events += executor.poll(0.2)

    failed = {event.key: event for event in events if event.kind == "failed"}
    assert "learning rate" in failed[diverging.key].reason
    assert not failed[diverging.key].detail
    assert failed[defective.key].reason == "KeyError: 'recipe'"
    assert "Traceback" in failed[defective.key].detail


def test_a_killed_worker_fails_its_stage_and_no_other(tmp_path: Path, executor: LocalExecutor) -> None:
    doomed, other = sparse_stage(epochs=500), sparse_stage()
    executor.start(job(tmp_path, doomed), executor.free_slots()[0])
    (process,) = multiprocessing.active_children()
    executor.start(job(tmp_path, other), executor.free_slots()[0])
    events_until(executor, "epoch")

    os.kill(process.pid or 0, signal.SIGKILL)

    events = events_until(executor, "failed")
    while executor.free_slots() != SLOTS:
        events += executor.poll(0.2)
    ends = {event.key: event for event in events if event.kind in ("failed", "done")}
    assert "killed by SIGKILL" in ends[doomed.key].reason
    assert Store(tmp_path).state(other) == "done"


def test_stop_ends_after_the_epoch_in_hand_and_the_stage_goes_on(
    tmp_path: Path, executor: LocalExecutor
) -> None:
    stage = sparse_stage(epochs=4)
    executor.start(job(tmp_path, stage), SLOTS[0])
    events_until(executor, "epoch")
    executor.stop()
    assert events_until(executor, "stopped", "done", "failed")[-1].kind == "stopped"
    kept = Store(tmp_path).epochs_done(stage)
    assert 1 <= kept < 4

    executor.start(job(tmp_path, stage), SLOTS[0])
    events = events_until(executor, "done", "failed")
    assert [event.epoch for event in events if event.kind == "epoch"] == list(range(kept + 1, 5))


def test_signals_of_the_terminal_do_not_reach_workers(tmp_path: Path, executor: LocalExecutor) -> None:
    executor.start(job(tmp_path, sparse_stage()), SLOTS[0])
    (process,) = multiprocessing.active_children()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(process.pid or 0, number)
    assert events_until(executor, "done", "failed")[-1].kind == "done"


def test_kill_leaves_nothing_running(tmp_path: Path, executor: LocalExecutor) -> None:
    executor.start(job(tmp_path, sparse_stage(epochs=500)), SLOTS[0])
    (process,) = multiprocessing.active_children()
    executor.kill()
    assert not process.is_alive()
    assert executor.free_slots() == SLOTS
    assert executor.poll(0) == []


DRIVER = """
import multiprocessing, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_executors import SLOTS, job, long_stages
from sweeps.executors import LocalExecutor

if __name__ == "__main__":
    executor = LocalExecutor(SLOTS)
    for stage, slot in zip(long_stages(), SLOTS):
        executor.start(job(Path(sys.argv[1]), stage), slot)
    print(*(process.pid for process in multiprocessing.active_children()), flush=True)
    while True:
        for event in executor.poll(0.2):
            print(event.kind, flush=True)
"""


def long_stages() -> list[Stage]:
    return [sparse_stage(epochs=500), sparse_stage(epochs=501)]


def test_workers_die_with_their_driver(tmp_path: Path) -> None:
    folders = [Store(tmp_path).prepare(stage) for stage in long_stages()]
    (tmp_path / "driver.py").write_text(DRIVER)
    with FileLock(folders[1] / ".lock"):  # so that one worker trains and the other waits
        driver = subprocess.Popen(
            [sys.executable, str(tmp_path / "driver.py"), str(tmp_path), str(Path(__file__).parent)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        assert driver.stdout is not None
        workers = [int(pid) for pid in driver.stdout.readline().split()]
        assert driver.stdout.readline() == "step\n"  # it trains
        time.sleep(0.5)
        assert all(is_alive(pid) for pid in workers)
        assert len(workers) == 2

        driver.send_signal(signal.SIGKILL)
        _, complaints = driver.communicate()

        wait_until_gone(workers)
    assert complaints == ""
    with FileLock(folders[0] / ".lock", timeout=0):
        pass  # the worker's hold is gone too
