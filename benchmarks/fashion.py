"""The small setting of the comparisons over seeds: the default sweep's network on fashion-mini at 14x14."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from datetime import date

import torch
from torch import nn

import slimnet
from slimnet.data import Splits, load_dataset, split
from slimnet.data.augmentation import Augmentation
from slimnet.precision import native_precision
from slimnet.pruning.calibrate import recalibrate_on
from slimnet.pruning.planning import scaling_factors
from slimnet.training.loop import train
from slimnet.training.recipe import Recipe
from slimnet.training.sparsity import Sparsity

SEEDS = (0, 1, 2)
SPARSE = Recipe(epochs=16, lr=0.1, augmentation=Augmentation(crop=1, flip=True))
BATCHES = 20  # for new BatchNorm statistics after pruning


@dataclass(frozen=True)
class Setting:
    """A network and what it is trained and measured on."""

    seed: int
    splits: Splits
    model: nn.Module
    graph: slimnet.ChannelGraph


def sparse_network(seed: int, strength: float, sparsity: Sparsity) -> Setting:
    """A network trained sparse, its residual streams too."""
    splits = split(load_dataset("fashion-mini", image_size=14), validation=0.2, seed=seed)
    torch.manual_seed(seed)
    model = slimnet.models.resnet([1, 1, 1], 16, in_channels=1)
    graph = slimnet.trace(model, splits.example)
    gammas = scaling_factors(graph, streams=True)
    precision = native_precision("cpu")
    train(
        model,
        splits,
        SPARSE,
        seed=seed,
        gammas=gammas,
        strength=strength,
        sparsity=sparsity,
        precision=precision,
    )
    return Setting(seed, splits, model.eval(), graph)


def cut_to(setting: Setting, params: int) -> nn.Module:
    """The network pruned to a number of parameters, with new BatchNorm statistics."""
    smaller = slimnet.prune(setting.model, slimnet.plan(setting.graph, params=params, streams=True))
    recalibrate_on(smaller, setting.splits, BATCHES, seed=setting.seed + 1000)
    return smaller


def fine_tune(setting: Setting, model: nn.Module, recipe: Recipe) -> None:
    """Train a pruned network, taught by the one before pruning where the recipe says so."""
    seed, precision = setting.seed + 1000, native_precision("cpu")
    train(model, setting.splits, recipe, seed=seed, gammas={}, teacher=setting.model, precision=precision)


def spread(values: list[float]) -> str:
    """Mean and standard deviation, in percent."""
    return f"{100 * statistics.mean(values):.1f} ± {100 * statistics.stdev(values):.1f}"


def describe() -> str:
    """The setting in a line."""
    sizes = f"fashion-mini 14x14, 126,458 parameters, {SPARSE.epochs} sparse epochs at lr {SPARSE.lr:g}"
    return f"{sizes}, seeds {SEEDS}, {date.today()}"
