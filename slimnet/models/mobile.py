"""MobileNets of inverted residuals (V2, Sandler et al. 2018, arXiv 1801.04381), every width in one flat list.

A block expands its input with a 1x1 conv, filters each channel by itself (depthwise, 3x3) and projects to few
channels, without an activation. The depthwise conv has the width of what it filters, so both are one number.

| network      | stem       | parameters | MACs                    |
|--------------|------------|------------|-------------------------|
| MobileNet-V2 | "imagenet" |  3,504,872 | 300,774,272 at 224x224  |
| MobileNet-V2 | "cifar"    |  2,236,682 |  24,461,312 at 32x32    |

The first as in torchvision, with 1000 classes; the second with 10.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import torch
from torch import Tensor, nn

from slimnet.errors import SlimnetError
from slimnet.models.catalogue import SIZES, WIDTHS
from slimnet.models.common import check_sizes, check_widths, draw_weights, initialize
from slimnet.models.stand_ins import Constant
from slimnet.models.stems import Stem
from slimnet.wording import plural

EXPANSION = 6  # of all blocks but the first, which expands nothing
GROWTH = (0.5, 0.75, 1, 2, 3, 5, 10)  # the width of each stage, times that of the stem
HALVES = (False, True, True, True, False, True, False)  # whether a stage halves the map
HEAD = 4  # times the width of the last stage: the conv before the linear layer


class InvertedResidual(nn.Module):
    """1x1 to `hidden` channels, depthwise 3x3 (which carries the stride), 1x1; added to its input or not."""

    def __init__(
        self, incoming: int, hidden: int, outgoing: int, *, stride: int, expands: bool, adds: bool
    ) -> None:
        super().__init__()
        self.adds = adds
        self.conv1 = nn.Conv2d(incoming, hidden, 1, bias=False) if expands else nn.Identity()
        self.bn1 = nn.BatchNorm2d(hidden) if expands else nn.Identity()
        self.conv2 = nn.Conv2d(hidden, hidden, 3, stride=stride, padding=1, groups=hidden, bias=False)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.conv3 = nn.Conv2d(hidden, outgoing, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outgoing)
        self.relu = nn.ReLU6(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = x if isinstance(self.conv1, nn.Identity) else self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return x + out if self.adds else out  # type: ignore[no-any-return]

    @property
    def widths(self) -> list[int]:
        """The hidden and the outgoing channels, read off the layers; 0 inside a dropped block."""
        last = self.bn3 if isinstance(self.bn3, Constant) else self.conv3
        return [self.conv2.out_channels, last.out_channels]


class MobileNet(nn.Module):
    """A MobileNet; see `mobilenet` for the arguments.

    Example:
        >>> model = slimnet.models.mobilenet([1, 1], width=16)
        >>> type(model).__name__, model.widths
        ('MobileNet', [16, 16, 8, 48, 12, 48])
    """

    def __init__(
        self, blocks: Sequence[int], widths: Sequence[int], *, num_classes: int, in_channels: int, stem: Stem
    ) -> None:
        super().__init__()
        self.blocks = tuple(blocks)
        self.stem = stem
        stride = 2 if stem == "imagenet" else 1
        self.conv1 = nn.Conv2d(in_channels, widths[0], 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU6(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if stem == "cifar-maxpool" else nn.Identity()
        incoming, position, stages = widths[0], 1, []
        for stage, count in enumerate(blocks):
            layers = []
            for block in range(count):
                hidden, outgoing = widths[position : position + 2]
                layers.append(
                    InvertedResidual(
                        incoming,
                        hidden,
                        outgoing,
                        stride=2 if HALVES[stage] and block == 0 else 1,
                        expands=_expands(stage),
                        adds=block > 0,
                    )
                )
                incoming, position = outgoing, position + 2
            stages.append(nn.Sequential(*layers))
        self.stages = nn.Sequential(*stages)
        self.conv2 = nn.Conv2d(incoming, widths[-1], 1, bias=False)
        self.bn2 = nn.BatchNorm2d(widths[-1])
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[-1], num_classes)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.avgpool(self.relu(self.bn2(self.conv2(self.stages(x)))))
        return self.fc(torch.flatten(x, 1))  # type: ignore[no-any-return]

    def reset_parameters(self) -> None:
        """Draw all weights anew, at the widths that the layers have."""
        draw_weights(self)

    @property
    def widths(self) -> list[int]:
        """The flat widths, read off the layers: they stay true through pruning; 0 inside a dropped block."""
        blocks = [module for module in self.modules() if isinstance(module, InvertedResidual)]
        inner = [width for block in blocks for width in block.widths]
        return [self.conv1.out_channels, *inner, self.conv2.out_channels]

    @property
    def architecture(self) -> dict[str, Any]:
        """What `slimnet.load` needs to build this network again: primitives only."""
        return {
            "name": "mobilenet",
            "blocks": list(self.blocks),
            "widths": self.widths,
            "num_classes": self.fc.out_features,
            "in_channels": self.conv1.in_channels,
            "stem": self.stem,
        }


def mobilenet(
    blocks: Sequence[int],
    width: int = WIDTHS["mobilenet"],
    *,
    num_classes: int = 10,
    in_channels: int = 3,
    stem: Stem = "cifar",
    widths: Sequence[int] | None = None,
) -> MobileNet:
    """Any MobileNet of inverted residuals.

    Args:
        blocks: blocks per stage, at most seven stages. The stages are those of MobileNet-V2 from the first
            on: their widths are 0.5, 0.75, 1, 2, 3, 5 and 10 times that of the stem, and all but the first,
            fifth and seventh halve the map.
        width: channels of the stem; ignored where `widths` is given.
        num_classes: outputs of the linear layer.
        in_channels: channels of the image.
        stem: "cifar" (3x3, stride 1), "cifar-maxpool" (the same and a 3x3 max-pool of stride 2) or
            "imagenet" (3x3 of stride 2, as in the paper).
        widths: 2 + 2 * sum(blocks) numbers: the stem, then the hidden and outgoing channels of each block,
            and the conv before the linear layer.

    Raises:
        SlimnetError: for an unknown stem, or widths that do not fit together, naming the block.

    Example:
        >>> slimnet.models.mobilenet([1, 2], width=8).widths
        [8, 8, 4, 24, 6, 36, 6, 24]
        >>> slimnet.models.mobilenet([1, 1], widths=[8, 8, 4, 5, 6, 9]).widths
        [8, 8, 4, 5, 6, 9]
    """
    if stem not in get_args(Stem):
        raise SlimnetError(f"stem is {stem!r}; it is one of {', '.join(get_args(Stem))}")
    check_sizes(blocks, width=width, num_classes=num_classes, in_channels=in_channels)
    if len(blocks) > len(GROWTH):
        raise SlimnetError(f"blocks is {list(blocks)}; a mobilenet has at most {len(GROWTH)} stages")
    chosen = list(widths) if widths is not None else _default_widths(blocks, width)
    _check_widths(blocks, chosen)
    return MobileNet(blocks, chosen, num_classes=num_classes, in_channels=in_channels, stem=stem)


def mobilenet_v2(
    num_classes: int = 10, in_channels: int = 3, stem: Stem = "cifar", widths: Sequence[int] | None = None
) -> MobileNet:
    """MobileNet-V2: 2,236,682 parameters with the defaults.

    Args and errors as for `mobilenet`; `widths` has 36 numbers.

    Example:
        >>> model = slimnet.models.mobilenet_v2(num_classes=1000, stem="imagenet")
        >>> slimnet.count_params(model)  # as torchvision's
        3504872
    """
    _, blocks, width = SIZES["mobilenet-v2"]
    return mobilenet(
        blocks, width, num_classes=num_classes, in_channels=in_channels, stem=stem, widths=widths
    )


def _expands(stage: int) -> bool:
    """Whether the blocks of a stage, from 0, expand their input."""
    return stage > 0


def _default_widths(blocks: Sequence[int], width: int) -> list[int]:
    """The widths of the unpruned network."""
    widths, incoming = [width], width
    for stage, count in enumerate(blocks):
        outgoing = max(1, round(width * GROWTH[stage]))
        for _ in range(count):
            widths += [incoming * EXPANSION if _expands(stage) else incoming, outgoing]
            incoming = outgoing
    return [*widths, HEAD * incoming]


def _check_widths(blocks: Sequence[int], widths: Sequence[int]) -> None:
    """Refuse widths that no MobileNet with these blocks can have.

    Raises:
        SlimnetError: naming the block and the numbers that disagree.
    """
    check_widths(
        blocks, widths, 2 + 2 * sum(blocks), "the stem, two per block, and the conv before the linear layer"
    )
    incoming, position = widths[0], 1
    for stage, count in enumerate(blocks):
        for block in range(count):
            hidden, outgoing = widths[position : position + 2]
            where = f"stage {stage + 1}, block {block + 1}"
            if not _expands(stage) and hidden != incoming:
                raise SlimnetError(
                    f"{where} expands nothing, so that its hidden channels, {hidden} (widths[{position}]), "
                    f"must be the {incoming} of its input"
                )
            if block > 0 and outgoing != incoming:
                raise SlimnetError(
                    f"{where} adds its input of {plural(incoming, 'channel')} to a conv3 of {outgoing} "
                    f"(widths[{position + 1}]); the two must be equal"
                )
            incoming, position = outgoing, position + 2
