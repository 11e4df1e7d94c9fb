"""What a network is trained and measured on, as options and as the record in a file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch

from slimnet.cli.options import SETS, parse_shape
from slimnet.data import NAMES, Splits, fingerprint, load_dataset, split
from slimnet.errors import SlimnetError


@dataclass(frozen=True)
class DataSettings:
    """A data set, its split and its augmentation; fields as in `slimnet.data`."""

    name: str
    path: Path | None = None
    image_size: int | None = None
    validation: float = 0.1
    crop: int = 0
    flip: bool = False
    seed: int = 0

    def named(self, source: str, image_size: int | None) -> Self:
        """The same split and augmentation of another data set: a known name, or an npz file."""
        if source in NAMES and source != "npz":
            return replace(self, name=source, path=None, image_size=image_size)
        path = Path(source).expanduser().resolve()
        if not path.is_file():
            raise SlimnetError(
                f"--data is {source}; it is one of {SETS}, or an npz file, and no such file is there"
            )
        return replace(self, name="npz", path=path, image_size=image_size)

    def load(self, data_dir: Path | None, device: torch.device) -> Splits:
        """The three parts, on `device`."""
        dataset = load_dataset(self.name, path=self.path, data_dir=data_dir, image_size=self.image_size)
        return split(dataset, validation=self.validation, seed=self.seed, device=device)

    def record(self) -> dict[str, Any]:
        """What goes into a file, in primitives; the seed is kept beside it."""
        return {
            "name": self.name,
            "path": None if self.path is None else str(self.path),
            "fingerprint": fingerprint(self.name, path=self.path),
            "image_size": self.image_size,
            "validation": self.validation,
            "crop": self.crop,
            "flip": self.flip,
        }


def recorded_data(
    file: Path, config: dict[str, Any], data: str | None, image_size: int | None
) -> DataSettings:
    """The data that `file` was made from, with what the options say instead.

    Args:
        config: of the file; a sweep keeps crop and flip with its recipe.
        data: another data set; None for the one in the file.
        image_size: another side; None for the file's, or with `data` for the data set's own.

    Raises:
        SlimnetError: neither the file nor the options name a data set, or its npz file is another one now.
    """
    record = config.get("data", {})
    moves = {**config.get("calibration", {}), **config.get("recipe", {}), **record}
    settings = DataSettings(
        name=record.get("name", ""),
        path=Path(record["path"]) if record.get("path") else None,
        image_size=record.get("image_size"),
        validation=record.get("validation", DataSettings.validation),
        crop=moves.get("crop", DataSettings.crop),
        flip=moves.get("flip", DataSettings.flip),
        seed=config.get("seed", DataSettings.seed),
    )
    if data is not None:
        return settings.named(data, image_size)
    if not settings.name or (settings.name == "npz" and settings.path is None):
        raise SlimnetError(f"{file} does not say which data set it was trained on; name it with --data")
    if record.get("fingerprint", (now := fingerprint(settings.name, path=settings.path))) != now:
        raise SlimnetError(f"{settings.path} is not what {file} was trained on; name that with --data")
    return settings if image_size is None else replace(settings, image_size=image_size)


def recorded_shape(file: Path, config: dict[str, Any], given: str | None) -> tuple[int, ...]:
    """The shape (C, H, W) of an image for the network in `file`."""
    if given is not None:
        return parse_shape(given)
    if shape := config.get("image_shape"):
        return tuple(shape)
    if not config.get("data"):
        raise SlimnetError(
            f"{file} does not say what its images are like; say so with --input-shape, as 3x32x32"
        )
    settings = recorded_data(file, config, None, None)
    return load_dataset(settings.name, path=settings.path, image_size=settings.image_size).image_shape
