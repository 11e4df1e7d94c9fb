"""What a network is trained and measured on, as options and as the record in a file."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from slimnet.cli.options import SETS, parse_shape
from slimnet.data import NAMES, Augmentation, Source, Splits, fingerprint, load_dataset, split
from slimnet.data.augmentation import NONE
from slimnet.data.catalogue import ARRAYS, PATHS, Channels, Resize
from slimnet.data.sets import Dataset
from slimnet.errors import SlimnetError
from slimnet.files import user_path
from slimnet.preprocessing import preprocessing_of
from slimnet.progress import ProgressLine
from slimnet.wording import after_question, did_you_mean


@dataclass(frozen=True)
class DataSettings:
    """A data set, its split and its augmentation; fields as in `slimnet.data`."""

    name: str
    path: Path | None = None
    factory: str | None = None
    args: dict[str, Any] = field(default_factory=dict)
    image_size: int | None = None
    channels: Channels | None = None
    resize: Resize | None = None
    validation: float = 0.1
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    augmentation: Augmentation = NONE
    seed: int = 0

    @property
    def source(self) -> Source:
        """Which data, and where they are."""
        return Source(self.name, self.path, self.factory, self.args)

    def named(self, text: str, image_size: int | None) -> Self:
        """The same split and augmentation of another data set, at its own size and in its own colours.

        Of the same factory, its arguments, size and colours stay, which its name does not tell.

        Args:
            text: the name of a set, an npz file, a folder of npy files or of pictures, or module:function.
            image_size: another side.
        """
        other = replace(
            self, path=None, factory=None, args={}, channels=None, resize=None, mean=None, std=None
        )
        other = replace(other, image_size=image_size)
        path = user_path(text)
        if text in NAMES and text not in (*PATHS, "factory"):
            return replace(other, name=text)
        if path.is_dir():
            arrays = any((path / f"{name}.npy").exists() for name in ARRAYS)
            return replace(other, name="npy" if arrays else "folder", path=path)
        if path.is_file():
            return replace(other, name="npz", path=path)
        if text.startswith("torchvision/"):
            return replace(other, name=text)  # which `Source` refuses, saying why
        if ":" in text:
            if text == self.factory:
                other = self if image_size is None else replace(self, image_size=image_size)
            return replace(other, name="factory", factory=text, path=Path.cwd())
        takes = (
            f"it is one of {SETS}, torchvision/NAME, an npz file, a folder of pictures or of npy files, or "
            "module:function"
        )
        raise SlimnetError(
            f"--data is {text}, and no such file or folder is there; "
            f"{after_question(did_you_mean(text, NAMES), takes)}"
        )

    def augmented(self, **changes: Any) -> Self:
        """The same data with other augmentation, where that is not None."""
        given = {name: value for name, value in changes.items() if value is not None}
        if given.get("resized_crop") == 0:  # how an option says None
            given["resized_crop"] = None
        return replace(self, augmentation=replace(self.augmentation, **given))

    def dataset(self, data_dir: Path | None) -> Dataset:
        """The images, before they are split; what was decided of them is told."""
        found = load_dataset(
            self.source,
            data_dir=data_dir,
            image_size=self.image_size,
            channels=self.channels,
            resize=self.resize,
            on_progress=ProgressLine(),
        )
        for note in found.notes:
            print(f"note: {note}", file=sys.stderr)
        return found

    def load(self, data_dir: Path | None, device: torch.device) -> Splits:
        """The three parts, on `device`."""
        return split(
            self.dataset(data_dir),
            validation=self.validation,
            seed=self.seed,
            device=device,
            mean=self.mean,
            std=self.std,
        )

    def record(self) -> dict[str, Any]:
        """What goes into a file, in primitives; the seed is kept beside it."""
        record = {
            **asdict(self),
            **asdict(self.augmentation),
            "fingerprint": fingerprint(self.source, ProgressLine()),
        }
        del record["seed"], record["augmentation"]
        return {**record, "path": None if self.path is None else str(self.path)}


def recorded_data(
    file: Path, config: dict[str, Any], data: str | None, image_size: int | None
) -> DataSettings:
    """The data that `file` was made from, with what the options say instead.

    Code that the file names is run only if `data` names it too.

    Args:
        config: of the file; one of an earlier version keeps the augmentation with its recipe.
        data: another data set; None for the one in the file.
        image_size: another side; None for the file's, or with another data set for its own.

    Raises:
        SlimnetError: neither the file nor the options name a data set, or its files are others now.
    """
    record = config.get("data", {})
    changes = {**config.get("calibration", {}), **config.get("recipe", {}), **record}
    known = {key.name: record[key.name] for key in fields(DataSettings) if key.name in record}
    known |= {key: tuple(known[key]) for key in ("mean", "std") if known.get(key) is not None}
    path = record.get("path")
    settings = DataSettings(
        **{
            **known,
            "name": record.get("name", ""),
            "path": Path(path) if path else None,
            "augmentation": Augmentation(
                **{k.name: changes[k.name] for k in fields(NONE) if k.name in changes}
            ),
            "seed": config.get("seed", DataSettings.seed),
        }
    )
    if data is not None:
        other = settings.named(data, image_size)
        if fingerprint(other.source, ProgressLine()) != record.get("fingerprint"):
            return other
        # The same data, whose place a sweep does not keep; a file may claim that of others than it names.
        settings = replace(settings, name=other.name, path=other.path, factory=other.factory, args=other.args)
        return settings if image_size is None else replace(settings, image_size=image_size)
    if factory := settings.factory:
        raise SlimnetError(f"{file} was trained on data made by {factory}; name it with --data {factory}")
    if "fingerprint" not in record or (settings.name in PATHS and settings.path is None):
        raise SlimnetError(f"{file} does not say which data set it was trained on; name it with --data")
    if record["fingerprint"] != fingerprint(settings.source):
        raise SlimnetError(f"{settings.source} is not what {file} was trained on; name that with --data")
    return settings if image_size is None else replace(settings, image_size=image_size)


def recorded_shape(
    file: Path, network: nn.Module, config: dict[str, Any], given: str | None
) -> tuple[int, ...]:
    """The shape (C, H, W) of an image for the network in `file`, whose data may be elsewhere by now."""
    if given is not None:
        return parse_shape(given)
    if known := preprocessing_of(network):
        return known.image_shape
    if shape := config.get("image_shape"):
        return tuple(shape)
    if not (data := config.get("data")) or data.get("factory"):
        raise SlimnetError(
            f"{file} does not say what its images are like; say so with --input-shape, as 3x32x32"
        )
    return recorded_data(file, config, None, None).dataset(None).image_shape
