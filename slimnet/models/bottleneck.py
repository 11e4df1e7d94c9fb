"""Bottleneck ResNets (He et al. 2015, arXiv 1512.03385) whose every width is a number in one flat list.

The layout of `widths` is the `cfg` of Network Slimming: the stem, then conv1, conv2, conv3 of each block.
As in the experiment this project grew from, a shortcut that changes shape is a 1x1 conv without BatchNorm.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import torch
from torch import Tensor, nn

from slimnet.errors import SlimnetError
from slimnet.models.stand_ins import Constant
from slimnet.models.stems import Stem

EXPANSION = 4


def default_widths(blocks: Sequence[int], width: int) -> list[int]:
    """The widths of the unpruned network: planes double per stage, a block ends `EXPANSION` times wider."""
    widths = [width]
    for stage, count in enumerate(blocks):
        planes = width * 2**stage
        widths += [planes, planes, planes * EXPANSION] * count
    return widths


def check_widths(blocks: Sequence[int], widths: Sequence[int]) -> None:
    """Refuse widths that no bottleneck ResNet with these blocks can have.

    Raises:
        SlimnetError: naming the block and the numbers that disagree.
    """
    expected = 1 + 3 * sum(blocks)
    if len(widths) != expected:
        raise SlimnetError(
            f"widths has {len(widths)} numbers, but blocks {list(blocks)} need {expected}: "
            f"the stem and three per block"
        )
    for position, value in enumerate(widths):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise SlimnetError(
                f"widths[{position}] is {value!r}; every width is a whole number of at least 1"
            )
    incoming, position = widths[0], 1
    for stage, count in enumerate(blocks):
        for block in range(count):
            outgoing = widths[position + 2]
            if block > 0 and outgoing != incoming:
                raise SlimnetError(
                    f"stage {stage + 1}, block {block + 1} adds its input of {incoming} channels to a conv3 "
                    f"of {outgoing} (widths[{position + 2}]); the two must be equal"
                )
            incoming, position = outgoing, position + 3


class Bottleneck(nn.Module):
    """1x1, 3x3 (which carries the stride), 1x1, each with BatchNorm, added to the shortcut."""

    def __init__(self, incoming: int, widths: Sequence[int], stride: int, project: bool) -> None:
        super().__init__()
        first, second, third = widths
        self.conv1 = nn.Conv2d(incoming, first, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.conv2 = nn.Conv2d(first, second, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(second)
        self.conv3 = nn.Conv2d(second, third, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(third)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = nn.Conv2d(incoming, third, 1, stride=stride, bias=False) if project else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return self.relu(out + self.shortcut(x))  # type: ignore[no-any-return]


class ResNet(nn.Module):
    """A bottleneck ResNet; see `resnet` for the arguments.

    Example:
        >>> model = slimnet.models.resnet([1], width=8)
        >>> type(model).__name__, model.widths
        ('ResNet', [8, 8, 8, 32])
    """

    def __init__(
        self, blocks: Sequence[int], widths: Sequence[int], *, num_classes: int, in_channels: int, stem: Stem
    ) -> None:
        super().__init__()
        self.blocks = tuple(blocks)
        self.stem = stem
        large = stem == "imagenet"
        self.conv1 = nn.Conv2d(
            in_channels,
            widths[0],
            7 if large else 3,
            stride=2 if large else 1,
            padding=3 if large else 1,
            bias=False,
        )
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if stem == "cifar" else nn.MaxPool2d(3, stride=2, padding=1)
        incoming, position, stages = widths[0], 1, []
        for stage, count in enumerate(blocks):
            layers = []
            for block in range(count):
                stride = 2 if stage > 0 and block == 0 else 1
                layers.append(
                    Bottleneck(incoming, widths[position : position + 3], stride, project=block == 0)
                )
                incoming, position = widths[position + 2], position + 3
            stages.append(nn.Sequential(*layers))
        self.stages = nn.Sequential(*stages)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(incoming, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.avgpool(self.stages(x))
        return self.fc(torch.flatten(x, 1))  # type: ignore[no-any-return]

    @property
    def widths(self) -> list[int]:
        """The flat widths, read off the layers: they stay true through pruning; 0 inside a dropped block."""
        widths = [self.conv1.out_channels]
        for module in self.modules():
            if isinstance(module, Bottleneck):
                last = module.bn3 if isinstance(module.bn3, Constant) else module.conv3
                widths += [layer.out_channels for layer in (module.conv1, module.conv2, last)]
        return widths

    @property
    def architecture(self) -> dict[str, Any]:
        """What `slimnet.load` needs to build this network again: primitives only."""
        return {
            "name": "resnet",
            "blocks": list(self.blocks),
            "widths": self.widths,
            "num_classes": self.fc.out_features,
            "in_channels": self.conv1.in_channels,
            "stem": self.stem,
        }


def resnet(
    blocks: Sequence[int],
    width: int = 64,
    *,
    num_classes: int = 10,
    in_channels: int = 3,
    stem: Stem = "cifar",
    widths: Sequence[int] | None = None,
) -> ResNet:
    """Any bottleneck ResNet.

    Args:
        blocks: blocks per stage; each stage after the first halves the map.
        width: channels of the stem and planes of the first stage; ignored where `widths` is given.
        num_classes: outputs of the linear layer.
        in_channels: channels of the image.
        stem: "cifar" (3x3, stride 1), "cifar-maxpool" (the same and a 3x3 max-pool of stride 2) or
            "imagenet" (7x7 of stride 2 and the max-pool).
        widths: 1 + 3 * sum(blocks) numbers: the stem, then conv1, conv2, conv3 of each block.

    Raises:
        SlimnetError: for an unknown stem, or widths that do not fit together, naming the block.

    Example:
        >>> slimnet.models.resnet([1, 1], width=8).widths
        [8, 8, 8, 32, 16, 16, 64]
        >>> slimnet.models.resnet([1, 1], widths=[8, 3, 3, 32, 5, 7, 64]).widths
        [8, 3, 3, 32, 5, 7, 64]
    """
    if stem not in get_args(Stem):
        raise SlimnetError(f"stem is {stem!r}; it is one of {', '.join(get_args(Stem))}")
    if not blocks or any(count < 1 for count in blocks):
        raise SlimnetError(f"blocks is {list(blocks)}; it needs at least one stage of at least one block")
    for name, value in {"width": width, "num_classes": num_classes, "in_channels": in_channels}.items():
        if value < 1:
            raise SlimnetError(f"{name} is {value}; it is at least 1")
    chosen = list(widths) if widths is not None else default_widths(blocks, width)
    check_widths(blocks, chosen)
    return ResNet(blocks, chosen, num_classes=num_classes, in_channels=in_channels, stem=stem)


def resnet50(
    num_classes: int = 10,
    in_channels: int = 3,
    stem: Stem = "cifar-maxpool",
    widths: Sequence[int] | None = None,
) -> ResNet:
    """The ResNet-50 that this project grew from: 23,513,162 parameters with the defaults.

    Args and errors as for `resnet`; `widths` has 49 numbers.

    Example:
        >>> slimnet.count_params(slimnet.models.resnet50())
        23513162
    """
    return resnet(
        [3, 4, 6, 3], 64, num_classes=num_classes, in_channels=in_channels, stem=stem, widths=widths
    )
