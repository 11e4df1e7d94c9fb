"""A small network of one's own: branches that are concatenated, and a gate."""

import torch
from torch import Tensor, nn


def conv(before: int, after: int, size: int, stride: int = 1) -> nn.Sequential:
    """A convolution with BatchNorm, whose scaling factors sparse training acts on."""
    layer = nn.Conv2d(before, after, size, stride, padding=size // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(after), nn.ReLU())


class Small(nn.Module):
    """Two branches side by side, a gate over their channels, and a classifier."""

    def __init__(self, num_classes: int, in_channels: int, width: int) -> None:
        super().__init__()
        self.stem = conv(in_channels, width, 3, stride=2)
        self.fine = conv(width, width, 3)
        self.coarse = conv(width, width, 5)
        self.gate = nn.Conv2d(2 * width, 2 * width, 1)
        self.last = conv(2 * width, 4 * width, 3, stride=2)
        self.head = nn.Linear(4 * width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Scores (N, classes) of images (N, C, H, W)."""
        x = self.stem(images)
        x = torch.cat([self.fine(x), self.coarse(x)], dim=1)
        x = x * self.gate(x.mean((2, 3), keepdim=True)).sigmoid()
        scores: Tensor = self.head(self.last(x).mean((2, 3)))
        return scores


def small(num_classes: int, in_channels: int, width: int = 16) -> nn.Module:
    """What config.yaml names as net:small; the classes and channels are those of the data."""
    return Small(num_classes, in_channels, width)
