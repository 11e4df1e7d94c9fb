"""Networks built from widths, so that a pruned one is the same code with smaller numbers."""

from typing import TYPE_CHECKING

from slimnet._lazy import lazy

if TYPE_CHECKING:
    from slimnet.models.bottleneck import ResNet, resnet, resnet50
else:
    __getattr__, __dir__ = lazy(
        __name__, dict.fromkeys(("ResNet", "resnet", "resnet50"), "slimnet.models.bottleneck")
    )

__all__ = ["ResNet", "resnet", "resnet50"]
