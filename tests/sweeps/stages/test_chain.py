"""Trials as chains of stages, and the keys that decide what is shared and what is computed again."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from slimnet.data.catalogue import fingerprint
from slimnet.precision import Precision
from sweeps.config import load_config, resolve
from sweeps.config.sections import ControlKind
from sweeps.stages import Stage, chain, control, curve_stage, dense_stage, parse_spec
from sweeps.stages.chain import ratio_of_pass
from sweeps.stages.prune import PruneSpec

PARAMS = {"sparse.lambda": 0.02, "prune.ratio": 0.5}


def stages(
    *overrides: str, precision: Precision = "float32", params: Mapping[str, float] = PARAMS
) -> tuple[Stage, ...]:
    return chain(resolve(load_config("smoke", overrides), {**PARAMS, **params}), precision)


def changed(*overrides: str, precision: Precision = "float32") -> list[str]:
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
        again = parse_spec(json.loads(json.dumps(stage.spec.dump())))  # as read back from spec.json
        assert (again, again.key()) == (stage.spec, stage.key)


def test_keys_stay_what_they_are() -> None:
    """Other keys mean that finished work is computed again: raise FORMAT, and change these, on purpose."""
    assert [stage.key for stage in stages()] == ["7473aa33ceec0c5d", "01f71cee070b48fc", "73046753054e10f8"]
    later = stages("passes=2")
    assert [stage.key for stage in later[3:]] == ["d4257921b0e08301", "062b04a97335a1bd", "ae57a61f2c8eafe1"]


def test_keys_of_networks_stay_what_they_are() -> None:
    """Of those with other sizes than the smoke config's."""
    keys = {
        "{name: resnet, blocks: [1, 1]}": "60aa8e51534cd016",
        "{name: resnet50, stem: cifar-maxpool}": "ae625837643055a2",
        "{name: resnet56}": "5e7085949309a1af",
        "{name: basic-resnet, blocks: [1, 1]}": "4e2af77172a3fd34",
        "{name: vgg16}": "8ce7b68d0ad2d41a",
    }
    assert {model: stages(f"model={model}")[0].key for model in keys} == keys


def test_a_field_at_its_default_is_in_no_key() -> None:
    spelled = stages(
        "sparse.optimizer=sgd",
        "prune.score=gamma",
        "finetune.evaluate_every=1",
        "finetune.weights=pruned",
        "finetune.rewind_to=1",
        "passes=1",
    )
    assert [stage.key for stage in spelled] == [stage.key for stage in stages()]
    given = stages()[1].spec.model_dump(exclude_defaults=True)
    assert given.keys() == {"seed", "data", "parent", "prune"}


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "data.image_size=14",
        "data.validation=0.3",
        "data.crop=1",
        "data.flip=true",
        "data.vertical_flip=true",
        "data.resized_crop=0.5",
        "data.jitter=0.4",
        "data.randaugment=2",
        "data.cutout=0.5",
        "data.mixup=0.2",
        "data.mean=[0.5]",
        "data.std=[0.5]",
        "model.width=16",
        "model.blocks=[1]",
        "model.stem=imagenet",
        "model.name=basic-resnet",
        "model.name=vgg",
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
        ("finetune.weights=fresh", ["finetune"]),
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
        "finetune.rewind_to=2",  # of no early weights
        "controls={uniform: true, scratch: true, random: true}",
        "confirm={seeds: 3, points: 2}",
    ],
)
def test_where_and_by_whom_it_is_computed_changes_no_key(override: str) -> None:
    assert changed(override) == []


def test_precision_is_part_of_training_and_the_data_folder_is_not() -> None:
    assert changed(precision="bfloat16") == ["sparse", "prune", "finetune"]
    assert not any("path" in json.dumps(stage.spec.dump()) for stage in stages())


def test_trials_share_the_stages_that_they_have_in_common() -> None:
    half, most, stronger = (
        stages(),
        stages(params={"prune.ratio": 0.9}),
        stages(params={"sparse.lambda": 0.03}),
    )
    assert half[0].key == most[0].key
    assert half[1].key != most[1].key
    assert half[0].key != stronger[0].key


def test_the_dense_baseline_gets_every_epoch_of_a_trial_in_one_go() -> None:
    dense = dense_stage(load_config("smoke"), "float32")
    assert dense.epochs == sum(stage.epochs for stage in stages()) == 3
    assert dense_stage(load_config("smoke", ["passes=2"]), "float32").epochs == 6
    searched = load_config("smoke", ["search.space={finetune.epochs: [1, 5]}"])
    assert dense_stage(searched, "float32").epochs == 7
    assert dense.spec.dump()["lambda"] == 0


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
    assert warm.inputs["teacher"].key == stages()[0].key == warm.spec.dump()["teacher"]
    assert stages()[2].inputs.keys() == {"parent"}


def test_recalibration_draws_batches_of_the_training() -> None:
    assert changed("prune.recalibrate=0") == []
    still, moved = (stages("prune.recalibrate=5", crop)[1].spec for crop in ("data.crop=0", "data.crop=1"))
    assert (still.data.crop, moved.data.crop) == (0, 1)
    assert stages("data.crop=1")[1].spec.data.crop == 0  # no batch is drawn


def test_recalibration_sees_whole_images_in_their_colours() -> None:
    mixed = ("data.flip=true", "data.mixup=0.2", "data.jitter=0.4", "data.randaugment=2", "data.cutout=0.5")
    data = stages("prune.recalibrate=5", *mixed)[1].spec.data
    assert (data.flip, data.mixup, data.jitter, data.randaugment, data.cutout) == (True, 0, 0, 0, 0)


def test_pictures_are_known_by_their_content_and_how_they_are_resized(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(3):
            (tmp_path / name / f"{number}.png").write_bytes(f"{name} {number}".encode())

    def key(*overrides: str) -> str:
        return stages(f"data={{name: folder, path: {tmp_path}, image_size: 8}}", *overrides)[0].key

    first = key()
    changes = ["data.image_size=16", "data.channels=1", "data.resize=pad"]
    assert len({first, *map(key, changes)}) == 4
    (tmp_path / "cat" / "0.png").write_bytes(b"another")
    assert key() != first


# Curves


def curve(*overrides: str, params: Mapping[str, float] = PARAMS) -> Stage:
    settings = resolve(load_config("smoke", overrides), {**PARAMS, **params})
    return curve_stage(chain(settings, "float32")[0], settings)


def test_a_curve_is_of_a_sparse_network_and_how_it_is_pruned() -> None:
    stage = curve()
    assert (stage.kind, stage.name, stage.epochs) == ("curve", "curve", 0)
    assert stage.inputs["parent"].key == stages()[0].key == stage.spec.dump()["parent"]
    again = parse_spec(json.loads(json.dumps(stage.spec.dump())))
    assert (again, again.key()) == (stage.spec, stage.key)
    assert stage.key == "c7a6f9e735989105"


def test_the_key_of_a_curve_changes_with_what_it_depends_on() -> None:
    changes = ["prune.min_channels=2", "prune.streams=true", "prune.score=gamma-weight", "sparse.epochs=1"]
    changes += ["prune.recalibrate=5", "sparse.batch_size=64", "data.flip=true", "seed=1"]
    assert len({curve().key, *(curve(change).key for change in changes)}) == 1 + len(changes)
    for same in ("prune.absorb=false", "finetune.epochs=3", "passes=2", "prune.recalibrate=20"):
        assert curve(same).key == curve().key
    assert curve(params={"prune.ratio": 0.9}).key == curve().key


# Early weights


def early_chain(*overrides: str) -> tuple[Stage, ...]:
    return stages("sparse.epochs=4", "finetune.weights=early", *overrides)


def test_early_weights_are_those_of_a_stage_that_begins_as_the_sparse_training_does() -> None:
    sparse, early, prune, finetune = early_chain("finetune.rewind_to=2")
    assert [stage.kind for stage in (sparse, early, prune, finetune)] == [
        "sparse",
        "early",
        "prune",
        "finetune",
    ]
    assert (early.epochs, early.spec.dump()["until"], early.inputs) == (2, 2, {})
    same = {name: value for name, value in early.spec.dump().items() if name not in ("kind", "until")}
    assert same == {name: value for name, value in sparse.spec.dump().items() if name != "kind"}
    assert prune.inputs == {"parent": sparse, "early": early}
    assert (prune.spec.dump()["parent"], prune.spec.dump()["early"]) == (sparse.key, early.key)
    assert finetune.inputs == {"parent": prune}
    assert finetune.spec.dump()["weights"] == "pruned"


def test_early_weights_leave_the_sparse_training_as_it_is_and_change_what_follows() -> None:
    late, first, second = stages("sparse.epochs=4"), early_chain(), early_chain("finetune.rewind_to=2")
    assert late[0].key == first[0].key == second[0].key
    for kind in ("early", "prune", "finetune"):
        keys = {stage.key for chain in (late, first, second) for stage in chain if stage.kind == kind}
        assert len(keys) == (2 if kind == "early" else 3)
    again = parse_spec(json.loads(json.dumps(first[1].spec.dump())))
    assert (again, again.key()) == (first[1].spec, first[1].key)


def test_trials_of_any_ratio_share_the_early_stage() -> None:
    most = stages("sparse.epochs=4", "finetune.weights=early", params={"prune.ratio": 0.9})
    assert most[1].key == early_chain()[1].key
    assert most[2].key != early_chain()[2].key


def test_each_pass_goes_back_to_an_early_epoch_of_its_own() -> None:
    found = early_chain("passes=2")
    names = ["sparse", "early", "prune", "finetune", "sparse-2", "early-2", "prune-2", "finetune-2"]
    assert [stage.name for stage in found] == names
    assert found[5].inputs == found[4].inputs == {"parent": found[3]}
    assert found[6].inputs == {"parent": found[4], "early": found[5]}


# Controls


def controls(kind: ControlKind, *overrides: str, params: int = 3000) -> tuple[Stage, ...]:
    return control(kind, resolve(load_config("smoke", overrides), PARAMS), "float32", params=params)


@pytest.mark.parametrize("kind", ["uniform", "scratch", "random"])
@pytest.mark.parametrize(
    "overrides", [(), ("passes=2",), ("sparse.epochs=4", "finetune.weights=early", "passes=2")], ids=" ".join
)
def test_a_control_is_the_same_whenever_it_is_asked_for(
    kind: ControlKind, overrides: tuple[str, ...]
) -> None:
    first, again = (controls(kind, *overrides) for _ in range(2))
    assert [stage.key for stage in first] == [stage.key for stage in again]
    for stage in first:
        spec = parse_spec(json.loads(json.dumps(stage.spec.dump())))
        assert (spec, spec.key()) == (stage.spec, stage.key)
        for role, before in stage.inputs.items():
            assert stage.spec.dump()[role] == before.key
            assert before in first
    assert first[-1].key != stages(*overrides)[-1].key


def test_a_narrower_network_is_trained_as_the_dense_one_for_the_epochs_of_the_trial() -> None:
    searched = "search.space={finetune.epochs: [1, 5], prune.ratio: [0.5]}"
    settings = resolve(load_config("smoke", [searched, "sparse.lambda=0.02"]), {"finetune.epochs": 2})
    (uniform,) = control("uniform", settings, "float32", params=3000)
    dense = dense_stage(settings, "float32", epochs=4)
    given, without = uniform.spec.dump(), dense.spec.dump()
    assert given.pop("within") == 3000
    assert without.pop("within") is None
    assert given == without
    assert (given["lambda"], uniform.epochs, uniform.inputs) == (0, 4, {})
    assert dense_stage(settings, "float32").epochs == 7
    (other,) = control("uniform", settings, "float32", params=3001)
    assert other.key != uniform.key


@pytest.mark.parametrize("passes", [1, 2])
def test_the_architecture_from_scratch_has_the_recipe_of_sparse_training_and_all_epochs(passes: int) -> None:
    trial, found = stages(f"passes={passes}"), controls("scratch", f"passes={passes}")
    assert [stage.key for stage in found[:-1]] == [stage.key for stage in trial[:-1]]
    spec, own = found[-1].spec.dump(), trial[-1].spec.dump()
    assert (spec["weights"], spec["distill"]) == ("fresh", 0)
    assert spec["recipe"] == {**trial[0].spec.dump()["recipe"], "epochs": 3 * passes}
    same = {"parent", "seed", "data", "precision", "pass_number"}
    assert {name: spec[name] for name in same} == {name: own[name] for name in same}
    assert found[-1].inputs == {"parent": trial[-2]}


def test_from_scratch_nothing_is_learnt_from_a_teacher() -> None:
    spec = controls("scratch", "finetune.distill=0.5")[-1].spec.dump()
    assert (spec["teacher"], spec["distill"]) == (None, 0)


def test_random_channels_are_cut_and_tuned_as_those_of_the_trial() -> None:
    trial, found = stages(), controls("random")
    assert found[0].key == trial[0].key
    assert found[1].spec.dump() == {**trial[1].spec.dump(), "shuffled": True}
    assert found[2].spec.dump() == {**trial[2].spec.dump(), "parent": found[1].key}


def test_random_channels_of_every_pass_and_a_teacher_of_their_own() -> None:
    settings = ("passes=2", "finetune.distill=0.5", "sparse.epochs=4", "finetune.weights=early")
    trial, found = stages(*settings), controls("random", *settings)
    assert [stage.name for stage in found] == [stage.name for stage in trial]
    for stage, own in zip(found, trial, strict=True):
        assert (stage.key == own.key) == (stage.name in ("sparse", "early"))
        changes: dict[str, Any] = {role: before.key for role, before in stage.inputs.items()}
        if stage.kind == "prune":
            changes["shuffled"] = True
        assert stage.spec.dump() == {**own.spec.dump(), **changes}
    assert found[-1].inputs == {"parent": found[-2], "teacher": found[4]}


# Passes


def test_every_pass_goes_on_from_the_network_of_the_one_before() -> None:
    names = ["sparse", "prune", "finetune", "sparse-2", "prune-2", "finetune-2"]
    found = stages("passes=2")
    assert [stage.name for stage in found] == names
    assert [stage.kind for stage in found] == ["sparse", "prune", "finetune"] * 2
    assert found[0].inputs == {}
    for before, stage in itertools.pairwise(found):
        assert stage.inputs["parent"].key == before.key == stage.spec.dump()["parent"]
    assert found[3].spec.dump()["model"] is None  # it is the network of finetune
    assert len({stage.key for stage in found}) == 6


def test_a_teacher_is_the_network_before_the_pruning_of_the_same_pass() -> None:
    found = stages("passes=2", "finetune.distill=0.5")
    assert [stage.inputs["teacher"].name for stage in found if stage.kind == "finetune"] == [
        "sparse",
        "sparse-2",
    ]


@pytest.mark.parametrize(("ratio", "passes"), [(0.75, 2), (0.9, 3), (0.5, 1), (0.0, 4)])
def test_passes_together_remove_the_ratio(ratio: float, passes: int) -> None:
    cuts = [
        stage.spec.prune.ratio
        for stage in stages(f"passes={passes}", params={"prune.ratio": ratio})
        if isinstance(stage.spec, PruneSpec)
    ]
    assert len(cuts) == passes
    assert len(set(cuts)) == 1
    left = 1.0
    for cut in cuts:
        left *= 1 - cut
    assert left == pytest.approx(1 - ratio, abs=1e-12)
    assert ratio_of_pass(0.75, 2) == 0.5


def test_the_first_pass_is_shared_with_trials_of_one_pass() -> None:
    twice, once = stages("passes=2", params={"prune.ratio": 0.75}), stages(params={"prune.ratio": 0.5})
    assert [stage.key for stage in twice[:3]] == [stage.key for stage in once]


def test_data_that_is_gone_is_named_by_its_fingerprint() -> None:
    settings = load_config("smoke", ["data={name: npz, path: nowhere.npz}"])
    (stage, *_) = chain(settings, "float32", "sha256:5")
    assert stage.spec.data.fingerprint == "sha256:5"
    assert stages()[0].spec.data.fingerprint == fingerprint("fashion-mini")
