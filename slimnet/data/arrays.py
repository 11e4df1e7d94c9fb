"""Arrays of one's own: in an npz file, in a folder of npy files, or made by a function; read and checked."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from slimnet.data.catalogue import ALL_ARRAYS, ARRAYS
from slimnet.data.upstream import Labels, Pixels
from slimnet.errors import SlimnetError
from slimnet.files import open_file
from slimnet.wording import plural

Array = npt.NDArray[Any]
UNREADABLE = (
    *(OSError, ValueError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error),
    MemoryError,  # of a file that claims to hold more than there is room for
)


@dataclass(frozen=True, eq=False)
class Arrays:
    """Images (N, H, W, C), uint8, and labels (N,), int64, known to be right.

    Attributes:
        x_train, y_train, x_test, y_test: the parts that must be there.
        x_val, y_val: a part for validation, which need not.
        classes: their names; empty where none are given.
    """

    x_train: Pixels
    y_train: Labels
    x_test: Pixels
    y_test: Labels
    x_val: Pixels | None
    y_val: Labels | None
    classes: tuple[str, ...]


def read_npz(path: Path) -> Arrays:
    """The arrays of a file. Never unpickles: an array of Python objects is refused.

    Raises:
        SlimnetError: it cannot be read, or with the first thing that is wrong with its arrays.
    """
    with open_file(path) as file:
        try:
            npz = np.load(file, allow_pickle=False)
        except (ValueError, EOFError, zipfile.BadZipFile):
            npz = None
        if not isinstance(npz, np.lib.npyio.NpzFile):
            raise SlimnetError(
                f"{path} is not an npz file, or is cut short; numpy.savez_compressed writes one."
            )
        _check_names(str(path), npz.files)
        return checked(str(path), {name: _read_array(npz, name, path) for name in ALL_ARRAYS if name in npz})


def read_npy_folder(path: Path) -> Arrays:
    """The arrays of a folder of files that are called as in an npz file; images are mapped into memory.

    Raises:
        SlimnetError: as `read_npz`.
    """
    if not path.is_dir():
        raise SlimnetError(f"{path} is not a folder; npy needs one that holds {', '.join(ARRAYS)}.")
    _check_names(str(path), [file.stem for file in sorted(path.glob("*.npy"))])
    arrays = {}
    for name in ALL_ARRAYS:
        if (file := path / f"{name}.npy").is_file():
            try:
                arrays[name] = np.load(file, mmap_mode="c" if name.startswith("x_") else None)
            except UNREADABLE as error:
                raise SlimnetError(f"{file} cannot be read ({error}); numpy.save writes one.") from error
    return checked(str(path), arrays)


def checked(source: str, arrays: Mapping[str, Any]) -> Arrays:
    """Arrays that are known to be right, from any.

    Args:
        source: what a message calls them.
        arrays: by the names in `ALL_ARRAYS`; images may lack the axis of channels.

    Raises:
        SlimnetError: with the first thing that is wrong with them.
    """
    _check_names(source, list(arrays))
    parts = ["train", "test", *(["val"] if "x_val" in arrays or "y_val" in arrays else [])]
    for part in parts:
        for name in (f"x_{part}", f"y_{part}"):
            if not isinstance(arrays.get(name), np.ndarray):
                found = type(arrays[name]).__name__ if name in arrays else "missing"
                raise SlimnetError(f"{source}: {name} is {found}, and must be a numpy array.")
        _check_images(source, f"x_{part}", arrays[f"x_{part}"])
        _check_labels(source, f"y_{part}", arrays[f"y_{part}"], images=len(arrays[f"x_{part}"]))
    x_train = arrays["x_train"]
    for part in parts[1:]:
        if x_train.shape[1:] != (other := arrays[f"x_{part}"]).shape[1:]:
            raise SlimnetError(
                f"{source}: x_train holds images of shape {x_train.shape[1:]}, x_{part} of "
                f"{other.shape[1:]}; they must be the same."
            )
    for part in parts[1:]:
        _check_classes(source, arrays["y_train"], f"y_{part}", arrays[f"y_{part}"])
    classes = _class_names(source, arrays.get("classes"), int(arrays["y_train"].max()) + 1)
    x, y = ({part: arrays[f"{axis}_{part}"] for part in parts} for axis in "xy")
    x = {part: _with_channels(array) for part, array in x.items()}
    y = {part: array.astype(np.int64) for part, array in y.items()}
    return Arrays(x["train"], y["train"], x["test"], y["test"], x.get("val"), y.get("val"), classes)


def _with_channels(x: Pixels) -> Pixels:
    return np.ascontiguousarray(x) if x.ndim == 4 else np.ascontiguousarray(x)[..., None]


def _read_array(npz: Any, name: str, path: Path) -> Array:
    try:
        array: Array = npz[name]
    except UNREADABLE as error:
        raise SlimnetError(f"{path}: {name} cannot be read ({error}).") from error
    if not isinstance(array, np.ndarray):
        raise SlimnetError(f"{path}: {name} is not an array that numpy wrote.")
    return array


def _check_names(source: str, names: list[str]) -> None:
    if missing := [name for name in ARRAYS if name not in names]:
        raise SlimnetError(f"{source} lacks {', '.join(missing)}; it holds {', '.join(names) or 'nothing'}.")


def _check_images(source: str, name: str, x: Array) -> None:
    if x.dtype != np.uint8:
        raise SlimnetError(f"{source}: {name} is {x.dtype}, and must be uint8 (0 to 255).")
    if x.ndim not in (3, 4):
        raise SlimnetError(
            f"{source}: {name} has shape {x.shape}, and must be (images, height, width, channels) "
            "or (images, height, width)."
        )
    if x.size == 0:
        raise SlimnetError(f"{source}: {name} has shape {x.shape}, and so holds no pixel.")
    if x.ndim == 4 and x.shape[1] in (1, 3) and x.shape[3] > 4:
        raise SlimnetError(
            f"{source}: {name} has shape {x.shape}, which looks like (images, channels, height, width); "
            f"the channels go last: {name}.transpose(0, 2, 3, 1)."
        )


def _check_labels(source: str, name: str, y: Array, *, images: int) -> None:
    if not np.issubdtype(y.dtype, np.integer):
        raise SlimnetError(f"{source}: {name} is {y.dtype}, and must hold integers.")
    if y.shape != (images,):
        raise SlimnetError(
            f"{source}: {name} has shape {y.shape}, and must be ({images},): a label per image."
        )
    if y.min() < 0:
        raise SlimnetError(f"{source}: {name} holds the label {y.min()}; labels count from 0.")


def _check_classes(source: str, y_train: Array, name: str, y: Array) -> None:
    classes = np.unique(y_train)
    gaps = np.flatnonzero(classes != np.arange(len(classes)))
    if len(gaps):
        raise SlimnetError(
            f"{source}: y_train goes up to {classes[-1]} but never is {gaps[0]}; "
            "every class from 0 up needs an image to learn from."
        )
    if len(classes) == 1:
        raise SlimnetError(f"{source}: y_train holds a single class; telling classes apart takes two.")
    if y.max() > classes[-1]:
        raise SlimnetError(
            f"{source}: {name} holds the label {y.max()}, but y_train only goes up to {classes[-1]}."
        )


def listed_classes(source: str, given: Any) -> tuple[Any, ...]:
    """The classes that someone gives, one by one.

    Raises:
        SlimnetError: it is no list, such as their number.
    """
    if isinstance(given, list | tuple) or (isinstance(given, np.ndarray) and given.ndim == 1):
        return tuple(given)
    raise SlimnetError(
        f"{source}: classes is a {type(given).__name__}; it should be a list, a tuple or a 1-d "
        "array of names."
    )


def _class_names(source: str, given: Any, count: int) -> tuple[str, ...]:
    if given is None:
        return ()
    names = tuple(map(str, listed_classes(source, given)))
    if len(names) != count or len(set(names)) != count:
        raise SlimnetError(
            f"{source}: classes names {plural(len(set(names)), 'class')}, but y_train has {count} "
            f"(0 to {count - 1})."
        )
    return names
