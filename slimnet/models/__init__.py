"""Networks built from widths, so that a pruned one is the same code with smaller numbers."""

from typing import TYPE_CHECKING

from slimnet._lazy import lazy

if TYPE_CHECKING:
    from slimnet.models.mobile import MobileNet, mobilenet, mobilenet_v2
    from slimnet.models.plain import VGG, vgg, vgg16, vgg19
    from slimnet.models.residual import (
        ResNet,
        basic_resnet,
        resnet,
        resnet20,
        resnet50,
        resnet56,
        resnet110,
    )
else:
    _RESIDUAL = ("ResNet", "basic_resnet", "resnet", "resnet20", "resnet50", "resnet56", "resnet110")
    __getattr__, __dir__ = lazy(
        __name__,
        {
            **dict.fromkeys(_RESIDUAL, "slimnet.models.residual"),
            **dict.fromkeys(("MobileNet", "mobilenet", "mobilenet_v2"), "slimnet.models.mobile"),
            **dict.fromkeys(("VGG", "vgg", "vgg16", "vgg19"), "slimnet.models.plain"),
        },
    )

__all__ = [
    "VGG",
    "MobileNet",
    "ResNet",
    "basic_resnet",
    "mobilenet",
    "mobilenet_v2",
    "resnet",
    "resnet20",
    "resnet50",
    "resnet56",
    "resnet110",
    "vgg",
    "vgg16",
    "vgg19",
]
