"""How much accuracy is left right after pruning, without a step of fine-tuning, over three seeds.

A small ResNet on fashion-mini at 14x14, trained with either penalty, pruned four ways: weights copied,
constants absorbed, BatchNorm recalibrated, and both, the last also with the same fraction of every layer.
Test accuracy; nothing is selected on it.
"""

from __future__ import annotations

import statistics
from itertools import product

import torch
from torch import nn

import slimnet
from benchmarks.fashion import SEEDS, spread
from slimnet.data import Splits, load_dataset, split
from slimnet.data.augmentation import Augmentation
from slimnet.evaluation import evaluate
from slimnet.precision import native_precision
from slimnet.pruning.calibrate import recalibrate_on
from slimnet.pruning.options import ThresholdOver
from slimnet.pruning.planning import scaling_factors
from slimnet.training.loop import train
from slimnet.training.recipe import Recipe
from slimnet.training.sparsity import PenaltyName, Sparsity

PENALTIES: tuple[PenaltyName, ...] = ("l1", "proximal")
LAMBDAS = (0.01, 0.02, 0.04)
RATIOS = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95)
WAYS: dict[str, tuple[bool, bool, ThresholdOver]] = {  # absorb, recalibrate, threshold over
    "copied": (False, False, "prunable"),
    "absorbed": (True, False, "prunable"),
    "recalibrated": (False, True, "prunable"),
    "both": (True, True, "prunable"),
    "both, by layer": (True, True, "layer"),
}
RECIPE = Recipe(epochs=30, lr=0.1, augmentation=Augmentation(crop=1, flip=True))
RECALIBRATION_BATCHES = 40


def main() -> None:
    """Train, prune, print the table."""
    print(f"fashion-mini 14x14, {RECIPE.epochs} epochs, seeds {SEEDS}; mean ± standard deviation in %\n")
    print("| penalty | λ | dense | ratio | " + " | ".join(WAYS) + " | parameters |")
    print("|---|---|---|---|" + "---|" * (len(WAYS) + 1))
    for penalty, strength in product(PENALTIES, LAMBDAS):
        runs = [_one_seed(Sparsity(penalty), strength, seed) for seed in SEEDS]
        dense = spread([accuracy for accuracy, _ in runs])
        for ratio in RATIOS:
            cells = [spread([table[ratio][way] for _, table in runs]) for way in WAYS]
            params = statistics.mean(table[ratio]["params"] for _, table in runs)
            row = [penalty, f"{strength:g}", dense, f"{ratio:g}", *cells, f"{params:,.0f}"]
            print("| " + " | ".join(row) + " |", flush=True)


def _one_seed(sparsity: Sparsity, strength: float, seed: int) -> tuple[float, dict[float, dict[str, float]]]:
    """Dense accuracy, and for every ratio the accuracy of each way."""
    splits = split(load_dataset("fashion-mini", image_size=14), validation=0.1, seed=seed)
    torch.manual_seed(seed)
    model = slimnet.models.resnet([1, 1, 1], 16, in_channels=1)
    graph = slimnet.trace(model, splits.example)
    train(
        model,
        splits,
        RECIPE,
        seed=seed,
        gammas=scaling_factors(graph),
        strength=strength,
        sparsity=sparsity,
        precision=native_precision("cpu"),
    )
    model.eval()
    pruned = {ratio: _prune(model, graph, splits, ratio, seed) for ratio in RATIOS}
    return evaluate(model, splits, splits.test), pruned


def _prune(
    model: nn.Module, graph: slimnet.ChannelGraph, splits: Splits, ratio: float, seed: int
) -> dict[str, float]:
    found: dict[str, float] = {}
    for way, (absorb, recalibrate, over) in WAYS.items():
        smaller = slimnet.prune(model, slimnet.plan(graph, ratio=ratio, threshold_over=over), absorb=absorb)
        if recalibrate:
            recalibrate_on(smaller, splits, RECALIBRATION_BATCHES, seed=seed + 1000)
        found[way] = evaluate(smaller, splits, splits.test)
        found.setdefault("params", slimnet.count_params(smaller))
    return found
