"""How training images are changed at random; without torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from slimnet.errors import SlimnetError


@dataclass(frozen=True)
class Augmentation:
    """Changes to training images; the defaults change nothing.

    They are applied in the order of the attributes. What is cut out or lies outside has the mean colour.

    Attributes:
        randaugment: how many operations of RandAugment (Cubuk et al., 2019, arXiv 1909.13719) an image goes
            through, drawn for each image anew, at magnitude 9 of 30; 0 for none.
        jitter: strength of changes to brightness, contrast and saturation: each is multiplied by a factor
            between 1 - jitter and 1 + jitter. 0 for none, at most 1.
        resized_crop: the smallest fraction of its area that a part cut out of the image may have, with sides
            in a ratio from 3:4 to 4:3; the part is stretched to the whole size. None for whole images.
        crop: pixels of padding; an image of the old size is cut out at random.
        flip: mirror left to right with probability 1/2.
        vertical_flip: turn upside down with probability 1/2.
        cutout: side of a square that is blanked, as a fraction of the shorter side; its centre may lie
            anywhere (DeVries and Taylor, 2017, arXiv 1708.04552). 0 for none.
        mixup: α of the Beta distribution that weighs each image against another one of its batch, with their
            labels (Zhang et al., 2017, arXiv 1710.09412). 0 for none.

    Raises:
        SlimnetError: a value outside its range, or both crops.
    """

    randaugment: int = 0
    jitter: float = 0.0
    resized_crop: float | None = None
    crop: int = 0
    flip: bool = False
    vertical_flip: bool = False
    cutout: float = 0.0
    mixup: float = 0.0

    def __post_init__(self) -> None:
        if self.randaugment < 0 or self.crop < 0 or self.mixup < 0:
            raise SlimnetError("randaugment, crop and mixup are at least 0.")
        if not 0 <= self.jitter <= 1 or not 0 <= self.cutout <= 1:
            raise SlimnetError("jitter and cutout are from 0 to 1.")
        if self.resized_crop is not None and not 0 < self.resized_crop <= 1:
            raise SlimnetError("resized_crop is above 0 and at most 1.")
        if self.resized_crop is not None and self.crop:
            raise SlimnetError("crop and resized_crop both cut a part out; choose one.")

    @property
    def moves_only(self) -> bool:
        """Whether whole pixels are moved at most, by crop and flip."""
        return self == replace(NONE, crop=self.crop, flip=self.flip)

    @property
    def geometric(self) -> Self:
        """Only what keeps the colours and single images as they are: where BatchNorm is to see real ones."""
        return replace(self, randaugment=0, jitter=0.0, cutout=0.0, mixup=0.0)


NONE = Augmentation()
