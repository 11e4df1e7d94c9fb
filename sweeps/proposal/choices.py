"""Chooses sizes, epochs and a search space for data and a network, by looking at them."""

from __future__ import annotations

import json
import tempfile
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median_low

import numpy as np
from PIL import Image
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from slimnet.cost import count_params
from slimnet.data import load_dataset
from slimnet.data.catalogue import Source
from slimnet.data.listing import list_pictures
from slimnet.data.sets import Dataset
from slimnet.errors import SlimnetError
from slimnet.models.stems import Stem
from slimnet.networks import new_network
from slimnet.progress import ProgressLine
from sweeps.check import Findings, seconds_of
from sweeps.check.probe import probe
from sweeps.config import Config, load_config
from sweeps.config.space import Log
from sweeps.machine import look
from sweeps.proposal import Shown
from sweeps.proposal.template import render
from sweeps.stages import Store
from sweeps.state import State
from sweeps.study import Facts, Study

SIDES = (32, 48, 64, 96, 128, 160, 192, 224)  # to which pictures are resized
MOST_SIDE, MOST_SIDE_ACCELERATED = (
    64,
    128,
)  # pixels that a processor, and an accelerator, are asked to look at
MEASURED = 500  # pictures whose size is looked at
MANY = 10_000  # images
SMALL = 40  # pixels up to which a network begins at full resolution
LONG = 20 * 60  # seconds that a sweep may take, if the epochs can be chosen so
FEWEST_EPOCHS, MOST_EPOCHS = 6, 60
POINTS = 12  # of the search space
LARGEST, SMALLEST = 4, (50, 20, 10, 6)  # parts of the network's parameters that the search space ends at


@dataclass(frozen=True)
class Proposal:
    """The fields of a config that were chosen, and what they were chosen by.

    Attributes:
        given: the data and the network.
        about: the data in words.
        machine: on which it was timed.
        seconds: that the sweep takes there.
        image_size, size_note: the side of the images and why; None for their own.
        validation: the fraction held out; None where the data have such a part.
        blocks, width, stem: of the network, if none was given.
        epochs: before the cut, and as many after it.
        params: of the whole network.
        norms: whether it has BatchNorms with scaling factors.
        fewest, most: parameters, the ends of the search space.
    """

    given: Shown
    about: str
    machine: str
    image_size: int | None
    size_note: str
    validation: float | None
    crop: int
    flip: bool
    batch_size: int
    blocks: tuple[int, ...]
    width: int
    stem: Stem
    lr: float
    epochs: int = 8
    params: int = 0
    norms: bool = True
    fewest: int = 1
    most: int = 2
    seconds: float = 0.0

    @property
    def few_epochs(self) -> int:
        """Of sparse training that only has to find widths: an eighth of all."""
        return max(2, self.epochs // 4)

    @property
    def sizes(self) -> Log:
        """The searched numbers of parameters: with two ways to cut, half as many as with one."""
        return Log(self.fewest, self.most, POINTS // 2 if self.norms else POINTS)

    @property
    def points(self) -> int:
        """Of the search space: some of the sizes of a tiny network are the same."""
        return len(self.sizes.values() or ()) * (2 if self.norms else 1)


def choose(given: Shown, data_dir: Path | None) -> tuple[Proposal, Findings]:
    """See `sweeps.proposal.propose`."""
    machine = look("auto")
    on_cpu = machine.kind == "cpu"
    dataset, size, note = _load(given.data, MOST_SIDE if on_cpu else MOST_SIDE_ACCELERATED, data_dir)
    channels, *sides = dataset.image_shape
    large = min(sides) > SMALL
    first = Proposal(
        given=given,
        about=_about(dataset),
        machine=f"{machine.kind}, {machine.name}",
        image_size=size,
        size_note=note,
        validation=None if dataset.x_validation is not None else _validation(dataset),
        crop=min(sides) // 8,
        flip=channels == 3,
        batch_size=_batch_size(len(dataset.y_train)),
        blocks=((1,) if on_cpu else (2,)) * (4 if large else 3),
        width=16 if on_cpu else 32,
        stem="imagenet" if large else "cifar",
        lr=0.05 if given.model else 0.1,
    )
    network = _network(first, dataset)
    norms = any(isinstance(module, _BatchNorm) and module.affine for module in network.modules())
    return _fitted(replace(first, params=count_params(network), norms=norms), data_dir)


def _network(proposal: Proposal, dataset: Dataset) -> nn.Module:
    model = _config(proposal).model
    return new_network(
        model.description(), dataset.image_shape, dataset.num_classes, folder=model.path, init=model.init
    )


def _fitted(first: Proposal, data_dir: Path | None) -> tuple[Proposal, Findings]:
    """With a search space that the network allows, and epochs that take as long as a sweep may."""
    for part in SMALLEST:
        sized = replace(first, fewest=_round(first.params / part), most=_round(first.params / LARGEST))
        found = probe(_config(sized), data_dir)
        refusal = found.network.cuts[0].refusal
        if not refusal:
            break
    else:
        raise SlimnetError(f"this network cannot be made small: {refusal}")
    fitting = round(sized.epochs * LONG / max(1.0, _seconds(sized, found)))
    epochs = min(MOST_EPOCHS, max(FEWEST_EPOCHS, fitting))
    final = replace(sized, epochs=epochs)
    return replace(final, seconds=_seconds(final, found)), found


def _config(proposal: Proposal) -> Config:
    """The config, as it will be read; factories and data are found from here too."""
    given = proposal.given
    overrides = [f"data.path={json.dumps(str(given.data.path))}"] if given.data.path else []
    if given.model and ":" in given.model:
        overrides.append(f"model.path={json.dumps(str(given.folder))}")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{given.study}.yaml"
        file.write_text(render(proposal), encoding="utf-8")
        return load_config(file, overrides)


def _seconds(proposal: Proposal, found: Findings) -> float:
    """The time that a sweep takes from its beginning."""
    config = _config(proposal)
    with tempfile.TemporaryDirectory() as runs:
        facts = Facts("", found.machine.precision, "not read for a look", found.networks)
        state = State(config, Study(Path(runs) / config.study, facts, []), Store(Path(runs)))
        return seconds_of(state, found)


# ------------------------------------------------------------------------------------------------------- data


def _load(source: Source, most: int, data_dir: Path | None) -> tuple[Dataset, int | None, str]:
    """The data, the side of the images if one must be said, and why it is that."""
    size, note = None, ""
    if source.name == "folder":
        assert source.path is not None, "a folder has a path"
        smaller = median_low(_shorter_sides(source.path))
        size = max(side for side in SIDES if side <= max(SIDES[0], min(smaller, most)))
        note = f"half of the pictures have a shorter side of {smaller} or more; larger takes longer"
    on_progress = ProgressLine()
    try:
        dataset = load_dataset(source, data_dir=data_dir, image_size=size, on_progress=on_progress)
    except SlimnetError as error:
        if size is not None or "image_size" not in str(error):
            raise
        size, note = most, "the pictures differ in size; larger takes longer"
        return load_dataset(source, data_dir=data_dir, image_size=size, on_progress=on_progress), size, note
    _, height, width = dataset.image_shape
    if size is None and height == width > most:
        size = max(side for side in range(1, most + 1) if height % side == 0)
        note = f"{height} pixels, pooled; larger takes longer"
        dataset = load_dataset(source, data_dir=data_dir, image_size=size, on_progress=on_progress)
    return dataset, size, note


def _shorter_sides(folder: Path) -> list[int]:
    """The shorter sides of some of the pictures; those that cannot be read are passed over here."""
    paths = [picture.path for part in list_pictures(folder).parts.values() for picture in part]
    sides = []
    for path in paths[:: max(1, len(paths) // MEASURED)]:
        with suppress(Exception), Image.open(folder / path) as picture:  # which decodes nothing yet
            sides.append(min(picture.size))
    return sides or [SIDES[0]]


def _validation(dataset: Dataset) -> float:
    """A fraction that leaves every class some images, and enough of them to compare networks."""
    fewest = int(np.bincount(dataset.y_train, minlength=dataset.num_classes).min())
    fraction = 0.2 if len(dataset.y_train) < MANY else 0.1
    return fraction if round(fraction * fewest) else 0.5


def _batch_size(images: int) -> int:
    """Small ones give small sets more steps, which they need more than speed."""
    return 32 if images < MANY else 64 if images < 5 * MANY else 128


def _about(dataset: Dataset) -> str:
    channels, height, width = dataset.image_shape
    kind = {1: "grey", 3: "colour"}.get(channels, f"{channels}-channel")
    return (
        f"{len(dataset.y_train):,} {kind} images of {height}x{width} pixels in {dataset.num_classes} classes"
    )


def _round(number: float) -> int:
    """A whole number of two digits that count."""
    digits = max(0, len(str(int(number))) - 2)
    return int(max(1, round(number / 10**digits) * 10**digits))
