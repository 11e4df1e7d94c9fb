"""The images of a study: where they are, how they are split and changed at random."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, JsonValue, model_validator

from slimnet.data.augmentation import Augmentation
from slimnet.data.catalogue import IMAGE_SIDES, PATHS, Channels, DataName, Resize, Source
from sweeps.config.base import WIDE, Section
from sweeps.config.messages import refusal, show


class Augment(Section):
    """How training images are changed at random; fields as in `slimnet.data.augmentation`."""

    crop: int = Field(0, ge=0, le=WIDE, description="pixels of padding before a random crop")
    flip: bool = Field(False, description="mirror training images at random")
    vertical_flip: bool = Field(False, description="turn training images upside down at random")
    resized_crop: float | None = Field(
        None,
        gt=0,
        le=1,
        description="cut out a random part, at least this fraction of the area, and stretch it",
    )
    jitter: float = Field(
        0.0, ge=0, le=1, description="strength of random brightness, contrast and saturation; 0.4 is usual"
    )
    randaugment: int = Field(
        0, ge=0, le=100, description="operations of RandAugment that an image goes through; 2 is usual"
    )
    cutout: float = Field(
        0.0, ge=0, le=1, description="side of a blanked square, as a fraction of the image's shorter side"
    )
    mixup: float = Field(
        0.0, ge=0, description="alpha of mixup, which blends pairs of images and their labels; 0.2 is usual"
    )

    @model_validator(mode="after")
    def _one_crop(self) -> Self:
        if self.resized_crop is not None and self.crop:
            clause = f"is {self.resized_crop:g}, but crop is {self.crop}, and both cut out; remove one."
            raise refusal((("resized_crop",), clause))
        return self

    @property
    def augmentation(self) -> Augmentation:
        """The changes as `slimnet` takes them."""
        return Augmentation(**{name: getattr(self, name) for name in Augment.model_fields})


class Data(Augment):
    """The images, the split and the augmentation."""

    name: DataName = Field(description="the data set; factory if one is given")
    path: Path | None = Field(
        None,
        strict=False,
        description="where your own data are: a folder with a folder of pictures per class, an npz file, a "
        "folder of npy files; or the folder of a factory's module, by default that of the config",
    )
    factory: str | None = Field(
        None, description="package.module:function that makes your data, instead of name"
    )
    args: dict[str, JsonValue] = Field({}, description="arguments of the factory, by name")
    image_size: int | None = Field(
        None,
        ge=1,
        le=WIDE,
        description="side in pixels: pictures are resized to it, arrays pooled by a whole factor",
    )
    channels: Channels | None = Field(
        None, description="of pictures: 3 for RGB or 1 for greys; a folder's are RGB by default"
    )
    resize: Resize | None = Field(
        None,
        description="how pictures are brought to image_size: crop (the default) cuts the middle out, stretch "
        "and pad keep all of it, pool stretches by means",
    )
    validation: float = Field(
        0.1,
        gt=0,
        le=0.5,
        description="fraction of the training images held out for selection, where the data have none",
    )
    mean: tuple[float, ...] | None = Field(
        None,
        strict=False,
        description="to normalise by, per channel in [0, 1]; else that of the training images",
    )
    std: tuple[Annotated[float, Field(gt=0)], ...] | None = Field(
        None,
        strict=False,
        description="to normalise by, per channel in [0, 1]; else that of the training images",
    )

    @property
    def source(self) -> Source:
        """The data as `slimnet.data` takes them."""
        return Source(self.name, self.path, self.factory, self.args)

    @model_validator(mode="before")
    @classmethod
    def _a_factory_needs_no_name(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("factory") is not None:
            return {"name": "factory", **values}
        return values

    @model_validator(mode="after")
    def _path_belongs_to_the_name(self) -> Self:
        if self.name in PATHS and self.path is None:
            raise refusal((("path",), f"is missing; data.name {self.name} needs {PATHS[self.name]}."))
        if self.name not in (*PATHS, "factory") and self.path is not None:
            clause = (
                f"is {show(self.path)}, but data.name {self.name} reads no file of yours "
                f"({', '.join(PATHS)} do); remove it."
            )
            raise refusal((("path",), clause))
        if self.name == "factory" and self.factory is None:
            raise refusal((("factory",), "is missing; name factory needs package.module:function."))
        if self.name != "factory" and self.factory is not None:
            clause = f"is {show(self.factory)}, but name is {self.name}; remove one."
            raise refusal((("factory",), clause))
        if self.args and self.factory is None:
            raise refusal((("args",), f"is {show(self.args)}, but there is no factory to take them."))
        return self

    @model_validator(mode="after")
    def _arrays_stay_as_they_are(self) -> Self:
        side = IMAGE_SIDES.get(self.name)
        if side and self.image_size and side % self.image_size:
            sizes = ", ".join(str(size) for size in range(2, side + 1) if side % size == 0)
            clause = f"is {self.image_size}; the {side} pixels of {self.name} can be pooled to {sizes}."
            raise refusal((("image_size",), clause))
        for field in ("channels", "resize"):
            if (side or self.name in ("npz", "npy")) and (given := getattr(self, field)) is not None:
                clause = f"is {show(given)}, but {self.name} holds arrays, not pictures; remove it."
                raise refusal(((field,), clause))
        return self
