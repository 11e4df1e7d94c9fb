"""The first layers that a ResNet can have, by name; without torch."""

from typing import Literal

Stem = Literal["cifar-maxpool", "cifar", "imagenet"]
