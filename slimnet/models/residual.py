"""ResNets (He et al. 2015, arXiv 1512.03385) whose every width is a number in one flat list.

The layout of `widths` is the `cfg` of Network Slimming: the stem, then the convs of each block.

There are two kinds, by their blocks. In bottleneck ResNets, as in the experiment this project grew from, a
shortcut that changes shape is a 1x1 conv without BatchNorm. In ResNets of basic blocks, which are those of
the paper for CIFAR (section 4.2), it is a 1x1 conv with BatchNorm, the paper's option B. So it is in the
ResNet-56 that DepGraph (Fang et al. 2023, arXiv 2301.12900) compares pruning on: 0.86 M parameters in the
logs of Torch-Pruning. Option A pads with channels of zeros instead, which ties the residual streams of all
stages to each other. The difference is 2,752 parameters:

| network    | parameters | with option A | MACs at 32x32 |
|------------|------------|---------------|---------------|
| ResNet-20  |    272,474 |       269,722 |  40,813,184   |
| ResNet-56  |    855,770 |       853,018 | 125,747,840   |
| ResNet-110 |  1,730,714 |     1,727,962 | 253,149,824   |

The logs say 127.12 M for ResNet-56, as they also count BatchNorms, the ReLU modules and the pooling.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import torch
from torch import Tensor, nn

from slimnet.errors import SlimnetError
from slimnet.models.blocks import BasicBlock, Block, Bottleneck
from slimnet.models.catalogue import SIZES, WIDTHS, SizeName
from slimnet.models.common import check_sizes, check_widths, draw_weights, initialize
from slimnet.models.stems import Stem
from slimnet.wording import plural


class ResNet(nn.Module):
    """A ResNet; see `resnet` for the arguments, and `kind` for the class of its blocks.

    Example:
        >>> model = slimnet.models.resnet([1], width=8)
        >>> type(model).__name__, model.widths
        ('ResNet', [8, 8, 8, 32])
    """

    def __init__(
        self,
        blocks: Sequence[int],
        widths: Sequence[int],
        *,
        num_classes: int,
        in_channels: int,
        stem: Stem,
        kind: type[Block] = Bottleneck,
    ) -> None:
        super().__init__()
        self.blocks = tuple(blocks)
        self.stem = stem
        self.kind = kind
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
                own = widths[position : position + kind.CONVS]
                stride = 2 if stage > 0 and block == 0 else 1
                layers.append(kind(incoming, own, stride, project=kind.projects(stage, block)))
                incoming, position = own[-1], position + kind.CONVS
            stages.append(nn.Sequential(*layers))
        self.stages = nn.Sequential(*stages)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(incoming, num_classes)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.avgpool(self.stages(x))
        return self.fc(torch.flatten(x, 1))  # type: ignore[no-any-return]

    def reset_parameters(self) -> None:
        """Draw all weights anew, at the widths that the layers have."""
        draw_weights(self)

    @property
    def widths(self) -> list[int]:
        """The flat widths, read off the layers: they stay true through pruning; 0 inside a dropped block."""
        blocks = [module for module in self.modules() if isinstance(module, Block)]
        return [self.conv1.out_channels, *(width for block in blocks for width in block.widths)]

    @property
    def architecture(self) -> dict[str, Any]:
        """What `slimnet.load` needs to build this network again: primitives only."""
        return {
            "name": self.kind.FAMILY,
            "blocks": list(self.blocks),
            "widths": self.widths,
            "num_classes": self.fc.out_features,
            "in_channels": self.conv1.in_channels,
            "stem": self.stem,
        }


def resnet(
    blocks: Sequence[int],
    width: int = WIDTHS["resnet"],
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
    return _build(Bottleneck, blocks, width, num_classes, in_channels, stem, widths)


def basic_resnet(
    blocks: Sequence[int],
    width: int = WIDTHS["basic-resnet"],
    *,
    num_classes: int = 10,
    in_channels: int = 3,
    stem: Stem = "cifar",
    widths: Sequence[int] | None = None,
) -> ResNet:
    """Any ResNet of basic blocks: two 3x3 convs each, with BatchNorm in the shortcuts that change shape.

    Args and errors as for `resnet`; `widths` has 1 + 2 * sum(blocks) numbers: the stem, then conv1, conv2 of
    each block. As the first stage begins with an identity block, it ends as wide as the stem.

    Example:
        >>> slimnet.models.basic_resnet([1, 1], width=8).widths
        [8, 8, 8, 16, 16]
        >>> resnet18 = slimnet.models.basic_resnet([2, 2, 2, 2], 64, num_classes=1000, stem="imagenet")
        >>> slimnet.count_params(resnet18)  # as torchvision's
        11689512
    """
    return _build(BasicBlock, blocks, width, num_classes, in_channels, stem, widths)


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
    return _of_size(Bottleneck, "resnet50", num_classes, in_channels, stem, widths)


def resnet20(
    num_classes: int = 10, in_channels: int = 3, stem: Stem = "cifar", widths: Sequence[int] | None = None
) -> ResNet:
    """The ResNet-20 for CIFAR: 272,474 parameters with the defaults.

    Args and errors as for `basic_resnet`; `widths` has 19 numbers.

    Example:
        >>> slimnet.count_params(slimnet.models.resnet20())
        272474
    """
    return _of_size(BasicBlock, "resnet20", num_classes, in_channels, stem, widths)


def resnet56(
    num_classes: int = 10, in_channels: int = 3, stem: Stem = "cifar", widths: Sequence[int] | None = None
) -> ResNet:
    """The ResNet-56 for CIFAR: 855,770 parameters with the defaults.

    Args and errors as for `basic_resnet`; `widths` has 55 numbers.

    Example:
        >>> slimnet.count_params(slimnet.models.resnet56())
        855770
    """
    return _of_size(BasicBlock, "resnet56", num_classes, in_channels, stem, widths)


def resnet110(
    num_classes: int = 10, in_channels: int = 3, stem: Stem = "cifar", widths: Sequence[int] | None = None
) -> ResNet:
    """The ResNet-110 for CIFAR: 1,730,714 parameters with the defaults.

    Args and errors as for `basic_resnet`; `widths` has 109 numbers.

    Example:
        >>> slimnet.count_params(slimnet.models.resnet110())
        1730714
    """
    return _of_size(BasicBlock, "resnet110", num_classes, in_channels, stem, widths)


def _of_size(
    kind: type[Block],
    name: SizeName,
    num_classes: int,
    in_channels: int,
    stem: Stem,
    widths: Sequence[int] | None,
) -> ResNet:
    _, blocks, width = SIZES[name]
    return _build(kind, blocks, width, num_classes, in_channels, stem, widths)


def _build(
    kind: type[Block],
    blocks: Sequence[int],
    width: int,
    num_classes: int,
    in_channels: int,
    stem: Stem,
    widths: Sequence[int] | None,
) -> ResNet:
    if stem not in get_args(Stem):
        raise SlimnetError(f"stem is {stem!r}; it is one of {', '.join(get_args(Stem))}")
    check_sizes(blocks, width=width, num_classes=num_classes, in_channels=in_channels)
    chosen = list(widths) if widths is not None else _default_widths(kind, blocks, width)
    _check_widths(kind, blocks, chosen)
    return ResNet(blocks, chosen, num_classes=num_classes, in_channels=in_channels, stem=stem, kind=kind)


def _default_widths(kind: type[Block], blocks: Sequence[int], width: int) -> list[int]:
    """The widths of the unpruned network: planes double per stage, a block ends `EXPANSION` times wider."""
    widths = [width]
    for stage, count in enumerate(blocks):
        planes = width * 2**stage
        widths += [*[planes] * (kind.CONVS - 1), planes * kind.EXPANSION] * count
    return widths


def _check_widths(kind: type[Block], blocks: Sequence[int], widths: Sequence[int]) -> None:
    """Refuse widths that no ResNet with these blocks can have.

    Raises:
        SlimnetError: naming the block and the numbers that disagree.
    """
    per_block = {2: "two", 3: "three"}[kind.CONVS]
    check_widths(blocks, widths, 1 + kind.CONVS * sum(blocks), f"the stem and {per_block} per block")
    incoming, last = widths[0], 0
    for stage, count in enumerate(blocks):
        for block in range(count):
            last += kind.CONVS
            outgoing = widths[last]
            if not kind.projects(stage, block) and outgoing != incoming:
                raise SlimnetError(
                    f"stage {stage + 1}, block {block + 1} adds its input of {plural(incoming, 'channel')} "
                    f"to a conv{kind.CONVS} of {outgoing} (widths[{last}]); the two must be equal"
                )
            incoming = outgoing
