"""The residual blocks that a ResNet is made of (He et al. 2015, arXiv 1512.03385)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from slimnet.models.catalogue import Family
from slimnet.models.stand_ins import Constant


class Block(nn.Module):
    """A residual block: convs, each with BatchNorm, added to the shortcut.

    Attributes:
        FAMILY: the networks that are made of such blocks.
        CONVS: their number, and so the number of widths of a block.
        EXPANSION: how many times wider than its other convs the last one is.
    """

    FAMILY: ClassVar[Family]
    CONVS: ClassVar[int]
    EXPANSION: ClassVar[int]

    def __init__(self, incoming: int, widths: Sequence[int], stride: int, project: bool) -> None:
        super().__init__()

    @classmethod
    def projects(cls, stage: int, block: int) -> bool:
        """Whether the shortcut of this block of this stage, both from 0, changes shape."""
        return block == 0 and (stage > 0 or cls.EXPANSION > 1)

    @property
    def widths(self) -> list[int]:
        """The channels of the convs, read off the layers; 0 inside a dropped block."""
        *inner, last = (getattr(self, f"conv{number}") for number in range(1, self.CONVS + 1))
        end = getattr(self, f"bn{self.CONVS}")
        return [layer.out_channels for layer in (*inner, end if isinstance(end, Constant) else last)]


class Bottleneck(Block):
    """1x1, 3x3 (which carries the stride), 1x1; a shortcut that changes shape is a 1x1 conv alone."""

    FAMILY, CONVS, EXPANSION = "resnet", 3, 4

    def __init__(self, incoming: int, widths: Sequence[int], stride: int, project: bool) -> None:
        super().__init__(incoming, widths, stride, project)
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


class BasicBlock(Block):
    """3x3 (which carries the stride), 3x3; a shortcut that changes shape is a 1x1 conv with BatchNorm."""

    FAMILY, CONVS, EXPANSION = "basic-resnet", 2, 1

    def __init__(self, incoming: int, widths: Sequence[int], stride: int, project: bool) -> None:
        super().__init__(incoming, widths, stride, project)
        first, second = widths
        self.conv1 = nn.Conv2d(incoming, first, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.conv2 = nn.Conv2d(first, second, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(second)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = (
            nn.Sequential(nn.Conv2d(incoming, second, 1, stride=stride, bias=False), nn.BatchNorm2d(second))
            if project
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu(out + self.shortcut(x))  # type: ignore[no-any-return]
