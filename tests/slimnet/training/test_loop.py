from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from slimnet import SlimnetError, models, plan, prune, save, trace
from slimnet.checkpoint import read
from slimnet.data import Splits
from slimnet.data.augmentation import Augmentation
from slimnet.evaluation import evaluate
from slimnet.pruning.planning import scaling_factors
from slimnet.training.loop import Diverged, Row, train
from slimnet.training.recipe import Optimizer, Recipe, Schedule
from slimnet.training.sparsity import LambdaSchedule, PenaltyName, Sparsity

QUICK = Recipe(epochs=4, lr=0.05, batch_size=32, augmentation=Augmentation(crop=1, flip=True))


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
    assert rates("rewind") == pytest.approx([0.2, 0.102, 0.1, 0.052, 0.05, 0.002])
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
    assert set(history[0]) == {"epoch", "epochs", "lr", "lambda", *measured}
    assert sum(history[0]["gamma"]["counts"]) == 48


def test_accuracies_are_measured_as_often_as_asked_and_at_the_end(splits: Splits) -> None:
    model = network()
    history = run(splits, replace(QUICK, epochs=5, evaluate_every=2), model)
    measured = [row["epoch"] for row in history if {"val_accuracy", "test_accuracy"} <= set(row)]
    assert measured == [2, 4, 5]
    assert not {"val_accuracy", "test_accuracy"} & set(history[0])
    assert all(set(row) >= {"loss", "train_accuracy", "near_zero", "gamma"} for row in history)
    assert history[-1]["val_accuracy"] == evaluate(model, splits, splits.validation)


def test_a_processor_trains_by_quicker_layers_and_leaves_the_network_as_it_was(splits: Splits) -> None:
    model, seen = network(), set()
    for module in model.modules():
        module.register_forward_hook(lambda module, *_: seen.add((module.training, type(module).__name__)))
    kinds = [type(module) for module in model.modules()]
    run(splits, model=model)
    assert {(True, "QuickConv2d"), (True, "QuickAverage"), (False, "Conv2d")} <= seen
    assert (True, "Conv2d") not in seen
    assert [type(module) for module in model.modules()] == kinds


def test_measuring_every_zeroth_epoch_is_refused() -> None:
    with pytest.raises(SlimnetError, match="evaluate_every is 0"):
        replace(QUICK, evaluate_every=0)


def test_how_often_is_measured_may_change_on_the_way(splits: Splits, tmp_path: Path) -> None:
    model = network()
    whole = run(splits, replace(QUICK, epochs=4), model)
    again, checkpoint = network(), tmp_path / "checkpoint.pt"
    run(splits, replace(QUICK, epochs=4), again, checkpoint=checkpoint, stop=stop_after(2))
    history = run(splits, replace(QUICK, epochs=4, evaluate_every=4), again, checkpoint=checkpoint)
    assert ["val_accuracy" in row for row in history] == [True, True, False, True]
    assert history[-1] == whole[-1]


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


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_proximal_pull_is_nobodys_to_scale(splits: Splits, optimizer: Optimizer) -> None:
    """With no gradient γ falls by lr·λ a step, times 1 / (1 - momentum): not divided by Adam's normaliser."""
    model = network()
    for parameter in model.parameters():
        parameter.register_hook(torch.zeros_like)
    recipe = Recipe(epochs=2, lr=0.01, batch_size=32, optimizer=optimizer, momentum=0.75, schedule="constant")
    run(splits, recipe, model, strength=0.5, sparsity=Sparsity("proximal"))
    gain = 4 if optimizer == "sgd" else 1
    for gamma in scaling_factors(trace(model, torch.zeros(1, 3, 8, 8))).values():
        torch.testing.assert_close(gamma.detach(), torch.full_like(gamma, 1 - 6 * 0.01 * 0.5 * gain))


@pytest.mark.parametrize("scale", [1.0, 65536.0])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_proximal_pull_knows_no_scale_of_the_loss(splits: Splits, scale: float, precision: str) -> None:
    """The gradient of γ is a large constant: after it has been taken away, what is left is the pull."""
    model = network()
    for parameter in model.parameters():
        parameter.register_hook(lambda gradient: torch.full_like(gradient, scale))
    recipe = Recipe(epochs=1, lr=2**-20, batch_size=32, optimizer="adam", schedule="constant")
    run(splits, recipe, model, strength=2.0**14, sparsity=Sparsity("proximal"), precision=precision)
    for gamma in scaling_factors(trace(model, torch.zeros(1, 3, 8, 8))).values():
        expected = 1 - 3 * 2**-20 * (2**14 + 1)  # Adam moves by lr whatever the scale
        torch.testing.assert_close(gamma.detach(), torch.full_like(gamma, expected), rtol=0, atol=1e-6)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_lambda_means_the_same_pull_as_l1_and_proximal(splits: Splits, momentum: float) -> None:
    """With no gradient but l1's own, both fall alike, but for the steps in which momentum builds up."""
    falls = []
    for penalty in ("l1", "proximal"):
        model = network()
        for parameter in model.parameters():
            parameter.register_hook(torch.zeros_like)
        recipe = Recipe(epochs=12, lr=0.001, batch_size=8, momentum=momentum, schedule="constant")
        run(splits, recipe, model, strength=0.5, sparsity=Sparsity(penalty))
        gammas = scaling_factors(trace(model, torch.zeros(1, 3, 8, 8)))
        falls.append(1 - float(next(iter(gammas.values())).detach().mean()))
    assert falls[0] == pytest.approx(falls[1], rel=1e-4 if momentum == 0 else 0.1)


def test_weight_decay_spares_penalised_layers(splits: Splits) -> None:
    model = network()
    for parameter in model.parameters():
        parameter.register_hook(torch.zeros_like)
    recipe = Recipe(epochs=1, lr=0.1, batch_size=32, weight_decay=0.5, schedule="constant")
    run(splits, recipe, model, strength=2**-6, sparsity=Sparsity("proximal"))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.bias.count_nonzero() == 0
    for gamma in scaling_factors(trace(model, torch.zeros(1, 3, 8, 8))).values():
        torch.testing.assert_close(gamma.detach(), torch.full_like(gamma, 1 - 3 * 2**-6))


def test_history_tells_lambda_through_warm_up_and_tail(splits: Splits) -> None:
    recipe = Recipe(epochs=5, lr=0.01, batch_size=32)
    history = run(splits, recipe, strength=0.25, sparsity=Sparsity("l1", "warmup-tail"))
    assert [row["lambda"] for row in history] == pytest.approx([0.25 * 2 / 3, 0.25, 0.25, 0.25, 0.0])
    assert [row["lambda"] for row in run(splits, recipe, strength=0.0)] == [0.0] * 5


def test_lambda_is_steered_to_the_fraction_wanted(splits: Splits) -> None:
    recipe = Recipe(epochs=12, lr=0.1, batch_size=16)
    shares = []
    for target in (0.5, 0.8):
        history = run(splits, recipe, strength=0.0, sparsity=Sparsity("proximal", target=target))
        assert all(row["lambda"] > 0 for row in history)
        shares.append(history[-1]["near_zero"])
    assert shares == pytest.approx([0.5, 0.8], abs=0.15)


def test_distillation_alone_makes_the_teacher_s_outputs(splits: Splits) -> None:
    teacher = network()
    run(splits, Recipe(epochs=6, lr=0.1, batch_size=16), teacher)
    state = {name: value.clone() for name, value in teacher.state_dict().items()}
    torch.manual_seed(1)
    student = models.resnet([1], 8, num_classes=4)
    recipe = Recipe(epochs=6, lr=0.1, batch_size=16, distill=1.0)
    splits.train.y.copy_((splits.train.y + 1) % 4)  # wrong labels, which the student is not to look at
    try:
        run(splits, recipe, student, teacher=teacher, strength=0.0)
    finally:
        splits.train.y.copy_((splits.train.y - 1) % 4)
    assert evaluate(student, splits, splits.test) > 0.8
    assert all(torch.equal(value, state[name]) for name, value in teacher.state_dict().items())


def test_distillation_without_a_teacher_is_refused(splits: Splits) -> None:
    with pytest.raises(SlimnetError, match=r"distill is 0\.5, which needs a teacher"):
        run(splits, replace(QUICK, distill=0.5))


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
        epochs=4,
        lr=0.01,
        batch_size=32,
        optimizer=optimizer,
        augmentation=Augmentation(crop=1, flip=True),
        weight_decay=0.01,
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


@pytest.mark.parametrize("lambda_schedule", ["constant", "warmup-tail"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("penalty", ["l1", "proximal", "polarization"])
def test_every_penalty_is_taken_up_bit_for_bit(
    splits: Splits,
    tmp_path: Path,
    penalty: PenaltyName,
    optimizer: Optimizer,
    lambda_schedule: LambdaSchedule,
) -> None:
    recipe = Recipe(epochs=4, lr=0.01, batch_size=32, optimizer=optimizer)
    assert_taken_up(splits, tmp_path, recipe, strength=0.05, sparsity=Sparsity(penalty, lambda_schedule))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_steering_and_distillation_are_taken_up_bit_for_bit(
    splits: Splits, tmp_path: Path, optimizer: Optimizer
) -> None:
    steered = Sparsity("proximal", target=0.7)
    recipe = Recipe(epochs=4, lr=0.01, batch_size=16, optimizer=optimizer, distill=0.5)
    assert_taken_up(splits, tmp_path, recipe, strength=0.0, sparsity=steered, teacher=network())


def assert_taken_up(splits: Splits, tmp_path: Path, recipe: Recipe, **options: Any) -> None:
    """Two epochs and the rest end as all in one go: every tensor, the optimiser's too, and every row."""
    files = tmp_path / "whole.pt", tmp_path / "parts.pt"
    history = run(splits, recipe, checkpoint=files[0], **options)
    assert len(run(splits, recipe, checkpoint=files[1], stop=stop_after(2), **options)) == 2
    assert run(splits, recipe, checkpoint=files[1], **options) == history
    whole, parts = map(read, files)
    assert all(torch.equal(value, parts.state[name]) for name, value in whole.state.items())
    states = whole.training["optimizer"]["state"], parts.training["optimizer"]["state"]
    for index, state in states[0].items():
        for name, value in state.items():
            torch.testing.assert_close(value, states[1][index][name], rtol=0, atol=0)


def test_dropout_is_taken_up_bit_for_bit(splits: Splits, tmp_path: Path) -> None:
    def dropping() -> nn.Module:
        torch.manual_seed(0)  # as a worker does when it starts, at whatever epoch
        layers = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(2), nn.Flatten()
        return nn.Sequential(*layers, nn.Dropout(0.5), nn.Linear(32, 4))

    recipe = Recipe(epochs=3, lr=0.01, batch_size=32)
    whole, parts = dropping(), dropping()
    history = run(splits, recipe, whole)
    file = tmp_path / "parts.pt"
    assert len(run(splits, recipe, parts, checkpoint=file, stop=stop_after(1))) == 1
    parts = dropping()
    assert run(splits, recipe, parts, checkpoint=file) == history
    assert all(torch.equal(v, parts.state_dict()[name]) for name, v in whole.state_dict().items())


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
    resumed: list[int] = []
    run(
        splits,
        checkpoint=tmp_path / "a.pt",
        on_resume=lambda history: resumed.append(len(history)),
        on_epoch=note,
    )
    assert (resumed, seen) == ([2], [1, 2, 3, 4])


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
    with pytest.raises(SlimnetError, match="holds no training to continue"):
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
