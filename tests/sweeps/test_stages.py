"""Stage keys, which decide what is shared and what is computed again, and the store of stage folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from slimnet.errors import SlimnetError
from sweeps.config import load_config, resolve
from sweeps.files import write_json, write_lines
from sweeps.stages import Stage, Store, chain, dense_stage

PARAMS = {"sparse.lambda": 0.02, "prune.ratio": 0.5}


def stages(*overrides: str, precision: str = "float32", **params: float) -> tuple[Stage, Stage, Stage]:
    settings = load_config("smoke", overrides)
    return chain(resolve(settings, PARAMS | params), precision)  # type: ignore[arg-type]


def changed(*overrides: str, precision: str = "float32") -> list[str]:
    """The kinds of stages whose keys are other than those of the unchanged config."""
    return [
        new.kind
        for old, new in zip(stages(), stages(*overrides, precision=precision), strict=True)
        if new.key != old.key
    ]


def test_the_key_follows_from_the_spec_alone() -> None:
    first, second = stages(), stages()
    assert [stage.key for stage in first] == [stage.key for stage in second]
    for stage in first:
        again = Stage(stage.kind, json.loads(json.dumps(stage.spec)))  # as read back from spec.json
        assert again.key == stage.key


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "data.image_size=14",
        "data.validation=0.3",
        "data.crop=1",
        "data.flip=true",
        "model.width=16",
        "model.blocks=[1]",
        "model.stem=imagenet",
        "sparse.epochs=3",
        "sparse.lr=0.2",
        "sparse.optimizer=adam",
        "sparse.momentum=0.8",
        "sparse.weight_decay=0",
        "sparse.schedule=cosine",
        "sparse.batch_size=64",
        "sparse.penalty=proximal",
        "sparse.lambda_schedule=warmup-tail",
    ],
)
def test_what_sparse_training_depends_on_changes_every_key(override: str) -> None:
    assert changed(override) == ["sparse", "prune", "finetune"]


@pytest.mark.parametrize(
    ("override", "kinds"),
    [
        ("prune.min_channels=2", ["prune", "finetune"]),
        ("prune.absorb=false", ["prune", "finetune"]),
        ("prune.recalibrate=5", ["prune", "finetune"]),
        ("prune.threshold_over=all", ["prune", "finetune"]),
        ("finetune.epochs=2", ["finetune"]),
        ("finetune.lr=0.01", ["finetune"]),
        ("finetune.schedule=rewind", ["finetune"]),
        ("finetune.distill=0.5", ["finetune"]),
        ("finetune.temperature=2", []),  # of no distillation
    ],
)
def test_later_settings_leave_earlier_stages_as_they_are(override: str, kinds: list[str]) -> None:
    assert changed(override) == kinds


@pytest.mark.parametrize(
    "override",
    [
        "study=other",
        "workers=3",
        "device=cpu",
        "wandb.mode=offline",
        "wandb.project=other",
        "search.trials=5",
        "search.sampler=grid",
        "search.ahead=2",
    ],
)
def test_where_and_by_whom_it_is_computed_changes_no_key(override: str) -> None:
    assert changed(override) == []


def test_precision_is_part_of_training_and_the_data_folder_is_not() -> None:
    assert changed(precision="bfloat16") == ["sparse", "prune", "finetune"]
    assert not any("path" in json.dumps(stage.spec) for stage in stages())


def test_trials_share_the_stages_that_they_have_in_common() -> None:
    half, most, stronger = stages(), stages(**{"prune.ratio": 0.9}), stages(**{"sparse.lambda": 0.03})
    assert half[0].key == most[0].key
    assert half[1].key != most[1].key
    assert half[0].key != stronger[0].key


def test_a_trial_without_penalty_shares_the_dense_baseline() -> None:
    dense = dense_stage(load_config("smoke"), "float32")
    assert stages(**{"sparse.lambda": 0.0})[0].key == dense.key
    assert stages()[0].key != dense.key


def test_the_dense_baseline_is_one_whatever_the_penalty() -> None:
    dense = dense_stage(load_config("smoke"), "float32")
    for override in ("sparse.penalty=proximal", "sparse.lambda_schedule=warmup-tail"):
        assert dense_stage(load_config("smoke", [override]), "float32").key == dense.key
    steered = load_config("smoke", ["search.space={sparse.target: [0.5, 0.9]}"])
    assert dense_stage(steered, "float32").key == dense.key
    half, most = (chain(resolve(steered, {"sparse.target": target}), "float32")[0] for target in (0.5, 0.9))
    assert len({dense.key, half.key, most.key}) == 3


def test_temperature_counts_where_there_is_a_teacher() -> None:
    warm, cold = (stages("finetune.distill=0.5", f"finetune.temperature={t}")[2] for t in (4, 2))
    assert warm.key != cold.key
    assert warm.teacher == stages()[0]


def test_recalibration_draws_batches_of_the_training(tmp_path: Path) -> None:
    assert changed("prune.recalibrate=0") == []
    calibrated = [stages("prune.recalibrate=5", crop)[1].spec for crop in ("data.crop=0", "data.crop=1")]
    assert calibrated[0]["calibration"] != calibrated[1]["calibration"]


def test_a_stage_passes_through_its_states(tmp_path: Path) -> None:
    store, stage = Store(tmp_path), stages()[0]
    assert (store.state(stage), store.epochs_done(stage)) == ("missing", 0)
    assert list(tmp_path.iterdir()) == []  # asking makes nothing

    folder = store.prepare(stage)
    assert folder == tmp_path / "stages" / "sparse" / stage.key
    assert json.loads((folder / "spec.json").read_text()) == stage.spec
    assert store.state(stage) == "missing"

    write_lines(folder / "history.jsonl", [{"epoch": 1}])
    assert (store.state(stage), store.epochs_done(stage)) == ("partial", 1)

    store.fail(stage, "the loss became nan", "a traceback")
    assert store.state(stage) == "failed"
    assert store.read(stage).failure == {"reason": "the loss became nan", "detail": "a traceback"}

    store.clear([stage])
    assert (store.state(stage), store.epochs_done(stage)) == ("partial", 1)  # its epochs are not lost

    write_json(folder / "result.json", {"metrics": {"params": 5}})
    assert (store.state(stage), store.epochs_done(stage)) == ("done", 2)
    record = store.read(stage)
    assert (record.history, record.metrics) == ([{"epoch": 1}], {"params": 5})


def test_clearing_a_failure_drops_a_damaged_checkpoint(tmp_path: Path) -> None:
    store, stage = Store(tmp_path), stages()[0]
    checkpoint = store.prepare(stage) / "checkpoint.pt"
    checkpoint.write_bytes(b"half a file")
    store.fail(stage, "damaged", "")
    store.clear([stage])
    assert not checkpoint.exists()


@pytest.mark.parametrize("name", ["result.json", "failure.json", "history.jsonl"])
def test_a_damaged_file_is_named_with_what_to_do(tmp_path: Path, name: str) -> None:
    store, stage = Store(tmp_path), stages()[0]
    folder = store.prepare(stage)
    (folder / name).write_text('{"metrics": ')
    with pytest.raises(SlimnetError) as caught:
        store.read(stage)
    assert str(folder / name) in str(caught.value)
    assert f"delete the folder {folder}" in str(caught.value)
