"""What several commands do: open a file with its data, train into one, keep the record of each step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

import slimnet
from slimnet.checkpoint import Checkpoint
from slimnet.cli import options as opt
from slimnet.cli import show
from slimnet.cli.datasets import DataSettings, recorded_data
from slimnet.cli.files import resumable
from slimnet.cli.networks import check_fit, open_network
from slimnet.data import Splits
from slimnet.evaluation import measure
from slimnet.pruning.planning import scaling_factors
from slimnet.seeds import derive_seed
from slimnet.training.loop import train
from slimnet.training.recipe import Recipe
from slimnet.training.sparsity import PLAIN_L1, Sparsity


def train_to(
    out: Path,
    partial: Path,
    network: nn.Module,
    splits: Splits,
    recipe: Recipe,
    made_from: dict[str, Any],
    purpose: str,
    *,
    sparsity: Sparsity = PLAIN_L1,
    teacher: nn.Module | None = None,
) -> None:
    """Train by the last step of a record, measure, and write the file.

    Args:
        out: written when all epochs are done.
        partial: kept after every epoch and, if it is there, gone on from.
        network: trained in place.
        splits: what it is trained and measured on.
        recipe: as in that step.
        made_from: the record, which becomes the file's config.
        purpose: of the batches' seed.
        sparsity: how λ acts.
        teacher: of distillation.
    """
    place = show.place(splits.train.x.device)
    print(f"{slimnet.count_params(network):,} parameters, {len(splits.train):,} images, {place}")
    step = made_from["steps"][-1]
    gammas = scaling_factors(slimnet.trace(network, splits.example), streams=step["streams"])
    with resumable(partial), show.Progress(recipe.epochs) as progress:
        history = train(
            network,
            splits,
            recipe,
            seed=derive_seed(made_from["seed"], purpose, "batches"),
            gammas=gammas,
            strength=step["lambda"],
            sparsity=sparsity,
            teacher=teacher,
            precision=step["precision"],
            compiled=step["compile"],
            checkpoint=partial,
            on_epoch=progress.epoch,
            on_step=progress.step,
        )
        metrics = {
            **measure(network, splits),
            **{name: history[-1][name] for name in ("loss", "train_accuracy", "near_zero")},
        }
        config = {**made_from, "image_shape": list(splits.image_shape)}
        slimnet.save(out, network.cpu(), metrics=metrics, config=config, training={"history": history})
    if sparsity.target is not None:
        share = f"{metrics['near_zero']:.1%} of the scaling factors"
        print(f"near zero: {share}, where the target is {sparsity.target:.0%}")
    print(f"{show.describe(metrics)}\nwritten: {out}")


def extend_record(
    config: dict[str, Any], settings: DataSettings, splits: Splits, model: str | None, step: dict[str, Any]
) -> dict[str, Any]:
    """The config of a file made from one with `config` by one more step."""
    return {
        "seed": settings.seed,
        "data": settings.record(),
        "image_shape": list(splits.image_shape),
        "model": model or config.get("model"),
        "steps": [*config.get("steps", []), step],
    }


def open_with_data(
    file: Path,
    model: str | None,
    data: str | None,
    image_size: int | None,
    data_dir: Path | None,
    device: opt.Place,
) -> tuple[nn.Module, Checkpoint, DataSettings, Splits]:
    """A network on its device, what its file holds, and its data."""
    place = opt.choose_device(device)
    network, saved = open_network(file, model)
    settings = recorded_data(file, saved.config, data, image_size)
    splits = settings.load(data_dir, place)
    network.to(place)
    check_fit(network, splits, str(file))
    return network, saved, settings, splits
