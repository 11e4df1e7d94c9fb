"""Data sets as arrays: the one in this package, the published ones, and the user's own npz."""

import zipfile
import zlib
from dataclasses import dataclass, replace
from io import BufferedReader
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from slimnet.data import upstream
from slimnet.data.catalogue import (
    ARRAYS,
    FASHION_CLASSES,
    FASHION_MINI_SHA256,
    PUBLISHED,
    Resize,
    check_name,
    default_data_dir,
)
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
    """

    name: str
    x_train: Pixels
    y_train: Labels
    x_test: Pixels
    y_test: Labels
    num_classes: int
    classes: tuple[str, ...] = ()
    resize: Resize = "pool"

    def __post_init__(self) -> None:
        if not self.classes:
            object.__setattr__(self, "classes", tuple(map(str, range(self.num_classes))))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W), as a network sees an image."""
        _, height, width, channels = self.x_train.shape
        return channels, height, width


def load_dataset(
    name: str, *, path: Path | None = None, data_dir: Path | None = None, image_size: int | None = None
) -> Dataset:
    """The data set called `name`.

    Args:
        name: one of `slimnet.data.NAMES`.
        path: the user's file, for "npz" and only for it: arrays x_train, y_train, x_test, y_test; images
            uint8, (N, H, W, C) or (N, H, W); labels integers 0..K-1, each of them present in y_train.
        data_dir: where published sets are looked for, and downloaded to; default `default_data_dir()`.
        image_size: side in pixels that the (square) images are pooled to by taking means; must divide theirs.

    Raises:
        SlimnetError: an unknown name, a file that is missing, damaged or holds something else, a failed
            download, or an image size that does not divide.
    """
    check_name(name, path)
    if name == "fashion-mini":
        dataset = replace(_from_arrays(name, _fashion_mini()), classes=FASHION_CLASSES)
    elif path is not None:
        dataset = _from_arrays(name, _checked_arrays(path))
    else:
        train, test = upstream.load(name, data_dir or default_data_dir())
        classes = PUBLISHED[name].classes
        dataset = Dataset(name, *train, *test, num_classes=len(classes), classes=classes)
    return dataset if image_size is None else _pooled(dataset, image_size)


def _from_arrays(name: str, arrays: dict[str, npt.NDArray[Any]]) -> Dataset:
    """From arrays known to be right: adds the channel axis where there is none."""
    x_train, x_test = (
        np.ascontiguousarray(x if x.ndim == 4 else x[..., None])
        for x in (arrays["x_train"], arrays["x_test"])
    )
    y_train, y_test = (arrays[name].astype(np.int64) for name in ("y_train", "y_test"))
    return Dataset(name, x_train, y_train, x_test, y_test, num_classes=int(y_train.max()) + 1)


# ------------------------------------------------------------------------------------------------- image size


def _pooled(dataset: Dataset, size: int) -> Dataset:
    _, height, width = dataset.image_shape
    if height != width:
        raise SlimnetError(f"image_size needs square images; {dataset.name} has {height}x{width}.")
    if size < 1 or height % size:
        sizes = ", ".join(str(side) for side in range(1, height + 1) if height % side == 0)
        raise SlimnetError(
            f"image_size {size} does not divide the {height} pixels of {dataset.name}; these do: {sizes}."
        )
    factor = height // size
    return replace(dataset, x_train=_pool(dataset.x_train, factor), x_test=_pool(dataset.x_test, factor))


def _pool(x: Pixels, factor: int) -> Pixels:
    """Means over factor x factor blocks, a half rounded up: (N, H, W, C) -> (N, H/f, W/f, C)."""
    count, height, width, channels = x.shape
    total = np.zeros((count, height // factor, width // factor, channels), dtype=np.uint32)
    for row, column in product(range(factor), repeat=2):
        total += x[:, row::factor, column::factor]
    return ((total + factor**2 // 2) // factor**2).astype(np.uint8)


# ----------------------------------------------------------------------------------------------- npz on disk


def _opened(path: Path) -> BufferedReader:
    try:
        return path.open("rb")
    except OSError as error:
        raise SlimnetError(f"{path} cannot be read: {error.strerror}.") from error


def _fashion_mini() -> dict[str, npt.NDArray[Any]]:
    if (found := content_hash(FASHION_MINI)) != FASHION_MINI_SHA256:
        raise SlimnetError(
            f"{FASHION_MINI} is not the file that shipped: sha256 {found}, expected {FASHION_MINI_SHA256}. "
            "Reinstall slimnet, or in a clone: git checkout -- slimnet/data/fashion-mini.npz"
        )
    return _read_arrays(FASHION_MINI)


def _read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The four arrays of an npz file. Never unpickles: an array of Python objects is refused."""
    with _opened(path) as file:
        try:
            npz = np.load(file, allow_pickle=False)
        except (ValueError, EOFError, zipfile.BadZipFile):
            npz = None
        if not isinstance(npz, np.lib.npyio.NpzFile):
            raise SlimnetError(
                f"{path} is not an npz file, or is cut short; numpy.savez_compressed writes one."
            )
        if missing := [name for name in ARRAYS if name not in npz.files]:
            present = ", ".join(npz.files) or "nothing"
            raise SlimnetError(f"{path} lacks {', '.join(missing)}; it holds {present}.")
        return {name: _read_array(npz, name, path) for name in ARRAYS}


def _read_array(npz: Any, name: str, path: Path) -> npt.NDArray[Any]:
    try:
        array: npt.NDArray[Any] = npz[name]
    except (OSError, ValueError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise SlimnetError(f"{path}: {name} cannot be read ({error}).") from error
    if not isinstance(array, np.ndarray):
        raise SlimnetError(f"{path}: {name} is not an array that numpy wrote.")
    return array


def _checked_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The arrays of the user's file, or SlimnetError with the first thing that is wrong with them."""
    arrays = _read_arrays(path)
    for part in ("train", "test"):
        _check_images(path, f"x_{part}", arrays[f"x_{part}"])
        _check_labels(path, f"y_{part}", arrays[f"y_{part}"], images=len(arrays[f"x_{part}"]))
    x_train, x_test = arrays["x_train"], arrays["x_test"]
    if x_train.shape[1:] != x_test.shape[1:]:
        raise SlimnetError(
            f"{path}: x_train holds images of shape {x_train.shape[1:]}, x_test of {x_test.shape[1:]}; "
            "they must be the same."
        )
    _check_classes(path, arrays["y_train"], arrays["y_test"])
    return arrays


def _check_images(path: Path, name: str, x: npt.NDArray[Any]) -> None:
    if x.dtype != np.uint8:
        raise SlimnetError(f"{path}: {name} is {x.dtype}, and must be uint8 (0 to 255).")
    if x.ndim not in (3, 4):
        raise SlimnetError(
            f"{path}: {name} has shape {x.shape}, and must be (images, height, width, channels) "
            "or (images, height, width)."
        )
    if x.size == 0:
        raise SlimnetError(f"{path}: {name} has shape {x.shape}, and so holds no pixel.")
    if x.ndim == 4 and x.shape[1] in (1, 3) and x.shape[3] > 4:
        raise SlimnetError(
            f"{path}: {name} has shape {x.shape}, which looks like (images, channels, height, width); "
            f"the channels go last: {name}.transpose(0, 2, 3, 1)."
        )


def _check_labels(path: Path, name: str, y: npt.NDArray[Any], *, images: int) -> None:
    if not np.issubdtype(y.dtype, np.integer):
        raise SlimnetError(f"{path}: {name} is {y.dtype}, and must hold integers.")
    if y.shape != (images,):
        raise SlimnetError(f"{path}: {name} has shape {y.shape}, and must be ({images},): a label per image.")
    if y.min() < 0:
        raise SlimnetError(f"{path}: {name} holds the label {y.min()}; labels count from 0.")


def _check_classes(path: Path, y_train: npt.NDArray[Any], y_test: npt.NDArray[Any]) -> None:
    classes = np.unique(y_train)
    gaps = np.flatnonzero(classes != np.arange(len(classes)))
    if len(gaps):
        raise SlimnetError(
            f"{path}: y_train goes up to {classes[-1]} but never is {gaps[0]}; "
            "every class from 0 up needs an image to learn from."
        )
    if y_test.max() > classes[-1]:
        raise SlimnetError(
            f"{path}: y_test holds the label {y_test.max()}, but y_train only goes up to {classes[-1]}."
        )
