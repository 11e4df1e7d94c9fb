"""One stage at a time: what it leaves, and that it goes on where it was left."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

import slimnet
from slimnet.errors import SlimnetError
from sweeps import worker
from sweeps.claim import ClaimLostError
from sweeps.config import load_config, resolve
from sweeps.config.sections import ControlKind
from sweeps.jobs import DamagedInputError, Job, Place, Watch
from sweeps.records import Row
from sweeps.stages import Stage, StageFolder, Store, chain, control, curve_stage, remote
from sweeps.stages.remote import UnreachableError
from sweeps.worker import compute


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def trial(*overrides: str) -> tuple[Stage, ...]:
    settings = load_config("smoke", overrides)
    return chain(resolve(settings, {"sparse.lambda": 0.02, "prune.ratio": 0.5}), "float32")


PLACE = Place("cpu", 1)
KINDS_OF_CONTROL: tuple[ControlKind, ...] = get_args(ControlKind)


def run(store: Store, stage: Stage, watch: Watch = Watch()) -> bool:  # noqa: B008 - it is frozen
    store.folder(stage).prepare(stage)
    return compute(Job(stage, store), PLACE, watch)


def stop_after(epochs: int) -> Watch:
    """A watch that says stop once so many epochs are done."""
    done = 0

    def note(row: Row) -> None:
        nonlocal done
        done = row["epoch"]

    return Watch(epoch=note, stop=lambda: done >= epochs)


def written(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != ".lock"}


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, tuple[Stage, ...]]:
    """A whole trial."""
    store, stages = Store(tmp_path_factory.mktemp("runs")), trial()
    for stage in stages:
        assert run(store, stage)
    return store, stages


def test_sparse_training_leaves_its_metrics_and_network(computed: tuple[Store, tuple[Stage, ...]]) -> None:
    store, (stage, _, _) = computed
    record = store.folder(stage).read(stage)
    assert record.result is not None
    assert {"params", "macs", "loss", "train_accuracy", "val_accuracy", "test_accuracy", "near_zero"} <= set(
        record.metrics
    )
    assert record.metrics["val_accuracy"] > 0.5
    assert all(len(layer["edges"]) == len(layer["counts"]) + 1 for layer in record.gamma_layers.values())
    assert [row["epoch"] for row in record.history] == [1, 2]
    assert record.result["seconds"] > 0
    assert record.result["environment"]["threads"] == 1
    assert record.result["peak_bytes"] > 2**26  # torch alone takes 64 MiB
    network = slimnet.load(store.folder(stage).checkpoint)
    assert slimnet.count_params(network) == record.metrics["params"]


def test_pruning_makes_it_smaller_and_fine_tuning_keeps_its_size(
    computed: tuple[Store, tuple[Stage, ...]],
) -> None:
    store, stages = computed
    sparse, prune, finetune = (store.folder(stage).read(stage).metrics for stage in stages)
    assert prune["params"] < sparse["params"]
    assert prune["macs"] < sparse["macs"]
    assert 0 < prune["kept"] < prune["prunable"]
    assert (finetune["params"], finetune["macs"]) == (prune["params"], prune["macs"])
    assert finetune["val_accuracy"] >= prune["val_accuracy"]
    network = slimnet.load(store.folder(stages[2]).checkpoint)
    assert network.widths == prune["widths"]


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("{name: basic-resnet, blocks: [1, 1], width: 8}", slimnet.models.ResNet),
        ("{name: vgg, blocks: [1, 1], width: 8}", slimnet.models.VGG),
    ],
)
def test_other_families_go_the_whole_way(tmp_path: Path, model: str, kind: type) -> None:
    store, stages = Store(tmp_path), trial(f"model={model}", "prune.streams=true", "sparse.epochs=1")
    for stage in stages:
        assert run(store, stage)
    sparse, prune, finetune = (store.folder(stage).read(stage).metrics for stage in stages)
    assert finetune["params"] == prune["params"] < sparse["params"]
    network = slimnet.load(store.folder(stages[2]).checkpoint)
    assert isinstance(network, kind)
    assert network.widths == prune["widths"]


def test_lambda_is_steered_to_a_target_and_told_for_every_epoch(tmp_path: Path) -> None:
    store, settings = Store(tmp_path), load_config("smoke", ["search.space={sparse.target: [0.5]}"])
    stage = chain(resolve(settings, {"sparse.target": 0.5}), "float32")[0]
    assert not run(store, stage, stop_after(1))
    assert run(store, stage)
    path = [row["lambda"] for row in store.folder(stage).read(stage).history]
    assert len(path) == 2
    assert 0 < path[0] < path[1]


def test_fine_tuning_may_learn_from_the_network_before_pruning(
    computed: tuple[Store, tuple[Stage, ...]],
) -> None:
    store, (_, _, plain) = computed
    taught = trial("finetune.distill=0.9")[2]
    assert run(store, taught)
    first, second = (store.folder(stage).read(stage) for stage in (plain, taught))
    assert first.metrics["params"] == second.metrics["params"]
    assert first.history[0]["loss"] != second.history[0]["loss"]


def test_a_curve_leaves_its_rows_and_no_network(computed: tuple[Store, tuple[Stage, ...]]) -> None:
    store, (sparse, prune, _) = computed
    stage = curve_stage(sparse, load_config("smoke"))
    assert run(store, stage)
    record, before = store.folder(stage).read(stage), store.folder(sparse).read(sparse).metrics
    rows = record.metrics["curve"]
    assert record.state == "done"
    assert list(record.metrics) == ["curve"]
    assert (rows[0]["params"], rows[0]["copied"]) == (before["params"], before["val_accuracy"])
    pruned = store.folder(prune).read(prune).metrics
    (half,) = (row for row in rows if row["ratio"] == 0.5)
    assert (half["params"], half["absorbed"]) == (pruned["params"], pruned["val_accuracy"])
    assert written(store.folder(stage).path).keys() == {
        store.folder(stage).path / name for name in ("spec.json", "result.json")
    }


def test_a_stage_that_has_its_result_is_not_computed_again(computed: tuple[Store, tuple[Stage, ...]]) -> None:
    store, stages = computed
    for stage in stages:
        before = written(store.folder(stage).path)
        watch = Watch(epoch=lambda row: pytest.fail("an epoch was computed"))
        assert run(store, stage, watch)
        assert written(store.folder(stage).path) == before


def test_a_stopped_stage_goes_on_and_ends_where_an_uninterrupted_one_does(
    tmp_path: Path, computed: tuple[Store, tuple[Stage, ...]]
) -> None:
    whole, (stage, _, _) = computed
    store = Store(tmp_path)
    assert not run(store, stage, stop_after(1))
    assert (store.folder(stage).state(), store.folder(stage).epochs_done()) == ("partial", 1)
    folder = store.folder(stage).path
    first = json.loads((folder / "timing.json").read_text())["seconds"]
    (folder / ".checkpoint.pt.x1y2z3").write_bytes(b"half")  # what a killed worker was writing
    (folder / ".history.jsonl.x1y2z3").write_bytes(b"half")

    epochs: list[int] = []
    assert run(store, stage, Watch(epoch=lambda row: epochs.append(row["epoch"])))

    assert epochs == [2]
    assert store.folder(stage).read(stage).history == whole.folder(stage).read(stage).history
    assert store.folder(stage).read(stage).metrics == whole.folder(stage).read(stage).metrics
    assert (store.folder(stage).read(stage).result or {})["seconds"] > first
    assert not list(folder.glob(".*.x1y2z3"))


def test_an_epoch_saved_but_not_reported_is_reported_and_not_computed_again(tmp_path: Path) -> None:
    store, stage = Store(tmp_path), trial()[0]

    def die(row: Row) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(store, stage, Watch(epoch=die))
    (store.folder(stage).path / "history.jsonl").unlink()  # as if killed between checkpoint and history

    rows: list[Row] = []
    steps: set[int] = set()
    assert run(store, stage, Watch(epoch=rows.append, step=lambda epoch, *_: steps.add(epoch)))
    assert [row["epoch"] for row in rows] == [1, 2]
    assert steps == {2}


def test_divergence_is_an_error_that_says_where(tmp_path: Path) -> None:
    store, stage = Store(tmp_path), trial("sparse.lr=1e20")[0]
    with pytest.raises(SlimnetError, match=r"epoch 1, step \d+ of \d+"):
        run(store, stage)
    assert store.folder(stage).state() == "missing"


@pytest.mark.parametrize(
    ("content", "defect"),
    [(b"half a file", "is not a slimnet file"), (None, "is missing"), (b"", "is missing")],
)
def test_a_damaged_parent_is_no_failure_of_the_stage(
    content: bytes | None, defect: str, tmp_path: Path, computed: tuple[Store, tuple[Stage, ...]]
) -> None:
    store, (sparse, prune, _) = Store(tmp_path), computed[1]
    store.folder(sparse).prepare(sparse)
    checkpoint = store.folder(sparse).checkpoint
    if content is not None:
        checkpoint.write_bytes(content)
    if content:  # else it is not done
        store.folder(sparse).commit({"kind": "sparse"})
    with pytest.raises(DamagedInputError) as caught:
        run(store, prune)
    assert caught.value.role == "parent"
    assert str(checkpoint) in str(caught.value)
    assert defect in str(caught.value)


def test_a_training_in_progress_is_no_network_of_a_finished_stage(
    tmp_path: Path, computed: tuple[Store, tuple[Stage, ...]]
) -> None:
    store, (sparse, prune, _) = Store(tmp_path), computed[1]
    assert not run(store, sparse, stop_after(1))
    store.folder(sparse).commit({"kind": "sparse"})  # another machine's, whose checkpoint was replaced
    with pytest.raises(DamagedInputError, match="holds a training in progress") as caught:
        run(store, prune)
    assert caught.value.role == "parent"


@pytest.mark.parametrize("epoch", [2, None])
def test_a_worker_that_wakes_up_leaves_the_network_of_another_machine(
    tmp_path: Path, epoch: int | None
) -> None:
    store, stage = Store(tmp_path), trial("sparse.epochs=2")[0]
    folder = store.folder(stage)

    def taken_over(at: int) -> None:
        if at == (epoch or 2):
            (folder.path / ".lease").write_text('{"machine": "another", "owner": "other", "beats": 0}')
            folder.checkpoint.write_bytes(b"the finished network")

    by_step = Watch(step=lambda epoch, step, steps: taken_over(epoch))
    by_epoch = Watch(epoch=lambda row: taken_over(row["epoch"]))
    with pytest.raises(ClaimLostError):
        run(store, stage, by_step if epoch else by_epoch)
    assert folder.checkpoint.read_bytes() == b"the finished network"
    assert folder.state() == "partial"


def test_an_outage_while_a_damaged_copy_is_replaced_is_waited_for(
    tmp_path: Path, computed: tuple[Store, tuple[Stage, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    done, (sparse, prune, _) = computed
    store = Store(tmp_path)
    folder = store.folder(sparse)
    shutil.copytree(done.folder(sparse).path, folder.path)
    intact, tries, told = folder.checkpoint.read_bytes(), list[bool](), list[str]()

    def drop(folder: StageFolder) -> bool:
        folder.checkpoint.unlink()
        return True

    def fetch(folder: StageFolder) -> None:
        if not folder.checkpoint.is_file():
            tries.append(True)
            if len(tries) < 4:
                raise UnreachableError("the place is out of reach")
            folder.checkpoint.write_bytes(intact)

    monkeypatch.setattr(remote, "PAUSE", 0.01)
    monkeypatch.setattr(StageFolder, "drop_network", drop)
    monkeypatch.setattr(StageFolder, "fetch_network", fetch)
    folder.checkpoint.write_bytes(b"half a file")
    assert not run(store, prune, Watch(stop=lambda: bool(tries)))
    folder.checkpoint.write_bytes(b"half a file")
    assert run(store, prune, Watch(warning=told.append))
    assert told == ["the place is out of reach; it is waited for"]


@pytest.mark.parametrize("use", ["load_splits", "load_network"])
def test_a_copy_that_is_dropped_before_it_is_used_is_fetched_again(
    use: str, tmp_path: Path, computed: tuple[Store, tuple[Stage, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others of the machine drop copies; the network at the URL is whole, and is not computed anew."""
    done, (sparse, prune, _) = computed
    store = Store(tmp_path / "runs", f"file://{tmp_path}/place")
    folder, dropped = store.folder(sparse), list[bool]()
    shutil.copytree(done.folder(sparse).path, folder.path)
    folder.publish()
    before = list((tmp_path / "place").rglob("checkpoint-*"))
    original = getattr(worker, use)

    def slowly(*args: Any) -> Any:
        if not dropped:
            dropped.append(folder.drop_network())
        return original(*args)

    monkeypatch.setattr(worker, use, slowly)
    assert run(store, prune)
    assert dropped == [True]
    assert before
    assert set(before) < set((tmp_path / "place").rglob("checkpoint-*"))


def test_early_epochs_are_kept_where_only_the_result_is_missing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    early = trial("sparse.epochs=3", "finetune.weights=early", "finetune.rewind_to=1")[1]
    assert early.kind == "early"
    assert run(store, early)
    result = store.folder(early).path / "result.json"
    before = json.loads(result.read_text())["metrics"]
    result.unlink()
    rows: list[Row] = []
    assert run(store, early, Watch(epoch=rows.append))
    assert json.loads(result.read_text())["metrics"] == before
    assert rows == []


def test_a_worker_waits_for_one_that_computes_the_same_stage(
    tmp_path: Path, computed: tuple[Store, tuple[Stage, ...]]
) -> None:
    done, (stage, _, _) = computed
    store, folder = Store(tmp_path), Store(tmp_path).folder(stage)
    folder.prepare(stage)
    looks, outcome = threading.Semaphore(0), list[bool]()

    def look() -> bool:
        looks.release()
        return False

    waiting = threading.Thread(target=lambda: outcome.append(run(store, stage, Watch(stop=look))))
    with folder.hold(lambda: False):
        waiting.start()
        for _ in range(3):
            looks.acquire()
        assert outcome == []
        result = (done.folder(stage).path / "result.json").read_bytes()
        (folder.path / "result.json").write_bytes(result)
    waiting.join()
    assert outcome == [True]
    assert not folder.checkpoint.exists()  # the other's result was taken


def test_a_worker_that_waits_can_be_stopped(tmp_path: Path) -> None:
    store, stage = Store(tmp_path), trial()[0]
    folder, looks = store.folder(stage), iter([False, False, True, True])
    folder.prepare(stage)
    with folder.hold(lambda: False):
        assert not run(store, stage, Watch(stop=lambda: next(looks)))
    assert folder.state() == "missing"


# Early weights and controls


def metrics(store: Store, stage: Stage) -> dict[str, Any]:
    return store.folder(stage).read(stage).metrics


def state(store: Store, stage: Stage) -> dict[str, torch.Tensor]:
    return dict(slimnet.load(store.folder(stage).checkpoint).state_dict())


def test_early_weights_are_cut_by_the_scores_of_the_whole_training(
    computed: tuple[Store, tuple[Stage, ...]],
) -> None:
    store, (sparse, late, _) = computed
    same, early, prune, _ = trial("finetune.weights=early", "prune.absorb=false")
    plain = trial("prune.absorb=false")[1]
    assert same.key == sparse.key
    for stage in (early, prune, plain):
        assert run(store, stage)
    assert store.folder(early).history() == store.folder(sparse).history()[:1]
    assert metrics(store, prune)["threshold"] == metrics(store, plain)["threshold"]
    assert metrics(store, prune)["widths"] == metrics(store, late)["widths"]
    cut, whole = state(store, prune)["fc.weight"], state(store, early)["fc.weight"]
    assert torch.equal(cut, whole), "the classifier loses nothing here"
    assert not torch.equal(cut, state(store, plain)["fc.weight"])


def test_controls_are_as_large_as_their_trial_and_other_networks(
    computed: tuple[Store, tuple[Stage, ...]],
) -> None:
    store, stages = computed
    params = metrics(store, stages[-1])["params"]
    settings = resolve(load_config("smoke"), {"sparse.lambda": 0.02, "prune.ratio": 0.5})
    sizes = {}
    for kind in KINDS_OF_CONTROL:
        found = control(kind, settings, "float32", params=params)
        for stage in found:
            assert run(store, stage)
        sizes[kind] = metrics(store, found[-1])["params"]
        assert len(store.folder(found[-1]).history()) == {"uniform": 3, "scratch": 3, "random": 1}[kind]
    assert sizes["scratch"] == sizes["random"] == params
    assert 0.5 * params < sizes["uniform"] <= params
