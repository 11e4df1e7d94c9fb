"""What every executor does, whatever it computes stages with."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from benchmarks import instant
from sweeps.config import load_config, resolve
from sweeps.executors import Event, Executor
from sweeps.executors.inline import InlineExecutor
from sweeps.executors.local import LocalExecutor
from sweeps.jobs import Job, Place
from sweeps.stages import Stage, Store, chain

ENDLESS = 5000  # epochs: hours


@dataclass
class Lab:
    """An executor with two places, and what makes one of its stages vanish."""

    executor: Executor
    lose: Callable[[str], None]
    store: Store

    def start(self, stage: Stage) -> Job:
        job = Job(stage, self.store)
        self.store.folder(stage).prepare(stage)
        assert self.executor.start(job)
        return job

    def events(self, until: Callable[[Event], bool]) -> list[Event]:
        """All events up to the first for which `until` holds."""
        events: list[Event] = []
        while not any(map(until, events)):
            assert not any(event.kind in ("failed", "lost") for event in events), events
            events += self.executor.poll(1.0)
        return events

    def ends(self, count: int) -> dict[str, Event]:
        """The events that end the next `count` stages, by key."""
        events: list[Event] = []
        while len([event for event in events if event.ends]) < count:
            events += self.executor.poll(1.0)
        return {event.key: event for event in events if event.ends}


def local(store: Store, request: pytest.FixtureRequest) -> Lab:
    executor = LocalExecutor([Place("cpu", 1), Place("cpu", 1)])

    def lose(key: str) -> None:
        (process,) = (p for p in multiprocessing.active_children() if p.name.endswith(key))
        os.kill(process.pid or 0, signal.SIGKILL)

    return Lab(executor, lose, store)


def inline(store: Store, request: pytest.FixtureRequest) -> Lab:
    """networks cannot be recorded in two threads at once, so what is computed here is made up."""
    executor = InlineExecutor(instant.unhurried, workers=2)
    return Lab(executor, executor.kill, store)


def on_ray(store: Store, request: pytest.FixtureRequest) -> Lab:
    cluster = request.getfixturevalue("cluster")
    import ray

    from sweeps.executors.ray import RayExecutor

    executor = RayExecutor(cluster, Place("cpu", 1), workers=2, compute=instant.unhurried)

    def lose(key: str) -> None:
        (actor,) = (a for a in ray.util.list_named_actors(all_namespaces=True) if key in a["name"])
        ray.kill(ray.get_actor(**actor))

    return Lab(executor, lose, store)


@pytest.fixture(params=[local, inline, on_ray])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    lab: Lab = request.param(Store(tmp_path), request)
    yield lab
    lab.executor.close()


def sparse_stage(epochs: int = 2, lr: float = 0.1) -> Stage:
    settings = load_config("smoke", [f"sparse.epochs={epochs}", f"sparse.lr={lr}"])
    return chain(resolve(settings, {"sparse.lambda": 0.02, "prune.ratio": 0.5}), "float32")[0]


def an_epoch_of(stage: Stage) -> Callable[[Event], bool]:
    return lambda event: event.kind == "epoch" and event.key == stage.key


def test_a_stage_tells_of_its_epochs_and_its_end_and_frees_its_place(lab: Lab) -> None:
    stage = sparse_stage()
    assert lab.executor.capacity() == 2
    lab.start(stage)
    assert lab.executor.capacity() == 1

    events = lab.events(lambda event: event.ends)

    assert events[-1] == Event(stage.key, "done")
    rows = [event.row for event in events if event.kind == "epoch"]
    assert rows == [
        {k: v for k, v in row.items() if k != "gamma"} for row in lab.store.folder(stage).history()
    ]
    assert [row["epoch"] for row in rows] == [1, 2]
    assert lab.executor.capacity() == 2
    assert lab.store.folder(stage).state() == "done"
    assert lab.executor.poll(0) == []


def test_a_stage_that_is_done_already_ends_at_once(lab: Lab) -> None:
    stage = sparse_stage(epochs=1)
    for _ in range(2):
        lab.start(stage)
        events = lab.events(lambda event: event.ends)
    assert [event.kind for event in events if event.kind != "alive"] == ["done"]  # it may wait for a place


def test_what_the_computation_says_is_wrong_is_a_failure_with_its_reason(lab: Lab) -> None:
    diverging, whole = sparse_stage(lr=1e20), sparse_stage(epochs=3)
    defective = replace(whole, spec=whole.spec.model_copy(update={"recipe": None}))
    defective.__dict__["key"] = "defective"
    lab.start(diverging)
    lab.start(defective)

    ends = lab.ends(2)

    assert {event.kind for event in ends.values()} == {"failed"}
    assert "learning rate" in ends[diverging.key].reason
    assert not ends[diverging.key].detail
    assert ends[defective.key].reason.startswith("AttributeError: ")
    assert "Traceback" in ends[defective.key].detail
    assert lab.store.folder(diverging).state() == "missing"  # a failure is the driver's to keep


def test_stop_ends_one_stage_after_the_epoch_in_hand_and_it_goes_on_from_there(lab: Lab) -> None:
    stage, other = sparse_stage(ENDLESS), sparse_stage(ENDLESS, lr=0.05)
    lab.start(stage)
    lab.start(other)
    lab.events(an_epoch_of(stage))

    lab.executor.stop("no such stage")
    lab.executor.stop(stage.key)
    assert lab.ends(1)[stage.key].kind == "stopped"

    kept = lab.store.folder(stage).epochs_done()
    assert 1 <= kept < ENDLESS
    assert lab.executor.capacity() == 1
    lab.start(stage)
    events = lab.events(an_epoch_of(stage))
    assert next(event.epoch for event in events if an_epoch_of(stage)(event)) == kept + 1


def test_a_stage_that_vanishes_is_lost_and_no_other_and_goes_on_from_its_checkpoint(lab: Lab) -> None:
    doomed, other = sparse_stage(ENDLESS), sparse_stage(ENDLESS, lr=0.05)
    lab.start(doomed)
    lab.start(other)
    lab.events(an_epoch_of(doomed))

    lab.lose(doomed.key)
    ends = lab.ends(1)

    assert list(ends) == [doomed.key]
    assert ends[doomed.key].kind == "lost"
    assert ends[doomed.key].reason
    lab.events(an_epoch_of(other))
    kept = lab.store.folder(doomed).epochs_done()
    lab.start(doomed)
    events = lab.events(an_epoch_of(doomed))
    first = next(event.epoch for event in events if an_epoch_of(doomed)(event))
    assert 1 < first <= kept + 1  # one that was saved is told of, one that was not is computed again


def test_close_ends_everything_without_news_and_leaves_what_was_done(lab: Lab) -> None:
    stages = [sparse_stage(ENDLESS), sparse_stage(ENDLESS, lr=0.05)]
    for stage in stages:
        lab.start(stage)
    for stage in stages:
        if not lab.store.folder(stage).epochs_done():
            lab.events(an_epoch_of(stage))

    lab.executor.close()

    assert lab.executor.capacity() == 2
    assert lab.executor.poll(0) == []
    for stage in stages:
        folder = lab.store.folder(stage)
        assert (folder.state(), folder.epochs_done() > 0) == ("partial", True)
        with folder.hold(lambda: False) as alone:  # nobody has it any more
            assert alone
