"""VGGs with BatchNorm (Simonyan and Zisserman 2014, arXiv 1409.1556) whose every width is a number in a list.

As in Network Slimming (Liu et al. 2017, arXiv 1708.06519), on CIFAR: convs without bias, a max-pool between
stages, a global average and one linear layer.

| network | parameters | MACs at 32x32 |
|---------|------------|---------------|
| VGG-16  | 14,724,042 |   313,201,664 |
| VGG-19  | 20,035,018 |   398,136,320 |
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from slimnet.models.catalogue import SIZES, WIDTHS
from slimnet.models.common import check_sizes, check_widths, draw_weights, initialize

WIDEST = 8  # times the first width, where VGGs stop doubling it


class VGG(nn.Module):
    """A VGG; see `vgg` for the arguments.

    Example:
        >>> model = slimnet.models.vgg([1, 2], width=8)
        >>> type(model).__name__, model.widths
        ('VGG', [8, 16, 16])
    """

    def __init__(
        self, blocks: Sequence[int], widths: Sequence[int], *, num_classes: int, in_channels: int
    ) -> None:
        super().__init__()
        self.blocks = tuple(blocks)
        starts = set(accumulate(blocks))  # of all stages but the first
        layers: list[nn.Module] = []
        incoming = in_channels
        for position, width in enumerate(widths):
            if position in starts:
                layers.append(nn.MaxPool2d(2, ceil_mode=True))  # a map of one pixel stays one
            layers += [
                nn.Conv2d(incoming, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            ]
            incoming = width
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(incoming, num_classes)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.avgpool(self.features(x))
        return self.fc(torch.flatten(x, 1))  # type: ignore[no-any-return]

    def reset_parameters(self) -> None:
        """Draw all weights anew, at the widths that the layers have."""
        draw_weights(self)

    @property
    def widths(self) -> list[int]:
        """The width of each conv, read off the layers: they stay true through pruning."""
        return [conv.out_channels for conv in self._convs]

    @property
    def architecture(self) -> dict[str, Any]:
        """What `slimnet.load` needs to build this network again: primitives only."""
        return {
            "name": "vgg",
            "blocks": list(self.blocks),
            "widths": self.widths,
            "num_classes": self.fc.out_features,
            "in_channels": self._convs[0].in_channels,
        }

    @property
    def _convs(self) -> list[nn.Conv2d]:
        return [layer for layer in self.features if isinstance(layer, nn.Conv2d)]


def vgg(
    blocks: Sequence[int],
    width: int = WIDTHS["vgg"],
    *,
    num_classes: int = 10,
    in_channels: int = 3,
    widths: Sequence[int] | None = None,
) -> VGG:
    """Any VGG with BatchNorm.

    Args:
        blocks: convs per stage; each stage after the first halves the map, rounding up, so that images of any
            size pass.
        width: channels of the first stage; each stage has twice those of the one before, at most 8 times
            `width`. Ignored where `widths` is given.
        num_classes: outputs of the linear layer.
        in_channels: channels of the image.
        widths: sum(blocks) numbers, one for each conv.

    Raises:
        SlimnetError: for widths that are not as many, or below 1, naming the number.

    Example:
        >>> slimnet.models.vgg([1, 1, 2], width=8).widths
        [8, 16, 32, 32]
        >>> slimnet.models.vgg([1, 1, 2], widths=[8, 3, 5, 7]).widths
        [8, 3, 5, 7]
    """
    check_sizes(blocks, width=width, num_classes=num_classes, in_channels=in_channels)
    chosen = (
        list(widths)
        if widths is not None
        else [width * min(2**stage, WIDEST) for stage, count in enumerate(blocks) for _ in range(count)]
    )
    check_widths(blocks, chosen, sum(blocks), "one per conv")
    return VGG(blocks, chosen, num_classes=num_classes, in_channels=in_channels)


def vgg16(num_classes: int = 10, in_channels: int = 3, widths: Sequence[int] | None = None) -> VGG:
    """VGG-16 for CIFAR: 14,724,042 parameters with the defaults.

    Args and errors as for `vgg`; `widths` has 13 numbers.

    Example:
        >>> slimnet.count_params(slimnet.models.vgg16())
        14724042
    """
    _, blocks, width = SIZES["vgg16"]
    return vgg(blocks, width, num_classes=num_classes, in_channels=in_channels, widths=widths)


def vgg19(num_classes: int = 10, in_channels: int = 3, widths: Sequence[int] | None = None) -> VGG:
    """VGG-19 for CIFAR: 20,035,018 parameters with the defaults.

    Args and errors as for `vgg`; `widths` has 16 numbers.

    Example:
        >>> slimnet.count_params(slimnet.models.vgg19())
        20035018
    """
    _, blocks, width = SIZES["vgg19"]
    return vgg(blocks, width, num_classes=num_classes, in_channels=in_channels, widths=widths)
