"""Which networks there are: families of any size, and networks that have a name; without torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
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

SPELLINGS = ", ".join((*NAMES, *(f"{library}/NAME" for library in LIBRARIES)))
"""All ways to name a network, for messages."""


def suggestion(name: str) -> str:
    """A question on what a name that no network has may mean: a number in it is no slip of the hand."""
    digits = re.sub(r"\D", "", name)
    question = did_you_mean(name, [known for known in NAMES if re.sub(r"\D", "", known) == digits])
    if question or not re.fullmatch(r"\w+", name):
        return question
    return f"did you mean {' or '.join(f'{library}/{name}' for library in LIBRARIES)}?"


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
