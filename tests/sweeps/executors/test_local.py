"""Stages as processes: what reaches them, and that none outlives the driver."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from filelock import FileLock
from running import is_alive, wait_until, wait_until_gone

from sweeps.config import load_config, resolve
from sweeps.executors import Event, local, processes
from sweeps.executors.local import LocalExecutor
from sweeps.jobs import Job, Place
from sweeps.stages import Stage, Store, chain, latency_stage

PLACES = [Place("cpu", 1), Place("cpu", 1)]


@pytest.fixture
def executor() -> Iterator[LocalExecutor]:
    executor = LocalExecutor(PLACES)
    yield executor
    executor.close()


def sparse_stage(epochs: int) -> Stage:
    settings = load_config("smoke", [f"sparse.epochs={epochs}"])
    return chain(resolve(settings, {"sparse.lambda": 0.02, "prune.ratio": 0.5}), "float32")[0]


def job(runs: Path, stage: Stage) -> Job:
    store = Store(runs)
    store.folder(stage).prepare(stage)
    return Job(stage, store)


def events_until(executor: LocalExecutor, *kinds: str) -> list[Event]:
    """All events up to the first of one of the kinds."""
    events: list[Event] = []
    while not any(event.kind in kinds for event in events):
        assert "lost" in kinds or not any(event.kind == "lost" for event in events)
        events += executor.poll(1.0)
    return events


@pytest.mark.parametrize(
    "method", ["forkserver", "spawn"]
)  # the latter as on macOS, where torch cannot be forked
def test_signals_of_the_terminal_do_not_reach_workers(
    method: str, tmp_path: Path, executor: LocalExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "start_method", lambda: method)
    executor.start(job(tmp_path, sparse_stage(2)))
    (process,) = multiprocessing.active_children()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(process.pid or 0, number)
    assert events_until(executor, "done", "failed", "lost")[-1].kind == "done"


def test_a_killed_worker_is_lost_with_what_killed_it(tmp_path: Path, executor: LocalExecutor) -> None:
    executor.start(job(tmp_path, sparse_stage(500)))
    (process,) = multiprocessing.active_children()
    os.kill(process.pid or 0, signal.SIGKILL)
    last = events_until(executor, "done", "failed", "lost")[-1]
    assert last.kind == "lost"
    assert last.reason == "its process was killed by SIGKILL; the system may have run out of memory"


def test_close_leaves_no_process(tmp_path: Path, executor: LocalExecutor) -> None:
    executor.start(job(tmp_path, sparse_stage(500)))
    (process,) = multiprocessing.active_children()
    executor.close()
    assert not process.is_alive()


def test_a_measurement_is_alone_and_the_others_go_on_after_it(
    tmp_path: Path, executor: LocalExecutor
) -> None:
    small = sparse_stage(1)
    executor.start(job(tmp_path, small))
    events_until(executor, "done")
    other, measurement = job(tmp_path, sparse_stage(500)), job(tmp_path, latency_stage(small, "here"))
    executor.start(other)
    events_until(executor, "epoch")
    executor.start(measurement)
    assert executor.capacity() == 0
    events = events_until(executor, "done", "failed")
    assert (events[-1].key, events[-1].kind) == (measurement.key, "done")
    assert executor.capacity() == 1
    metrics = Store(tmp_path).folder(measurement.stage).read(measurement.stage).metrics
    assert 0 < metrics["latency_ms"] < metrics["latency_ms_64"]
    assert {event.key for event in events_until(executor, "epoch")} == {other.key}


def computes(
    send: processes.Send, stop: Callable[[], bool], job: Job, place: Place, log: Path | None
) -> None:
    """Stands in for a stage: a training that computes until it may rest; a measurement that sees that.

    While it computes, the training gives an answer that comes too late where there is a file `answers`.
    """
    runs = job.store.folder(job.stage).path.parents[2]
    send(Event(job.key, "alive"))
    if job.stage.spec.alone:
        send(Event(job.key, "done" if (runs / "rests").exists() else "failed"))
        return
    while not (runs / "may-rest").exists():
        if (runs / "answers").exists():
            answering = threading.Thread(target=send, args=(1,))
            answering.start()
            answering.join()
            (runs / "answers").unlink()
        time.sleep(0.01)
    (runs / "rests").touch()
    while not stop():
        time.sleep(0.01)
    send(Event(job.key, "stopped"))


def begun_beside_a_training(executor: LocalExecutor, runs: Path) -> Job:
    """A measurement that was started while a training computes."""
    training, measurement = (
        job(runs, stage) for stage in (sparse_stage(2), latency_stage(sparse_stage(1), "here"))
    )
    executor.start(training)
    events_until(executor, "alive")
    executor.start(measurement)
    return measurement


def test_a_measurement_begins_when_the_others_rest(
    tmp_path: Path, executor: LocalExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_work", computes)
    measurement = begun_beside_a_training(executor, tmp_path)
    assert {event.kind for event in executor.poll(0.5)} <= {"alive"}
    (tmp_path / "may-rest").touch()
    events = events_until(executor, "done", "failed")
    assert events[-1] == Event(measurement.key, "done")


def test_an_answer_to_a_measurement_that_is_over_does_not_begin_the_next(
    tmp_path: Path, executor: LocalExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_work", computes)
    first = begun_beside_a_training(executor, tmp_path)
    executor.kill(first.key)
    events_until(executor, "lost")
    executor.start(first)
    events_until(executor, "alive")  # as it waits
    (tmp_path / "answers").touch()
    events: list[Event] = []

    def is_answered() -> bool:
        events.extend(executor.poll(0.1))
        return not (tmp_path / "answers").exists()

    wait_until(is_answered)
    events += executor.poll(0.5)
    assert {event.kind for event in events} <= {"alive"}
    (tmp_path / "may-rest").touch()
    assert events_until(executor, "done", "failed")[-1] == Event(first.key, "done")


def test_a_measurement_begins_beside_others_that_do_not_rest_in_time_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_work", computes)
    with closing(LocalExecutor(PLACES, patience=0.1)) as executor:
        measurement = begun_beside_a_training(executor, tmp_path)
        warning, end = (e for e in events_until(executor, "done", "failed") if e.kind != "alive")
    assert (warning.key, warning.kind, end.kind) == (measurement.key, "warning", "failed")
    assert warning.reason == "others do not rest, so that it is measured beside them"


def computes_beside(
    send: processes.Send, stop: Callable[[], bool], job: Job, place: Place, log: Path | None
) -> None:
    """As `computes`, but for a measurement."""
    work = local._work if job.stage.spec.alone else computes
    work(send, stop, job, place, log)


def test_a_stage_that_rests_is_alive_and_hears_that_it_is_to_stop(
    tmp_path: Path, executor: LocalExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_work", computes_beside)
    measurement = begun_beside_a_training(executor, tmp_path)
    assert events_until(executor, "alive")[-1] == Event(measurement.key, "alive")
    executor.stop(measurement.key)
    assert events_until(executor, "stopped", "done", "failed")[-1] == Event(measurement.key, "stopped")
    assert not (tmp_path / "rests").exists()


DRIVER = """
import multiprocessing, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
sys.path.insert(0, sys.argv[3])
from test_local import PLACES, job, sparse_stage
from sweeps.executors.local import LocalExecutor

if __name__ == "__main__":
    executor = LocalExecutor(PLACES)
    for epochs in (500, 501):
        executor.start(job(Path(sys.argv[1]), sparse_stage(epochs)))
    print(*(process.pid for process in multiprocessing.active_children()), flush=True)
    while True:
        for event in executor.poll(0.2):
            print(event.kind, flush=True)
"""


def test_workers_die_with_their_driver(tmp_path: Path) -> None:
    store = Store(tmp_path)
    trained, waited_for = (store.folder(sparse_stage(epochs)).path for epochs in (500, 501))
    waited_for.mkdir(parents=True)
    (tmp_path / "driver.py").write_text(DRIVER)
    here = Path(__file__).parent
    with FileLock(waited_for / ".lock"):  # so that one worker trains and the other waits
        driver = subprocess.Popen(
            [sys.executable, str(tmp_path / "driver.py"), str(tmp_path), str(here), str(here.parent)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        assert driver.stdout is not None
        workers = [int(pid) for pid in driver.stdout.readline().split()]
        assert len(workers) == 2
        while driver.stdout.readline() != "epoch\n":  # it trains
            assert driver.poll() is None
        assert all(is_alive(pid) for pid in workers)

        driver.send_signal(signal.SIGKILL)
        _, complaints = driver.communicate()

        wait_until_gone(workers)
    assert complaints == ""
    with FileLock(trained / ".lock", timeout=0):
        pass  # the worker's hold is gone too
