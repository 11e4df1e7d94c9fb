"""The networks of published tables, built here and counted by slimnet; none is trained."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import slimnet
from slimnet.models import ResNet, resnet, resnet20, resnet50, resnet56, vgg19
from slimnet.models.blocks import BasicBlock

REPORT_90 = [
    64, 64, 64, 256, 64, 64, 256, 64, 64, 256,
    114, 103, 512, 96, 114, 512, 44, 51, 512, 10, 15, 512,
    14, 12, 1024, 9, 20, 1024, 3, 6, 1024, 3, 3, 1024, 3, 3, 1024, 3, 4, 1024,
    13, 17, 2048, 3, 9, 2048, 3, 3, 2048,
]  # fmt: skip
"""The widths of the lab report's 90 % network."""

Widths = tuple[tuple[int, ...], ...]
"""Of a ResNet-56 by stage: the width that its blocks end with, then the inner one of each block."""
GROUP_BN: Widths = (
    (13, 14, 7, 7, 9, 12, 11, 11, 16, 15),
    (23, 32, 15, 25, 26, 26, 6, 13, 10, 4),
    (36, 64, 61, 55, 51, 51, 41, 38, 27, 62),
)
DEPGRAPH_211: Widths = (
    (14, 11, 3, 7, 9, 6, 10, 4, 10, 7),
    (31, 28, 9, 25, 27, 24, 6, 13, 11, 7),
    (41, 61, 57, 55, 50, 59, 43, 30, 36, 56),
)
DEPGRAPH_255: Widths = (
    (12, 9, 5, 7, 9, 6, 12, 4, 11, 7),
    (30, 27, 10, 24, 27, 25, 8, 11, 7, 7),
    (25, 61, 55, 51, 47, 57, 37, 36, 42, 53),
)


@dataclass(frozen=True)
class Counted:
    """A network as slimnet counts it.

    Attributes:
        macs: in convolutions and linear layers, of an image of 32x32.
        norm: the parameters of its BatchNorms, which are among `params`.
        channels: of its BatchNorms.
    """

    params: int
    macs: int
    norm: int

    @property
    def channels(self) -> int:
        """Of all BatchNorms: two parameters are one channel."""
        return self.norm // 2


def count_network(model: nn.Module) -> Counted:
    """Count a network."""
    norm = sum(slimnet.count_params(layer) for layer in norms(model))
    return Counted(slimnet.count_params(model), slimnet.count_macs(model, image()), norm)


def image() -> Tensor:
    """One image of CIFAR-10's shape."""
    return torch.zeros(1, 3, 32, 32)


def norms(model: nn.Module) -> Iterator[nn.BatchNorm2d]:
    """The BatchNorms of a network."""
    return (layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d))


class PaddedShortcut(nn.Module):
    """He et al.'s shortcut without parameters, option A: every second pixel, and channels of zeros."""

    def __init__(self, missing: int) -> None:
        super().__init__()
        self.missing = missing

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.missing // 2, self.missing // 2))


def with_option_a(model: ResNet) -> ResNet:
    """A ResNet of basic blocks with option A in place of its convolutional shortcuts."""
    for block in model.modules():
        if isinstance(block, BasicBlock) and not isinstance(block.shortcut, nn.Identity):
            missing = block.conv2.out_channels - block.conv1.in_channels
            block.shortcut = nn.Sequential(PaddedShortcut(missing))
    return model


def from_log(stages: Widths) -> ResNet:
    """The ResNet-56 whose widths a log of Torch-Pruning tells."""
    pairs = (width for end, *inner in stages for first in inner for width in (first, end))
    return resnet56(widths=[stages[0][0], *pairs])


@cache
def counted() -> dict[str, Counted]:
    """Every network that the published tables name and that can be built here, counted."""
    found = {
        "ResNet-50, max-pool": resnet50(),
        "ResNet-50": resnet50(stem="cifar"),
        "report 90 %": resnet50(widths=REPORT_90),
        "ResNet-50 x 25/64": resnet((3, 4, 6, 3), 25, stem="cifar-maxpool"),
        "ResNet-164": resnet((18, 18, 18), 16),
        "ResNet-164, 100 classes": resnet((18, 18, 18), 16, num_classes=100),
        "VGG-19": vgg19(),
        "ResNet-56": resnet56(),
        "ResNet-56, option A": with_option_a(resnet56()),
        "Group-BN 2.11": from_log(GROUP_BN),
        "DepGraph 2.11": from_log(DEPGRAPH_211),
        "DepGraph 2.55": from_log(DEPGRAPH_255),
        "ResNet-20": resnet20(),
        "ResNet-20, option A": with_option_a(resnet20()),
    }
    return {name: count_network(model.eval()) for name, model in found.items()}


def shortcut_params(model: nn.Module) -> int:
    """The parameters in the shortcuts of a network."""
    return sum(weight.numel() for name, weight in model.named_parameters() if ".shortcut." in name)


def operations(model: ResNet) -> int:
    """What Torch-Pruning's counter finds in a ResNet of basic blocks that calls one ReLU module in each.

    Beside the multiply-accumulates two for each number that a BatchNorm puts out, one for each that a ReLU
    module or the pooling takes, and one for each bias of the linear layer.
    """
    extra = model.fc.out_features

    def note(weight: int) -> object:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            nonlocal extra
            extra += weight * inputs[0].numel()

        return hook

    # The ReLU of the stem and of each block's first conv sees what the BatchNorm before it has put out.
    active = {id(model.bn1), *(id(block.bn1) for block in model.modules() if isinstance(block, BasicBlock))}
    hooks = [layer.register_forward_hook(note(3 if id(layer) in active else 2)) for layer in norms(model)]  # type: ignore[arg-type]
    hooks.append(model.avgpool.register_forward_hook(note(1)))  # type: ignore[arg-type]
    try:
        macs = slimnet.count_macs(model, image())
    finally:
        for hook in hooks:
            hook.remove()
    return macs + extra
