"""What a name that no network has may mean."""

from __future__ import annotations

import pytest
from torchvision import models

from slimnet.models.catalogue import TORCHVISION, suggestion


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("ResNet-50", "resnet50"),
        ("VGG16", "vgg16"),
        ("mobilenet_v2", "mobilenet-v2"),
        ("resnet_56", "resnet56"),
        ("resnet18", "torchvision/resnet18"),
        ("vgg16-bn", "torchvision/vgg16_bn"),
        ("convnext-tiny", "torchvision/convnext_tiny"),
        ("torchvison/resnet18", "torchvision/resnet18"),
        ("TIMM/repvgg_a0", "timm/repvgg_a0"),
        ("slimnet/resnet56", "resnet56"),
        *((name, None) for name in ("x", "torchvision", "timm/", "Torchvision/", "resnet57", "x/y", "")),
    ],
)
def test_a_wrong_name_may_mean_a_network_that_there_is(name: str, meant: str | None) -> None:
    assert suggestion(name) == (f"did you mean {meant}?" if meant else "")


def test_the_names_of_torchvision_are_there() -> None:
    assert set(TORCHVISION.split()) <= set(models.list_models(module=models))
