from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from slimnet import SlimnetError, models, plan, prune, save, trace
from slimnet.data import Splits, split
from slimnet.data.sets import Dataset
from slimnet.plan import scaling_factors
from slimnet.training import Diverged, Optimizer, Recipe, Row, Schedule, evaluate, train

QUICK = Recipe(epochs=4, lr=0.05, batch_size=32, crop=1, flip=True)


@pytest.fixture(scope="module")
def splits() -> Splits:
    """Four classes, each brighter in a quarter of its own."""
    rng = np.random.default_rng(0)
    y = np.arange(160, dtype=np.int64) % 4
    x = rng.integers(0, 120, (160, 8, 8, 3), dtype=np.uint8)
    for label in range(4):
        down, right = divmod(label, 2)
        x[y == label, 4 * down : 4 * down + 4, 4 * right : 4 * right + 4] += 90
    dataset = Dataset("quarters", x[:120], y[:120], x[120:], y[120:], num_classes=4)
    return split(dataset, validation=0.2, seed=0)


def network() -> models.ResNet:
    torch.manual_seed(0)
    return models.resnet([1, 1], 8, num_classes=4)


def run(splits: Splits, recipe: Recipe = QUICK, model: nn.Module | None = None, **options: Any) -> list[Row]:
    model = model if model is not None else network()
    gammas = scaling_factors(trace(model, torch.zeros(1, 3, 8, 8)))
    return train(model, splits, recipe, **{"seed": 7, "gammas": gammas, "strength": 0.001, **options})


# Learning rates


def test_one_cycle_rises_for_a_quarter_and_falls_to_nothing() -> None:
    recipe = Recipe(epochs=1, lr=0.8, schedule="one-cycle")
    assert [recipe.lr_at(at) for at in (0.125, 0.25, 0.625)] == pytest.approx([0.4, 0.8, 0.4])
    assert 0 < recipe.lr_at(0) < 0.05
    assert 0 < recipe.lr_at(0.999) < 0.01


def test_other_schedules() -> None:
    def rates(schedule: Schedule) -> list[float]:
        return [
            Recipe(epochs=1, lr=0.2, schedule=schedule).lr_at(at) for at in (0, 0.49, 0.5, 0.74, 0.75, 0.99)
        ]

    assert rates("constant") == [0.2] * 6
    assert rates("steps") == pytest.approx([0.2, 0.2, 0.02, 0.02, 0.002, 0.002])
    assert rates("cosine")[0] == 0.2
    assert rates("cosine")[2] == pytest.approx(0.1)
    assert rates("cosine")[-1] == pytest.approx(0, abs=1e-4)


# What training does


def test_network_learns_and_the_history_says_so(splits: Splits) -> None:
    model = network()
    history = run(splits, Recipe(epochs=6, lr=0.1, batch_size=16), model)
    assert [row["epoch"] for row in history] == [1, 2, 3, 4, 5, 6]
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]
    assert history[-1]["test_accuracy"] > 0.9
    assert history[-1]["test_accuracy"] == evaluate(model, splits, splits.test)
    measured = {"loss", "train_accuracy", "val_accuracy", "test_accuracy", "near_zero", "gamma"}
    assert set(history[0]) == {"epoch", "epochs", "lr", *measured}
    assert sum(history[0]["gamma"]["counts"]) == 48


def test_penalty_shrinks_the_scaling_factors(splits: Splits) -> None:
    sums = []
    for strength in (0.0, 0.05):
        model = network()
        run(splits, model=model, strength=strength)
        gammas = scaling_factors(trace(model, torch.zeros(1, 3, 8, 8)))
        sums.append(sum(float(gamma.detach().abs().sum()) for gamma in gammas.values()))
    assert sums[1] < 0.95 * sums[0]


def test_weight_decay_spares_norms_and_biases(splits: Splits) -> None:
    """All gradients are zeroed: what moves, moves by decay."""
    model = network()
    for parameter in model.parameters():
        parameter.register_hook(torch.zeros_like)
    before = {name: value.clone() for name, value in model.named_parameters()}
    run(splits, Recipe(epochs=1, lr=0.1, weight_decay=0.1), model, strength=0.0)
    for name, value in model.named_parameters():
        decayed = value.dim() > 1
        assert torch.equal(value, before[name]) != decayed, name
        if decayed:
            assert value.norm() < before[name].norm()


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_zero_gradient_leaves_gamma_and_beta(splits: Splits, optimizer: Optimizer) -> None:
    model = network()
    for parameter in model.parameters():
        parameter.register_hook(torch.zeros_like)
    run(splits, Recipe(epochs=1, lr=0.1, weight_decay=0.1, optimizer=optimizer), model, strength=0.0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert torch.equal(module.weight, torch.ones_like(module.weight))
            assert torch.equal(module.bias, torch.zeros_like(module.bias))


def test_evaluation_leaves_the_mode(splits: Splits) -> None:
    model = network().train()
    evaluate(model, splits, splits.test)
    assert model.training


def test_pruned_network_is_fine_tuned(splits: Splits) -> None:
    model = network()
    run(splits, model=model)
    smaller = prune(model, plan(trace(model, torch.zeros(1, 3, 8, 8)), ratio=0.5, streams=True))
    history = run(splits, model=smaller)
    assert history[-1]["loss"] < history[0]["loss"]


# Going on


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_resumed_training_ends_bit_for_bit_the_same(
    splits: Splits, tmp_path: Path, optimizer: Optimizer, precision: str
) -> None:
    recipe = Recipe(
        epochs=4, lr=0.01, batch_size=32, optimizer=optimizer, crop=1, flip=True, weight_decay=0.01
    )
    whole, parts, killed = network(), network(), network()
    history = run(splits, recipe, whole, precision=precision)

    first = run(splits, recipe, parts, precision=precision, checkpoint=tmp_path / "a.pt", stop=stop_after(2))
    assert len(first) == 2
    parts = network()
    assert run(splits, recipe, parts, precision=precision, checkpoint=tmp_path / "a.pt") == history

    def kill(epoch: int, step: int, steps: int) -> None:
        if (epoch, step) == (4, 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(splits, recipe, killed, precision=precision, checkpoint=tmp_path / "b.pt", on_step=kill)
    killed = network()
    assert run(splits, recipe, killed, precision=precision, checkpoint=tmp_path / "b.pt") == history

    for name, value in whole.state_dict().items():
        assert torch.equal(value, parts.state_dict()[name]), name
        assert torch.equal(value, killed.state_dict()[name]), name


def stop_after(epochs: int) -> Any:
    asked = iter(range(1, 100))
    return lambda: next(asked) >= epochs


def test_a_resumed_network_keeps_a_bias_from_absorption(splits: Splits, tmp_path: Path) -> None:
    def pruned() -> nn.Module:
        model = network()
        return prune(model, plan(trace(model, torch.zeros(1, 3, 8, 8)), ratio=0.5, streams=True))

    whole, parts = pruned(), pruned()
    history = run(splits, model=whole)
    run(splits, model=parts, checkpoint=tmp_path / "a.pt", stop=stop_after(1))
    parts = pruned()
    assert run(splits, model=parts, checkpoint=tmp_path / "a.pt") == history
    assert all(torch.equal(v, parts.state_dict()[name]) for name, v in whole.state_dict().items())


def test_every_epoch_is_reported_once_and_after_it_is_saved(splits: Splits, tmp_path: Path) -> None:
    seen: list[int] = []

    def note(history: list[Row]) -> None:
        assert (tmp_path / "a.pt").exists()
        seen.append(len(history))

    run(splits, checkpoint=tmp_path / "a.pt", on_epoch=note, stop=stop_after(2))
    assert seen == [1, 2]
    run(splits, checkpoint=tmp_path / "a.pt", on_epoch=note)
    assert seen == [1, 2, 2, 3, 4]


def test_finished_training_is_not_repeated(splits: Splits, tmp_path: Path) -> None:
    model = network()
    history = run(splits, model=model, checkpoint=tmp_path / "a.pt")
    save(tmp_path / "a.pt", model, training={"history": history})
    again = network()
    assert run(splits, model=again, checkpoint=tmp_path / "a.pt", on_step=never) == history
    assert all(torch.equal(v, again.state_dict()[name]) for name, v in model.state_dict().items())


def never(epoch: int, step: int, steps: int) -> None:
    raise AssertionError("a step was taken")


def test_steps_are_reported(splits: Splits) -> None:
    steps: list[tuple[int, int, int]] = []
    run(splits, Recipe(epochs=2, lr=0.01, batch_size=32), on_step=lambda *at: steps.append(at))
    assert steps == [(epoch, step, 3) for epoch in (1, 2) for step in (1, 2, 3)]


# What goes wrong


def test_divergence_names_epoch_step_and_learning_rate(splits: Splits, tmp_path: Path) -> None:
    def spoil(epoch: int, step: int, steps: int) -> None:
        if (epoch, step) == (2, 1):
            with torch.no_grad():
                model.fc.weight.fill_(float("nan"))

    model = network()
    recipe = Recipe(epochs=3, lr=0.025, batch_size=32, schedule="constant")
    with pytest.raises(
        Diverged, match=r"became nan in epoch 2, step 2 of 3, at a learning rate of 0\.025; a lower lr"
    ):
        run(splits, recipe, model, on_step=spoil, checkpoint=tmp_path / "a.pt")
    found = run(splits, recipe, checkpoint=tmp_path / "a.pt", stop=lambda: True)
    assert [row["epoch"] for row in found] == [1]


def test_checkpoints_that_cannot_be_continued_are_refused(splits: Splits, tmp_path: Path) -> None:
    file = tmp_path / "a.pt"
    save(file, network())
    with pytest.raises(SlimnetError, match="holds no training to go on with"):
        run(splits, checkpoint=file)
    save(file, models.resnet([1], 4))
    with pytest.raises(SlimnetError, match="is of another network"):
        run(splits, checkpoint=file)
    file.unlink()
    run(splits, checkpoint=file, stop=lambda: True)
    for change, message in (
        ({"optimizer": "adam"}, "was trained with optimizer sgd, not adam; delete it to start again"),
        ({"epochs": 5}, "with epochs 4, not 5"),
    ):
        with pytest.raises(SlimnetError, match=message):
            run(splits, replace(QUICK, **change), checkpoint=file)
    with pytest.raises(SlimnetError, match="with seed 7, not 8"):
        run(splits, seed=8, checkpoint=file)
