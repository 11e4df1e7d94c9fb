"""A network with its normalisation in front, and the description that goes into its files."""

from __future__ import annotations

import json
from typing import Any, Literal

import torch
from torch import Tensor, nn

import slimnet
from slimnet.preprocessing import Preprocessing

Pixels = Literal["float", "uint8", "normalized"]
"""What an exported network takes: pixels in [0, 1], pixels in 0..255, or what the network itself takes."""

LEVELS = 255.0
_VALUES = {
    "float": "pixels in [0, 1]; they are normalised inside",
    "uint8": "pixels in 0..255; they are normalised inside",
    "normalized": "(pixels in [0, 1] - mean) / std, per channel",
}


class Deployed(nn.Module):
    """A network that takes raw pixels (N, C, H, W).

    It normalises as training does, in units of 0..255, so that 8-bit images, as uint8 or divided by 255, give
    the network the very numbers that it was trained and measured on.
    """

    def __init__(self, network: nn.Module, preprocessing: Preprocessing, pixels: Pixels) -> None:
        super().__init__()
        self.network = network
        floats = (tensor.dtype for tensor in network.state_dict().values() if tensor.is_floating_point())
        dtype = next(floats, torch.float32)
        self.scale = LEVELS if pixels == "float" else 1.0
        for name, values in (("mean", preprocessing.mean), ("std", preprocessing.std)):
            levels = torch.tensor(values, dtype=torch.float64).mul(LEVELS).to(dtype).reshape(1, -1, 1, 1)
            self.register_buffer(name, levels)

    def forward(self, images: Tensor) -> Tensor:
        """The network's output for raw pixels."""
        mean, std = self.get_buffer("mean"), self.get_buffer("std")
        levels = images.to(mean.dtype)
        if self.scale != 1.0:
            levels = levels * self.scale
        output: Tensor = self.network((levels - mean) / std)
        return output


def example_of(image_shape: tuple[int, ...], pixels: Pixels) -> Tensor:
    """One empty image as the exported network takes it."""
    dtype = torch.uint8 if pixels == "uint8" else torch.float32
    return torch.zeros((1, *image_shape), dtype=dtype)


def prepare(images: Tensor, preprocessing: Preprocessing, pixels: Pixels) -> Tensor:
    """Images (N, C, H, W), uint8, as the exported network takes them."""
    if pixels == "uint8":
        return images
    if pixels == "float":
        return images.float() / LEVELS
    mean, std = (
        torch.tensor(values, dtype=torch.float64).mul(LEVELS).float().reshape(1, -1, 1, 1)
        for values in (preprocessing.mean, preprocessing.std)
    )
    return (images.float() - mean) / std


def describe(
    image_shape: tuple[int, ...],
    preprocessing: Preprocessing | None,
    pixels: Pixels,
    metrics: dict[str, Any],
    source: dict[str, Any],
) -> dict[str, Any]:
    """What a program or a person needs in order to use an exported network, in primitives.

    Args:
        image_shape: (C, H, W), what the network takes.
        preprocessing: of the network; None leaves out what only that tells.
        pixels: what the exported network takes.
        metrics: what was measured of it; only numbers and texts are kept.
        source: where it comes from.
    """
    outputs, known = {}, {}
    if preprocessing is not None:
        outputs = {"shape": ["batch", len(preprocessing.classes)]}
        known = {"classes": list(preprocessing.classes), "preprocessing": preprocessing.record()}
    return {
        "made_by": f"slimnet {slimnet.__version__}",
        "input": {
            "name": "input",
            "layout": "NCHW",
            "shape": ["batch", *image_shape],
            "dtype": "uint8" if pixels == "uint8" else "float32",
            "pixels": pixels,
            "values": _VALUES[pixels] if preprocessing else "images that the user prepares; how is not known",
        },
        "output": {
            "name": "output",
            **outputs,
            "values": "a score per class, the highest is the answer; their softmax gives probabilities",
        },
        **known,
        "metrics": {k: v for k, v in metrics.items() if isinstance(v, int | float | str)},
        "source": source,
    }


def as_texts(description: dict[str, Any]) -> dict[str, str]:
    """A description as formats hold it that know only texts: each of its entries as JSON."""
    return {name: json.dumps(value, ensure_ascii=False) for name, value in description.items()}
