"""One stage at a time: what it leaves, and that it goes on where it was left."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import slimnet
from slimnet.errors import SlimnetError
from sweeps.config import load_config, resolve
from sweeps.machine import Slot
from sweeps.stages import Stage, Store, chain
from sweeps.worker import Job, Watch, compute


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def trial(*overrides: str) -> tuple[Stage, Stage, Stage]:
    settings = load_config("smoke", overrides)
    return chain(resolve(settings, {"sparse.lambda": 0.02, "prune.ratio": 0.5}), "float32")


def job(store: Store, stage: Stage) -> Job:
    return Job.of(stage, store, Slot("cpu", 1))


def stop_after(epochs: int) -> Watch:
    """A watch that says stop once so many epochs are done."""
    done = 0

    def note(epoch: int) -> None:
        nonlocal done
        done = epoch

    return Watch(epoch=note, stop=lambda: done >= epochs)


def written(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != ".lock"}


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, tuple[Stage, Stage, Stage]]:
    """A whole trial."""
    store, stages = Store(tmp_path_factory.mktemp("runs")), trial()
    for stage in stages:
        assert compute(job(store, stage), Watch())
    return store, stages


def test_sparse_training_leaves_its_metrics_and_network(computed: tuple[Store, tuple[Stage, ...]]) -> None:
    store, (stage, _, _) = computed
    record = store.read(stage)
    assert record.result is not None
    assert {"params", "macs", "loss", "train_accuracy", "val_accuracy", "test_accuracy", "near_zero"} <= set(
        record.metrics
    )
    assert record.metrics["val_accuracy"] > 0.5
    assert all(
        len(layer["edges"]) == len(layer["counts"]) + 1 for layer in record.metrics["gamma_layers"].values()
    )
    assert [row["epoch"] for row in record.history] == [1, 2]
    assert record.result["seconds"] > 0
    assert record.result["environment"]["threads"] == 1
    network = slimnet.load(store.folder(stage) / "checkpoint.pt")
    assert slimnet.count_params(network) == record.metrics["params"]


def test_pruning_makes_it_smaller_and_fine_tuning_keeps_its_size(
    computed: tuple[Store, tuple[Stage, ...]],
) -> None:
    store, stages = computed
    sparse, prune, finetune = (store.read(stage).metrics for stage in stages)
    assert prune["params"] < sparse["params"]
    assert prune["macs"] < sparse["macs"]
    assert 0 < prune["kept"] < prune["prunable"]
    assert (finetune["params"], finetune["macs"]) == (prune["params"], prune["macs"])
    assert finetune["val_accuracy"] >= prune["val_accuracy"]
    network = slimnet.load(store.folder(stages[2]) / "checkpoint.pt")
    assert network.widths == prune["widths"]


def test_lambda_is_steered_to_a_target_and_told_for_every_epoch(tmp_path: Path) -> None:
    store, settings = Store(tmp_path), load_config("smoke", ["search.space={sparse.target: [0.5]}"])
    stage = chain(resolve(settings, {"sparse.target": 0.5}), "float32")[0]
    assert not compute(job(store, stage), stop_after(1))
    assert compute(job(store, stage), Watch())
    path = [row["lambda"] for row in store.read(stage).history]
    assert len(path) == 2
    assert 0 < path[0] < path[1]


def test_fine_tuning_may_learn_from_the_network_before_pruning(
    computed: tuple[Store, tuple[Stage, ...]],
) -> None:
    store, (_, _, plain) = computed
    taught = trial("finetune.distill=0.9")[2]
    assert compute(job(store, taught), Watch())
    first, second = store.read(plain), store.read(taught)
    assert first.metrics["params"] == second.metrics["params"]
    assert first.history[0]["loss"] != second.history[0]["loss"]


def test_a_stage_that_has_its_result_is_not_computed_again(computed: tuple[Store, tuple[Stage, ...]]) -> None:
    store, stages = computed
    for stage in stages:
        before = {
            path: path.stat().st_mtime_ns for path in store.folder(stage).iterdir() if path.name != ".lock"
        }
        watch = Watch(epoch=lambda done: pytest.fail("an epoch was computed"))
        assert compute(job(store, stage), watch)
        after = {
            path: path.stat().st_mtime_ns for path in store.folder(stage).iterdir() if path.name != ".lock"
        }
        assert after == before


def test_a_stopped_stage_goes_on_and_ends_where_an_uninterrupted_one_does(
    tmp_path: Path, computed: tuple[Store, tuple[Stage, ...]]
) -> None:
    whole, (stage, _, _) = computed
    store = Store(tmp_path)
    assert not compute(job(store, stage), stop_after(1))
    assert (store.state(stage), store.epochs_done(stage)) == ("partial", 1)
    folder = store.folder(stage)
    first = json.loads((folder / "timing.json").read_text())["seconds"]
    (folder / ".checkpoint.pt.x1y2z3").write_bytes(b"half")  # what a killed worker was writing
    (folder / ".history.jsonl.x1y2z3").write_bytes(b"half")

    epochs: list[int] = []
    assert compute(job(store, stage), Watch(epoch=epochs.append))

    assert epochs == [2]
    assert store.read(stage).history == whole.read(stage).history
    assert store.read(stage).metrics == whole.read(stage).metrics
    assert (store.read(stage).result or {})["seconds"] > first
    assert not list(folder.glob(".*.x1y2z3"))


def test_an_epoch_saved_but_not_reported_is_reported_and_not_computed_again(tmp_path: Path) -> None:
    store, stage = Store(tmp_path), trial()[0]

    def die(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compute(job(store, stage), Watch(epoch=die))
    (store.folder(stage) / "history.jsonl").unlink()  # as if killed between checkpoint and history

    epochs: list[int] = []
    steps: set[int] = set()
    assert compute(job(store, stage), Watch(epoch=epochs.append, step=lambda epoch, *_: steps.add(epoch)))
    assert epochs == [1, 2]
    assert steps == {2}


def test_divergence_is_an_error_that_says_where(tmp_path: Path) -> None:
    store, stage = Store(tmp_path), trial("sparse.lr=1e20")[0]
    with pytest.raises(SlimnetError, match=r"epoch 1, step \d+ of \d+"):
        compute(job(store, stage), Watch())
    assert store.state(stage) == "missing"


def test_a_damaged_parent_is_named_with_what_to_do(
    tmp_path: Path, computed: tuple[Store, tuple[Stage, ...]]
) -> None:
    store, (sparse, prune, _) = Store(tmp_path), computed[1]
    checkpoint = store.prepare(sparse) / "checkpoint.pt"
    checkpoint.write_bytes(b"half a file")
    with pytest.raises(SlimnetError) as caught:
        compute(job(store, prune), Watch())
    assert str(checkpoint) in str(caught.value)
    assert f"delete the folder {checkpoint.parent}" in str(caught.value)


HOLD = """
import sys, filelock
lock = filelock.FileLock(sys.argv[1])
lock.acquire()
print(flush=True)
sys.stdin.read()
"""


@contextmanager
def held(path: Path) -> Iterator[Callable[[], None]]:
    """A lock held by another process; yields what frees it."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], **pipes) as process:  # type: ignore[call-overload]
        process.stdout.readline()
        yield process.terminate
        process.terminate()


def test_a_worker_waits_for_one_that_computes_the_same_stage(
    tmp_path: Path, computed: tuple[Store, tuple[Stage, ...]]
) -> None:
    done, (stage, _, _) = computed
    store = Store(tmp_path)
    work = job(store, stage)
    with held(work.folder / ".lock") as free:
        outcome: list[bool] = []
        waiting = threading.Thread(target=lambda: outcome.append(compute(work, Watch())))
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive()
        (work.folder / "result.json").write_bytes((done.folder(stage) / "result.json").read_bytes())
        free()
        waiting.join(30)
    assert outcome == [True]
    assert not (work.folder / "checkpoint.pt").exists()  # the other's result was taken


def test_a_worker_that_waits_can_be_stopped(tmp_path: Path) -> None:
    store, stage = Store(tmp_path), trial()[0]
    work, stop = job(store, stage), threading.Event()
    with held(work.folder / ".lock"):
        threading.Timer(0.3, stop.set).start()
        assert not compute(work, Watch(stop=stop.is_set))
    assert store.state(stage) == "missing"
