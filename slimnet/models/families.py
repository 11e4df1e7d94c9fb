"""What builds the networks of each family, by the name that files and configs have for it."""

from __future__ import annotations

from collections.abc import Callable

from slimnet.models.mobile import MobileNet, mobilenet
from slimnet.models.plain import VGG, vgg
from slimnet.models.residual import ResNet, basic_resnet, resnet

FAMILIES: dict[str, Callable[..., ResNet | VGG | MobileNet]] = {
    "resnet": resnet,
    "basic-resnet": basic_resnet,
    "vgg": vgg,
    "mobilenet": mobilenet,
}
