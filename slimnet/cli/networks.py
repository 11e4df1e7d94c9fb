"""Networks as the commands take them: from a file, from slimnet's own families, from the user's code."""

from __future__ import annotations

import importlib
import operator
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from slimnet.checkpoint import Checkpoint, build, read
from slimnet.data import Splits
from slimnet.errors import SlimnetError
from slimnet.models.catalogue import SIZES, WIDTHS, WITH_STEM, family_of
from slimnet.models.families import FAMILIES
from slimnet.models.stems import Stem
from slimnet.modes import evaluating

BLOCKS, WIDTH = (1, 1, 1), 16  # of the default network


def open_network(path: Path, factory: str | None) -> tuple[nn.Module, Checkpoint]:
    """The network in a finished file, and everything else that the file holds."""
    saved = read(path)
    if "optimizer" in saved.training:
        done = len(saved.training.get("history", []))
        raise SlimnetError(f"{path} is a training in progress, after epoch {done}; let it finish first")
    if factory is None and saved.architecture is None:
        made_by = saved.config.get("model", "MODULE:FACTORY")
        raise SlimnetError(f"{path} holds a network of your own; say what makes it with --model {made_by}")
    return build(saved, make_network(factory) if factory else None, source=str(path)), saved


def make_network(spec: str) -> nn.Module:
    """Call the factory "package.module:name", found as Python finds modules, the current folder included."""
    module_name, colon, name = spec.partition(":")
    if not (module_name and colon and name):
        raise SlimnetError(f"--model is {spec}; it is package.module:factory, such as nets:SmallNet")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        model = operator.attrgetter(name)(importlib.import_module(module_name))()
    except Exception as error:  # the user's code may raise anything
        raise SlimnetError(f"--model {spec} cannot be made: {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise SlimnetError(f"--model {spec} makes a {type(model).__name__}; a torch.nn.Module is needed")
    return model


def new_network(
    spec: str, blocks: Sequence[int] | None, width: int | None, stem: Stem | None, splits: Splits
) -> nn.Module:
    """A fresh network for a data set: of slimnet's own, by name, or the user's."""
    if spec not in WIDTHS and (blocks or width):
        raise SlimnetError(f"--blocks and --width are of {', '.join(WIDTHS)}; {spec} has its own")
    family = family_of(spec)
    if stem and family not in WITH_STEM:
        raise SlimnetError(f"--stem is of ResNets; {spec} has its own first layers")
    if family not in FAMILIES:
        return make_network(spec)
    if stem is None and spec == "resnet50":
        stem = "cifar-maxpool"
    _, blocks, width = SIZES.get(spec, (family, blocks or BLOCKS, width or WIDTH))
    return FAMILIES[family](
        blocks,
        width,
        num_classes=splits.num_classes,
        in_channels=splits.image_shape[0],
        **({"stem": stem} if stem else {}),
    )


def check_fit(model: nn.Module, splits: Splits, what: str) -> None:
    """Refuse a network that does not take these images, or has too few outputs for their classes."""
    shape = "x".join(map(str, splits.image_shape))
    try:
        with torch.inference_mode(), evaluating(model):
            output = model(splits.example)
    except Exception as error:  # whatever a forward may raise
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise SlimnetError(f"{what} does not take images of {shape}: {first}") from error
    if not isinstance(output, Tensor) or output.dim() != 2 or output.shape[1] < splits.num_classes:
        found = (
            f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else f"type {type(output).__name__}"
        )
        raise SlimnetError(
            f"{what} returns an output of {found} for one image; the data need (1, {splits.num_classes}), "
            f"a number per class"
        )
