"""The steps of an experiment: what each leaves, which numbers it draws, and how it is stopped."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from slimnet import SlimnetError, count_params, models, save
from slimnet.data import Splits
from slimnet.evaluation import measure
from slimnet.steps import Pruned, Trained, finetune, fresh, prune, prune_curve, sparse_train
from slimnet.training.loop import train
from slimnet.training.recipe import Recipe
from slimnet.training.recovery import previous
from slimnet.training.sparsity import Sparsity

QUICK = Recipe(epochs=2, lr=0.05, batch_size=32, crop=1, flip=True)
make = partial(models.resnet, [1, 1], 8, num_classes=4)


def weights(model: nn.Module) -> list[torch.Tensor]:
    return list(model.state_dict().values())


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))


def sparse(splits: Splits, *, seed: int = 0, recipe: Recipe = QUICK, **options: Any) -> Trained:
    trained = sparse_train(
        fresh(make, seed=seed), splits, recipe, **{"seed": seed, "strength": 0.02, **options}
    )
    assert trained is not None
    return trained


def test_fresh_weights_follow_from_the_seed_alone() -> None:
    first = fresh(make, seed=3)
    torch.manual_seed(99)
    assert same(first, fresh(make, seed=3))
    assert not same(first, fresh(make, seed=4))


def test_each_step_leaves_its_metrics_in_order(splits: Splits) -> None:
    size = ["params", "macs", "val_accuracy", "test_accuracy"]
    dense = sparse(splits)
    assert list(dense.metrics) == [*size, "loss", "train_accuracy", "near_zero", "gamma_layers"]
    assert dense.metrics.items() >= measure(dense.model, splits).items()
    assert dense.metrics["loss"] == dense.history[-1]["loss"]
    assert dense.metrics["near_zero"] == dense.history[-1]["near_zero"]
    assert list(dense.metrics["gamma_layers"]) == [f"stages.{i}.0.bn{j}" for i in (0, 1) for j in (1, 2)]
    assert all(sum(layer["counts"]) > 0 for layer in dense.metrics["gamma_layers"].values())

    pruned = prune(dense.model, splits, seed=0, ratio=0.5, recalibrate=2, batch_size=32)
    assert list(pruned.metrics) == [*size, "threshold", "kept", "prunable", "widths"]
    assert pruned.metrics["params"] == count_params(pruned.model) < dense.metrics["params"]
    assert pruned.metrics["kept"] == pruned.plan.prunable_channels - pruned.plan.removed_channels
    assert pruned.metrics["widths"] == pruned.model.widths  # type: ignore[comparison-overlap]

    tuned = finetune(pruned.model, splits, QUICK, seed=0)
    assert tuned is not None
    assert list(tuned.metrics) == [*size, "loss", "train_accuracy", "near_zero"]
    assert tuned.metrics["params"] == pruned.metrics["params"]
    assert len(tuned.history) == 2


def test_streams_have_their_scaling_factors_penalised_too(splits: Splits) -> None:
    layers = sparse(splits, streams=True).metrics["gamma_layers"]
    assert {"bn1", "stages.0.0.bn3"} <= layers.keys()


def test_random_scores_follow_from_the_seed(splits: Splits) -> None:
    model = fresh(make, seed=0)

    def kept(seed: int) -> list[list[int]]:
        pruned: Pruned = prune(model, splits, seed=seed, ratio=0.5, score="random")
        return [positions.tolist() for positions in pruned.plan.kept.values()]

    assert kept(1) == kept(1)
    assert kept(1) != kept(2)


def test_another_seed_or_a_later_pass_sees_other_batches(splits: Splits) -> None:
    model = sparse(splits).model

    def tuned(**options: Any) -> nn.Module:
        copy = prune(model, splits, seed=0, ratio=0.5).model
        assert finetune(copy, splits, QUICK, **{"seed": 0, **options})
        return copy

    first = tuned()
    assert same(first, tuned(pass_number=1))
    assert not same(first, tuned(pass_number=2))
    assert not same(tuned(pass_number=2), tuned(pass_number=3))
    assert not same(first, tuned(seed=1))
    assert not same(model, sparse(splits, pass_number=2).model)


def test_recalibration_draws_by_seed_and_pass(splits: Splits) -> None:
    model = sparse(splits).model

    def repaired(**options: Any) -> nn.Module:
        return prune(
            model, splits, **{"seed": 0, "ratio": 0.5, "recalibrate": 1, "batch_size": 32, **options}
        ).model

    assert same(repaired(), repaired())
    assert not same(repaired(), repaired(recalibrate=0))
    assert not same(repaired(), repaired(seed=1))
    assert not same(repaired(), repaired(pass_number=2))


def test_a_curve_has_what_pruning_leaves_at_every_ratio(splits: Splits) -> None:
    model = sparse(splits).model
    before = [tensor.clone() for tensor in weights(model)]
    repair: dict[str, Any] = {"recalibrate": 2, "batch_size": 32, "crop": 1, "flip": True}
    rows = prune_curve(model, splits, ratios=(0.0, 0.3, 0.6, 0.99), seed=3, streams=True, **repair)

    assert [row["ratio"] for row in rows] == [0.0, 0.3, 0.6, 0.99]
    own = measure(model, splits)
    assert {**rows[0], "recalibrated": 0} == {
        "ratio": 0.0,
        "params": own["params"],
        "macs": own["macs"],
        "copied": own["val_accuracy"],
        "absorbed": own["val_accuracy"],
        "recalibrated": 0,
    }
    for name in ("params", "macs"):
        sizes = [row[name] for row in rows]
        assert sizes == sorted(set(sizes), reverse=True)
    ways: dict[str, dict[str, Any]] = {"copied": {"absorb": False}, "absorbed": {}, "recalibrated": repair}
    for row in rows:
        for way, options in ways.items():
            pruned = prune(model, splits, seed=3, ratio=row["ratio"], streams=True, **options).metrics
            assert row[way] == pruned["val_accuracy"]
        assert (row["params"], row["macs"]) == (pruned["params"], pruned["macs"])
    assert all(torch.equal(a, b) for a, b in zip(before, weights(model), strict=True))


def test_a_step_that_was_stopped_goes_on_to_the_same_end(splits: Splits, tmp_path: Path) -> None:
    whole = sparse(splits)
    assert (
        sparse_train(
            fresh(make, seed=0),
            splits,
            QUICK,
            seed=0,
            strength=0.02,
            checkpoint=tmp_path / "a.pt",
            stop=lambda: True,
        )
        is None
    )
    found, seen = list[int](), list[int]()
    resumed = sparse(
        splits,
        checkpoint=tmp_path / "a.pt",
        on_resume=lambda rows: found.append(len(rows)),
        on_epoch=lambda rows: seen.append(len(rows)),
    )
    assert (found, seen) == ([1], [2])
    assert same(whole.model, resumed.model)
    assert (whole.metrics, whole.history) == (resumed.metrics, resumed.history)


def test_a_damaged_checkpoint_is_told_once(splits: Splits, tmp_path: Path) -> None:
    path, warnings = tmp_path / "a.pt", list[str]()
    save(path, fresh(make, seed=0))
    path.write_bytes(path.read_bytes()[:-30])
    trained = finetune(
        fresh(make, seed=0), splits, QUICK, seed=0, checkpoint=path, on_warning=warnings.append
    )
    assert trained is not None
    (warning,) = warnings
    assert warning.endswith("the training starts again from the beginning")
    assert previous(path).exists()


@pytest.mark.parametrize(("target", "missed"), [(0.9, True), (0.02, False)])
def test_a_target_that_is_missed_is_told(splits: Splits, target: float, missed: bool) -> None:
    warnings: list[str] = []
    recipe = Recipe(epochs=1, lr=1e-4, batch_size=32)
    trained = sparse(
        splits, recipe=recipe, strength=0.0, sparsity=Sparsity(target=target), on_warning=warnings.append
    )
    assert trained.metrics["near_zero"] == 0
    assert warnings == (
        ["0% of the scaling factors ended near zero, where the target is 90%"] if missed else []
    )


def test_fine_tuning_may_learn_from_a_teacher(splits: Splits) -> None:
    teacher = fresh(make, seed=5)
    taught, alone = fresh(make, seed=0), fresh(make, seed=0)
    recipe = Recipe(epochs=1, lr=0.05, batch_size=32, distill=0.9)
    assert finetune(taught, splits, recipe, seed=0, teacher=teacher)
    assert finetune(alone, splits, Recipe(epochs=1, lr=0.05, batch_size=32), seed=0)
    assert not same(taught, alone)
    with pytest.raises(SlimnetError, match="needs a teacher"):
        finetune(alone, splits, recipe, seed=0)


def test_batches_are_those_that_the_seed_has_always_drawn(splits: Splits) -> None:
    """Seeds derived by purpose are a promise: results of earlier versions can be repeated."""
    stepwise = finetune(fresh(make, seed=0), splits, QUICK, seed=7)
    assert stepwise is not None
    by_hand = fresh(make, seed=0)
    train(by_hand, splits, QUICK, seed=FINETUNE_BATCHES_OF_SEED_7, gammas={})
    assert same(stepwise.model, by_hand)


FINETUNE_BATCHES_OF_SEED_7 = 730865104
