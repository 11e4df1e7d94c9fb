"""The steps of an experiment: what each leaves, which numbers it draws, and how it is stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from slimnet import SlimnetError, count_params, models, save, trace
from slimnet.checkpoint import read
from slimnet.data import Images, Splits
from slimnet.data.augmentation import Augmentation
from slimnet.evaluation import measure
from slimnet.models.families import FAMILIES
from slimnet.networks import fresh, redraw
from slimnet.steps import Pruned, Trained, finetune, narrow, prune, prune_curve, sparse_train
from slimnet.training.loop import train
from slimnet.training.recipe import Recipe
from slimnet.training.recovery import previous
from slimnet.training.sparsity import Sparsity

QUICK = Recipe(epochs=2, lr=0.05, batch_size=32, augmentation=Augmentation(crop=1, flip=True))
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
    size = ["params", "macs", "val_accuracy", "test_accuracy", "val_images", "test_images"]
    dense = sparse(splits)
    assert list(dense.metrics) == [*size, "loss", "train_accuracy", "near_zero", "gamma_layers"]
    assert dense.metrics.items() >= measure(dense.model, splits).items()
    assert (dense.metrics["val_images"], dense.metrics["test_images"]) == (24, 40)
    assert dense.metrics["loss"] == dense.history[-1]["loss"]
    assert dense.metrics["near_zero"] == dense.history[-1]["near_zero"]
    assert list(dense.metrics["gamma_layers"]) == [f"stages.{i}.0.bn{j}" for i in (0, 1) for j in (1, 2)]
    assert all(sum(layer["counts"]) > 0 for layer in dense.metrics["gamma_layers"].values())

    pruned = prune(dense.model, splits, seed=0, ratio=0.5, recalibrate=2, batch_size=32)
    assert list(pruned.metrics) == [*size, "threshold", "kept", "prunable", "widths", "layers"]
    assert pruned.metrics["params"] == count_params(pruned.model) < dense.metrics["params"]
    assert pruned.metrics["kept"] == pruned.plan.prunable_channels - pruned.plan.removed_channels
    assert pruned.metrics["widths"] == pruned.model.widths
    weights = pruned.model.state_dict()
    assert {name: after for name, (_, after) in pruned.metrics["layers"].items()} == {
        name: len(weights[f"{name}.weight"]) for name in pruned.metrics["layers"]
    }

    tuned = finetune(pruned.model, splits, QUICK, seed=0)
    assert tuned is not None
    assert list(tuned.metrics) == [*size, "loss", "train_accuracy", "near_zero"]
    assert tuned.metrics["params"] == pruned.metrics["params"]
    assert len(tuned.history) == 2


def test_no_epoch_leaves_the_network_as_it_is_and_measures_it(splits: Splits) -> None:
    model = fresh(make, seed=1)
    before = [value.clone() for value in weights(model)]
    trained = sparse_train(model, splits, replace(QUICK, epochs=0), seed=0)
    assert trained is not None
    assert trained.history == []
    assert all(torch.equal(a, b) for a, b in zip(weights(model), before, strict=True))
    assert measure(model, splits).items() <= trained.metrics.items()
    assert {"near_zero", "gamma_layers"} <= trained.metrics.keys()


def test_a_network_without_batch_norm_is_trained_densely_and_pruned_by_its_weights(splits: Splits) -> None:
    def build() -> nn.Module:
        layers = nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
        return nn.Sequential(*layers)

    with pytest.raises(SlimnetError, match=r"has no BatchNorm .*sparse\.lambda 0 .*score l1"):
        sparse_train(build(), splits, QUICK, seed=0, strength=0.01)
    trained = sparse_train(build(), splits, QUICK, seed=0)
    assert trained is not None
    assert ("near_zero" in trained.history[-1], trained.metrics["gamma_layers"]) == (False, {})
    pruned = prune(trained.model, splits, seed=0, ratio=0.5, score="l1")
    assert pruned.model[0].out_channels == 4
    tuned = finetune(pruned.model, splits, QUICK, seed=0, weights="fresh")
    assert tuned is not None
    assert narrow(trained.model, splits, params=60, seed=0)[0].out_channels < 8


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
    repair: dict[str, Any] = {
        "recalibrate": 2,
        "batch_size": 32,
        "augmentation": Augmentation(crop=1, flip=True),
    }
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


# New weights


def plain() -> nn.Module:
    """A network of torch's layers alone, which has no method for the whole."""
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 4)
    )


def changed(model: nn.Module) -> nn.Module:
    """The network as no drawing of weights leaves it."""
    with torch.no_grad():
        for value in model.state_dict().values():
            value.add_(1)
    return model


NETWORKS = [*(partial(FAMILIES[name], [1, 1], 6, num_classes=4) for name in FAMILIES), plain]


@pytest.mark.parametrize("build", NETWORKS, ids=[*FAMILIES, "plain"])
def test_new_weights_follow_from_the_seed_alone_and_leave_the_original(
    build: Callable[[], nn.Module], splits: Splits
) -> None:
    model = changed(build())
    before = [value.clone() for value in weights(model)]
    first = redraw(model, seed=3)
    torch.manual_seed(99)
    assert same(first, redraw(model, seed=3))
    assert [value.shape for value in weights(first)] == [value.shape for value in before]
    assert all(torch.equal(a, b) for a, b in zip(weights(model), before, strict=True))
    other = dict(redraw(model, seed=4).named_parameters())
    for (name, drawn), old in zip(first.named_parameters(), model.parameters(), strict=True):
        assert not torch.equal(drawn, old), name
        if drawn.dim() > 1:
            assert not torch.equal(drawn, other[name]), name
    for name, statistic in first.named_buffers():
        assert torch.equal(statistic, torch.full_like(statistic, name.endswith("running_var"))), name


@pytest.mark.parametrize("family", FAMILIES)
def test_new_weights_are_spread_as_those_of_a_network_made_at_its_widths(family: str) -> None:
    model = FAMILIES[family]([1, 1], 32, num_classes=4)
    drawn = redraw(changed(FAMILIES[family]([1, 1], 32, num_classes=4)), seed=0)
    for (name, one), other in zip(drawn.named_parameters(), model.parameters(), strict=True):
        if one.numel() > 100:
            found, expected = (float(values.detach().std()) for values in (one, other))
            assert found == pytest.approx(expected, rel=0.2), name


class Own(nn.Module):
    """A layer with a parameter that nothing draws."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))
        self.conv = nn.Conv2d(3, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x * self.scale[:, None, None])


class Drawn(Own):
    """The same, which says how: its own, and the conv's in place of what torch would draw."""

    def reset_parameters(self) -> None:
        nn.init.normal_(self.scale)
        nn.init.constant_(self.conv.weight, 5)


def test_a_layer_that_cannot_draw_its_weights_is_named() -> None:
    advice = r"cannot draw its weights anew: give it a method reset_parameters\(\)"
    with pytest.raises(SlimnetError, match=rf"1\.0 \(Own\) {advice}"):
        redraw(nn.Sequential(nn.Conv2d(3, 3, 1), nn.Sequential(Own())), seed=0)
    with pytest.raises(SlimnetError, match=rf"the network \(Own\) {advice}"):
        redraw(Own(), seed=0)


def test_what_a_part_says_of_its_weights_holds_for_the_layers_in_it() -> None:
    drawn = redraw(changed(nn.Sequential(Drawn(), nn.Conv2d(2, 2, 1))), seed=0)
    assert drawn[0].conv.weight.unique().tolist() == [5]
    assert not torch.equal(drawn[0].scale, 2 * torch.ones(3))
    assert redraw(Drawn(), seed=0).conv.weight.unique().tolist() == [5]


@pytest.mark.parametrize("build", NETWORKS, ids=[*FAMILIES, "plain"])
@pytest.mark.parametrize("share", [0.3, 0.7])
def test_a_narrower_network_loses_the_same_fraction_everywhere(
    build: Callable[[], nn.Module], share: float, splits: Splits
) -> None:
    model = build()
    budget = round(share * count_params(model))
    narrower = narrow(model, splits, params=budget, seed=0)
    assert 0.5 * budget < count_params(narrower) <= budget
    assert narrower.eval()(splits.example).shape == (1, 4)

    sizes = [
        (group.size, after.size)
        for group, after in zip(
            trace(model, splits.example).groups, trace(narrower, splits.example).groups, strict=True
        )
        if group.prunable or "residual" in (group.reason or "")
    ]
    assert len(sizes) > (0 if build is plain else 1)
    fraction = sum(after for _, after in sizes) / sum(before for before, _ in sizes)
    assert fraction < 1
    for before, after in sizes:
        assert after == pytest.approx(fraction * before, abs=1)
    assert same(narrower, narrow(model, splits, params=budget, seed=0))
    assert not same(narrower, narrow(model, splits, params=budget, seed=1))


def test_a_narrower_network_is_not_made_of_the_old_weights(splits: Splits) -> None:
    narrower = narrow(changed(make()), splits, params=2000, seed=0)
    assert float(narrower.conv1.weight.detach().mean()) == pytest.approx(0, abs=0.2)
    whole = narrow(make(), splits, params=count_params(make()), seed=0)
    assert count_params(whole) == count_params(make())


def test_a_narrower_network_is_made_where_the_model_is(splits: Splits) -> None:
    """Wherever the images are: on the CPU a seed draws the same weights on every machine."""
    elsewhere = replace(splits, train=Images(splits.train.x.to("meta"), splits.train.y.to("meta")))
    assert elsewhere.example.device.type == "meta"
    drawn = [narrow(make(), given, params=2000, seed=0) for given in (elsewhere, splits)]
    assert same(*drawn)
    assert {value.device.type for value in weights(drawn[0])} == {"cpu"}


def test_a_trained_network_is_narrowed_to_its_strongest_filters(splits: Splits) -> None:
    model = make()
    with torch.no_grad():
        model.conv1.weight[3] *= 100
    narrower = narrow(model, splits, params=count_params(model) // 2, seed=0, weights="pruned")
    assert count_params(narrower) <= count_params(model) // 2
    kept = narrower.conv1.weight.detach()
    assert all(any(torch.equal(row, other) for other in model.conv1.weight) for row in kept)
    assert any(torch.equal(row, model.conv1.weight[3]) for row in kept)


def test_a_network_that_cannot_be_so_narrow_says_so(splits: Splits) -> None:
    with pytest.raises(SlimnetError, match="cannot be met"):
        narrow(make(), splits, params=10, seed=0)


def test_fine_tuning_from_fresh_weights_knows_nothing_of_the_old_ones(splits: Splits) -> None:
    def tuned(model: nn.Module, **options: Any) -> Trained:
        trained = finetune(model, splits, QUICK, **{"seed": 0, "weights": "fresh", **options})
        assert trained is not None
        return trained

    first, other = fresh(make, seed=1), fresh(make, seed=2)
    untouched = [value.clone() for value in weights(first)]
    drawn = tuned(first)
    assert all(torch.equal(a, b) for a, b in zip(weights(first), untouched, strict=True))
    assert same(drawn.model, tuned(other).model)
    assert drawn.metrics["params"] == count_params(first)
    assert not same(drawn.model, tuned(first, seed=1).model)
    assert not same(drawn.model, tuned(first, pass_number=2).model)
    assert not same(drawn.model, tuned(fresh(make, seed=1), weights="pruned").model)


def test_fine_tuning_from_fresh_weights_goes_on_where_it_was_stopped(splits: Splits, tmp_path: Path) -> None:
    tune = partial(finetune, fresh(make, seed=1), splits, QUICK, seed=0, weights="fresh")
    whole = tune()
    assert tune(checkpoint=tmp_path / "a.pt", stop=lambda: True) is None
    resumed = tune(checkpoint=tmp_path / "a.pt")
    assert whole is not None
    assert resumed is not None
    assert same(whole.model, resumed.model)
    assert (whole.metrics, whole.history) == (resumed.metrics, resumed.history)


# Early epochs


@pytest.mark.parametrize(
    "sparsity", [Sparsity(), Sparsity(lambda_schedule="warmup-tail"), Sparsity(target=0.5)]
)
def test_an_early_epoch_is_that_of_the_whole_training(
    splits: Splits, tmp_path: Path, sparsity: Sparsity
) -> None:
    recipe = Recipe(epochs=4, lr=0.05, batch_size=32, augmentation=Augmentation(crop=1, flip=True))
    strength, path = 0.0 if sparsity.target else 0.02, tmp_path / "a.pt"
    kept: dict[int, dict[str, torch.Tensor]] = {}

    def keep(history: list[dict[str, Any]]) -> None:
        kept[len(history)] = {name: value.clone() for name, value in read(path).state.items()}

    whole = sparse(
        splits, recipe=recipe, strength=strength, sparsity=sparsity, checkpoint=path, on_epoch=keep
    )
    warnings: list[str] = []
    for epoch in (1, 2):
        early = sparse(
            splits,
            recipe=recipe,
            strength=strength,
            sparsity=sparsity,
            until=epoch,
            on_warning=warnings.append,
        )
        assert early.history == whole.history[:epoch]
        assert all(torch.equal(value, kept[epoch][name]) for name, value in early.model.state_dict().items())
    assert not same(early.model, whole.model)
    assert warnings == [], "a target is not to be reached before the end"


def test_early_epochs_that_were_stopped_go_on_to_the_same_end(splits: Splits, tmp_path: Path) -> None:
    recipe = Recipe(epochs=4, lr=0.05, batch_size=32)
    whole = sparse(splits, recipe=recipe, until=2)
    train_some = partial(
        sparse_train, fresh(make, seed=0), splits, recipe, seed=0, strength=0.02, until=2,
        checkpoint=tmp_path / "a.pt",
    )  # fmt: skip
    assert train_some(stop=lambda: True) is None
    resumed = train_some()
    assert resumed is not None
    assert same(resumed.model, whole.model)
    assert (resumed.metrics, resumed.history) == (whole.metrics, whole.history)


# Pruning by other scores and of other weights


def test_weights_of_another_network_are_cut_by_the_scores_of_this_one(splits: Splits) -> None:
    late, early = sparse(splits).model, fresh(make, seed=0)
    pruned = prune(late, splits, seed=0, ratio=0.5, absorb=False, weights_of=early)
    own = prune(late, splits, seed=0, ratio=0.5, absorb=False)
    of_early = prune(early, splits, seed=0, ratio=0.5, absorb=False)
    kept = [positions.tolist() for positions in pruned.plan.kept.values()]
    assert kept == [positions.tolist() for positions in own.plan.kept.values()]
    assert kept != [positions.tolist() for positions in of_early.plan.kept.values()]
    cut = pruned.plan.cuts()["stages.0.0.conv1"]
    conv = early.stages[0][0].conv1.weight
    assert torch.equal(pruned.model.stages[0][0].conv1.weight, conv[cut.outputs][:, cut.inputs])
    assert pruned.metrics["threshold"] == own.metrics["threshold"]


def test_shuffled_pruning_is_as_large_and_follows_from_the_seed(splits: Splits) -> None:
    model = sparse(splits).model

    def pruned(**options: Any) -> Pruned:
        return prune(model, splits, **{"seed": 0, "ratio": 0.5, "shuffled": True, **options})

    chosen, shuffled = pruned(shuffled=False), pruned()
    assert shuffled.metrics["widths"] == chosen.metrics["widths"]
    assert not same(shuffled.model, chosen.model)
    assert same(shuffled.model, pruned().model)
    assert not same(shuffled.model, pruned(seed=1).model)


# Seeds


def test_batches_are_those_that_the_seed_has_always_drawn(splits: Splits) -> None:
    """Seeds derived by purpose are a promise: results of earlier versions can be repeated."""
    stepwise = finetune(fresh(make, seed=0), splits, QUICK, seed=7)
    assert stepwise is not None
    by_hand = fresh(make, seed=0)
    train(by_hand, splits, QUICK, seed=FINETUNE_BATCHES_OF_SEED_7, gammas={})
    assert same(stepwise.model, by_hand)


FINETUNE_BATCHES_OF_SEED_7 = 730865104
