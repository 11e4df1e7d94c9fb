"""Networks built from widths, so that a pruned one is the same code with smaller numbers."""

from slimnet.models.resnet import ResNet, resnet, resnet50

__all__ = ["ResNet", "resnet", "resnet50"]
