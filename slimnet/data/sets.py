"""Data sets as arrays: the one in this package, the published ones, and the user's own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt

from slimnet.data import upstream
from slimnet.data.arrays import Arrays, read_npy_folder, read_npz
from slimnet.data.catalogue import (
    FASHION_CLASSES,
    FASHION_MINI_SHA256,
    PUBLISHED,
    Channels,
    Resize,
    Source,
    default_data_dir,
)
from slimnet.data.hashes import OnProgress, silent
from slimnet.data.upstream import Labels, Pixels
from slimnet.errors import SlimnetError
from slimnet.files import content_hash

FASHION_MINI = Path(__file__).with_name("fashion-mini.npz")


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images (N, H, W, C), uint8, and labels (N,), int64 in 0..num_classes-1, of a train and a test part.

    Attributes:
        name: of the data set.
        x_train, y_train, x_test, y_test: images and labels.
        num_classes: labels go from 0 to one below it.
        classes: their names; where none are given, the numbers.
        resize: how a picture of another size is brought to the size of these images.
        x_validation, y_validation: a part for validation, where the data set has one of its own.
        moments: (N, C, 2), int64, sum and sum of squares over the pixels of each training image, where they
            are known already.
        notes: sentences on what was decided for want of a setting, and on pictures that are left out.
    """

    name: str
    x_train: Pixels
    y_train: Labels
    x_test: Pixels
    y_test: Labels
    num_classes: int
    classes: tuple[str, ...] = ()
    resize: Resize = "pool"
    x_validation: Pixels | None = None
    y_validation: Labels | None = None
    moments: npt.NDArray[np.int64] | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.classes:
            object.__setattr__(self, "classes", tuple(map(str, range(self.num_classes))))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W), as a network sees an image."""
        _, height, width, channels = self.x_train.shape
        return channels, height, width


def load_dataset(
    source: Source | str,
    *,
    data_dir: Path | None = None,
    image_size: int | None = None,
    channels: Channels | None = None,
    resize: Resize | None = None,
    fingerprint: str | None = None,
    on_progress: OnProgress = silent,
) -> Dataset:
    """A data set.

    Args:
        source: which, and where it is; or the name of one that is published.
        data_dir: where published sets are looked for, and downloaded to, and where decoded pictures are
            kept; default `default_data_dir()`.
        image_size: side in pixels of the square images. Pictures are resized to it; without it all must have
            one size. Arrays are pooled to it by taking means; it must divide their side.
        channels: of pictures: 3 (RGB) or 1 (greys); by default 3 for a folder, and what the first picture
            has for other sets. Not for arrays.
        resize: how pictures are brought to `image_size`, by default "crop"; see `slimnet.data.pictures`. Not
            for arrays.
        fingerprint: of the data, as `slimnet.data.fingerprint` returns it, where it is known already: then
            pictures that are decoded are not looked at again.
        on_progress: told how far reading and decoding are.

    Raises:
        SlimnetError: a file that is missing, damaged or holds something else, a failed download, a factory
            that fails or returns something else, or an image size that does not fit.
    """
    if isinstance(source, str):
        source = Source(source)
    name, data_dir = source.name, data_dir or default_data_dir()
    if name == "folder" or name == "factory" or name.startswith("torchvision/"):
        from slimnet.data.sources import load_pictures

        found = load_pictures(source, data_dir, image_size, channels, resize, fingerprint, on_progress)
        if not isinstance(found, Arrays):
            return found
        dataset = _from_arrays(str(source), found)
    elif name == "fashion-mini":
        dataset = replace(_from_arrays(name, _fashion_mini()), classes=FASHION_CLASSES)
    elif name in PUBLISHED:
        train, test = upstream.load(name, data_dir)
        classes = PUBLISHED[name].classes
        dataset = Dataset(name, *train, *test, num_classes=len(classes), classes=classes)
    else:
        assert source.path is not None, "arrays have a path"
        arrays = read_npz(source.path) if name == "npz" else read_npy_folder(source.path)
        dataset = _from_arrays(str(source), arrays)
    if channels is not None or resize is not None:
        given = "channels" if channels is not None else "resize"
        raise SlimnetError(f"{given} is for pictures; {source} holds arrays, which stay as they are.")
    return dataset if image_size is None else _pooled(dataset, image_size)


def _from_arrays(name: str, arrays: Arrays) -> Dataset:
    return Dataset(
        name,
        arrays.x_train,
        arrays.y_train,
        arrays.x_test,
        arrays.y_test,
        num_classes=int(arrays.y_train.max()) + 1,
        classes=arrays.classes,
        x_validation=arrays.x_val,
        y_validation=arrays.y_val,
    )


def _fashion_mini() -> Arrays:
    if (found := content_hash(FASHION_MINI)) != FASHION_MINI_SHA256:
        raise SlimnetError(
            f"{FASHION_MINI} is not the file that shipped: sha256 {found}, expected {FASHION_MINI_SHA256}. "
            "Reinstall slimnet, or in a clone: git checkout -- slimnet/data/fashion-mini.npz"
        )
    return read_npz(FASHION_MINI)


# ------------------------------------------------------------------------------------------------- image size


def _pooled(dataset: Dataset, size: int) -> Dataset:
    _, height, width = dataset.image_shape
    if height != width:
        raise SlimnetError(
            f"image_size needs square images; {dataset.name} has {height}x{width}. Leave data.image_size or "
            "--image-size out."
        )
    if size < 1 or height % size:
        sizes = ", ".join(str(side) for side in range(1, height + 1) if height % side == 0)
        raise SlimnetError(
            f"image_size {size} does not divide the {height} pixels of {dataset.name}; give data.image_size "
            f"or --image-size one of these: {sizes}."
        )
    factor = height // size
    return replace(
        dataset,
        x_train=_pool(dataset.x_train, factor),
        x_test=_pool(dataset.x_test, factor),
        x_validation=None if dataset.x_validation is None else _pool(dataset.x_validation, factor),
    )


def _pool(x: Pixels, factor: int) -> Pixels:
    """Means over factor x factor blocks, a half rounded up: (N, H, W, C) -> (N, H/f, W/f, C)."""
    count, height, width, channels = x.shape
    total = np.zeros((count, height // factor, width // factor, channels), dtype=np.uint32)
    for row, column in product(range(factor), repeat=2):
        total += x[:, row::factor, column::factor]
    return ((total + factor**2 // 2) // factor**2).astype(np.uint8)
