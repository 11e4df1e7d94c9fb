"""What several commands do: open a file with its data, train into one, keep the record of each step."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from slimnet.checkpoint import Checkpoint, save
from slimnet.cli import options as opt
from slimnet.cli import show
from slimnet.cli.datasets import DataSettings, recorded_data
from slimnet.cli.files import resumable
from slimnet.cli.networks import open_network, parse_args
from slimnet.cost import count_params
from slimnet.data import Splits
from slimnet.devices import DeviceWish, shortcomings
from slimnet.networks import check_fit
from slimnet.precision import Precision
from slimnet.steps import Trained
from slimnet.training.loop import OnEpoch, OnStep
from slimnet.training.recipe import Recipe
from slimnet.wording import plural


class TrainingStep(Protocol):
    """A step of `slimnet.steps` that trains, with all bound but its data, its recipe and how it runs."""

    def __call__(
        self,
        model: nn.Module,
        splits: Splits,
        recipe: Recipe,
        *,
        precision: Precision,
        compiled: bool,
        checkpoint: Path,
        on_resume: OnEpoch,
        on_epoch: OnEpoch,
        on_step: OnStep,
    ) -> Trained | None: ...


def train_to(
    out: Path,
    partial: Path,
    network: nn.Module,
    splits: Splits,
    recipe: Recipe,
    made_from: dict[str, Any],
    run: TrainingStep,
) -> dict[str, Any]:
    """Train by the last step of a record, and write the file.

    Args:
        out: written when all epochs are done.
        partial: kept after every epoch and, if it is there, continued from.
        network: trained in place.
        splits: what it is trained and measured on.
        recipe: as in that step.
        made_from: the record, which becomes the file's config.
        run: what trains.

    Returns:
        The metrics.
    """
    place = _place(splits.device)
    print(f"{count_params(network):,} parameters, {plural(len(splits.train), 'image')}, {place}")
    for lacking in shortcomings(splits.device):
        print(lacking)
    step = made_from["steps"][-1]
    with resumable(partial), show.Progress(recipe.epochs) as progress:
        trained = run(
            network,
            splits,
            recipe,
            precision=step["precision"],
            compiled=step["compile"],
            checkpoint=partial,
            on_resume=progress.resume,
            on_epoch=progress.epoch,
            on_step=progress.step,
        )
        assert trained is not None, "nothing stops it before its last epoch"
        config = {**made_from, "image_shape": list(splits.image_shape)}
        training = {"history": trained.history}
        save(out, trained.model.cpu(), metrics=trained.metrics, config=config, training=training)
    return trained.metrics


def _place(device: torch.device) -> str:
    """Where a training runs: "cuda:0", or "cpu with 2 threads"."""
    threads = torch.get_num_threads()
    return f"cpu with {threads} thread{'s' * (threads > 1)}" if device.type == "cpu" else str(device)


def extend_record(
    config: dict[str, Any], settings: DataSettings, splits: Splits, model: str | None, step: dict[str, Any]
) -> dict[str, Any]:
    """The config of a file made from one with `config` by one more step."""
    return {
        "seed": settings.seed,
        "data": settings.record(),
        "image_shape": list(splits.image_shape),
        "model": model or config.get("model"),
        **({"source": config["source"]} if "source" in config else {}),
        "steps": [*config.get("steps", []), step],
    }


def open_with_data(
    file: Path,
    model: str | None,
    args: list[str] | None,
    data: str | None,
    image_size: int | None,
    data_dir: Path | None,
    device: DeviceWish,
) -> tuple[nn.Module, Checkpoint, DataSettings, Splits]:
    """A network on its device, what its file holds, and its data."""
    place = opt.place_for(device)
    network, saved = open_network(file, model, parse_args(args or []))
    settings = recorded_data(file, saved.config, data, image_size)
    splits = settings.load(data_dir, place)
    network.to(place)
    check_fit(network, splits.image_shape, splits.num_classes, str(file))
    return network, saved, settings, splits
