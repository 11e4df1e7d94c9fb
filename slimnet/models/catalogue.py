"""Which networks there are: families of any size, and networks that have a name; without torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Literal, NamedTuple

from slimnet.wording import did_you_mean

Family = Literal["resnet", "basic-resnet", "vgg", "mobilenet"]
SizeName = Literal["resnet50", "resnet20", "resnet56", "resnet110", "vgg16", "vgg19", "mobilenet-v2"]

LIBRARIES = ("torchvision", "timm")
"""Where networks come from that are named LIBRARY/NAME."""


class Size(NamedTuple):
    """A network of a family.

    Attributes:
        family: its name.
        blocks: residual blocks in each stage (inverted ones of a MobileNet), or convs of a VGG.
        width: channels of the first layer.
    """

    family: Family
    blocks: tuple[int, ...]
    width: int


WIDTHS: dict[str, int] = {"resnet": 64, "basic-resnet": 16, "vgg": 64, "mobilenet": 32}
"""The width of a family where none is given: that of the networks below."""

SIZES: dict[str, Size] = {
    "resnet50": Size("resnet", (3, 4, 6, 3), WIDTHS["resnet"]),
    "resnet20": Size("basic-resnet", (3, 3, 3), WIDTHS["basic-resnet"]),
    "resnet56": Size("basic-resnet", (9, 9, 9), WIDTHS["basic-resnet"]),
    "resnet110": Size("basic-resnet", (18, 18, 18), WIDTHS["basic-resnet"]),
    "vgg16": Size("vgg", (2, 2, 3, 3, 3), WIDTHS["vgg"]),
    "vgg19": Size("vgg", (2, 2, 4, 4, 4), WIDTHS["vgg"]),
    "mobilenet-v2": Size("mobilenet", (1, 2, 3, 4, 3, 3, 1), WIDTHS["mobilenet"]),
}
"""The networks that have a name of their own."""

WITH_STEM = ("resnet", "basic-resnet", "mobilenet")
"""The families whose first layers can be chosen."""

NAMES = (*WIDTHS, *SIZES)

TORCHVISION = """
    alexnet convnext_base convnext_large convnext_small convnext_tiny densenet121 densenet161 densenet169
    densenet201 efficientnet_b0 efficientnet_b1 efficientnet_b2 efficientnet_b3 efficientnet_b4
    efficientnet_b5 efficientnet_b6 efficientnet_b7 efficientnet_v2_l efficientnet_v2_m efficientnet_v2_s
    googlenet inception_v3 maxvit_t mnasnet0_5 mnasnet0_75 mnasnet1_0 mnasnet1_3 mobilenet_v3_large
    mobilenet_v3_small regnet_x_16gf regnet_x_1_6gf regnet_x_32gf regnet_x_3_2gf regnet_x_400mf
    regnet_x_800mf regnet_x_8gf regnet_y_128gf regnet_y_16gf regnet_y_1_6gf regnet_y_32gf regnet_y_3_2gf
    regnet_y_400mf regnet_y_800mf regnet_y_8gf resnet101 resnet152 resnet18 resnet34 resnext101_32x8d
    resnext101_64x4d resnext50_32x4d shufflenet_v2_x0_5 shufflenet_v2_x1_0 shufflenet_v2_x1_5
    shufflenet_v2_x2_0 squeezenet1_0 squeezenet1_1 swin_b swin_s swin_t swin_v2_b swin_v2_s swin_v2_t vgg11
    vgg11_bn vgg13 vgg13_bn vgg16_bn vgg19_bn vit_b_16 vit_b_32 vit_h_14 vit_l_16 vit_l_32 wide_resnet101_2
    wide_resnet50_2
"""
"""The networks of torchvision 0.26 that classify pictures and have no namesake above, for questions."""

SPELLINGS = ", ".join((*NAMES, *(f"{library}/NAME" for library in LIBRARIES)))
"""All ways to name a network, for messages."""


def is_of_library(name: str) -> bool:
    """Whether a network's name is LIBRARY/NAME; the library may not have it."""
    library, _, inner = name.partition("/")
    return library in LIBRARIES and inner != ""


def suggestion(name: str) -> str:
    """A question on what a name that no network has may mean: a number in it is no slip of the hand."""
    library, _, inner = name.partition("/")
    if inner and (near := get_close_matches(library.lower(), LIBRARIES, 1)):
        return f"did you mean {near[0]}/{inner}?"
    known = (*(f"torchvision/{its}" for its in TORCHVISION.split()), *NAMES)
    return did_you_mean(name, [known for known in known if _digits(known) == _digits(name)])


def _digits(name: str) -> str:
    return re.sub(r"\D", "", name)


def family_of(name: str) -> str:
    """The family that a network's name stands for: its own where it is no size's."""
    return SIZES[name].family if name in SIZES else name


def label_of(description: Mapping[str, Any]) -> str:
    """What a network is called: the name or factory of its description (see `slimnet.models.building`)."""
    return str(description.get("factory") or description.get("name"))


def names_weights(name: str | None, init: str) -> bool:
    """Whether `init` names published weights of the network `name`, such as DEFAULT; else it is a file."""
    library = (name or "").partition("/")[0]
    return bool(
        (library == "torchvision" and re.fullmatch(r"[A-Z][A-Z0-9_]*", init))
        or (library == "timm" and init == "pretrained")
    )
