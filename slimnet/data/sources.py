"""Pictures from a folder, from torchvision and from functions of one's own, decoded into the cache."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from slimnet.data import catalogue
from slimnet.data.arrays import Arrays, checked, listed_classes
from slimnet.data.cache import Cached, Opened, Pictures, Request, decoded, find
from slimnet.data.catalogue import ALL_ARRAYS, ARRAYS, TORCHVISION, Channels, Resize, Source
from slimnet.data.folder import folder_request
from slimnet.data.hashes import OnProgress
from slimnet.data.pictures import MODES, Pixels, Size, Unreadable, as_pixels
from slimnet.data.sets import Dataset
from slimnet.errors import SlimnetError
from slimnet.wording import first_line

PART_NAMES = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}
"""What a factory may call a part."""

GREYS = ("1", "L", "I", "I;16")
"""Pillow's modes of pictures without colours."""

RETURNS = (
    "a dict of arrays (x_train, y_train, x_test, y_test), or of data sets (train, test and, if there is one, "
    "validation) that give pairs of a picture and the number of its class"
)


def load_pictures(
    source: Source,
    data_dir: Path,
    image_size: int | None,
    channels: Channels | None,
    resize: Resize | None,
    fingerprint: str | None,
    on_progress: OnProgress,
) -> Dataset | Arrays:
    """The data set of a folder, of torchvision or of a factory, which may give arrays as well.

    Args, Raises: as `slimnet.data.load_dataset`.
    """
    recorded = fingerprint is not None
    fingerprint = fingerprint or catalogue.fingerprint(source, on_progress)
    way: Resize = resize or "crop"
    if source.factory is None and source.path is not None:
        request = folder_request(source.path, fingerprint, recorded, image_size, channels, way, on_progress)
        return _dataset(str(source), decoded(request, data_dir, on_progress), way)
    content = {"fingerprint": fingerprint, "size": image_size, "channels": channels, "resize": way}
    size = (image_size, image_size) if image_size else None
    made: Any = None

    def opened() -> Opened:
        own = source.factory is not None
        parts = _own_parts(str(source), made) if own else _torchvision(source.name, data_dir)
        return _opened(str(source), parts, size, channels, way)

    # Code of one's own may not expect several threads.
    request = Request(_file_name(str(source)), content, opened, threads=1 if source.factory else None)
    if source.factory and find(request, data_dir) is None:
        made = _call(source)
        if isinstance(made, Mapping) and any(name in ARRAYS for name in made):
            return _own_arrays(str(source), made)
    return _dataset(str(source), decoded(request, data_dir, on_progress), way)


def _file_name(name: str) -> str:
    return name.replace("/", "-").replace(":", "-")


def _dataset(name: str, cached: Cached, resize: Resize) -> Dataset:
    train, test, validation = (cached.parts.get(part) for part in ("train", "test", "validation"))
    assert train is not None, "every request has these parts"
    assert test is not None, "every request has these parts"
    return Dataset(
        name,
        train.x,
        train.y,
        test.x,
        test.y,
        num_classes=len(cached.classes),
        classes=cached.classes,
        resize=resize,
        x_validation=None if validation is None else validation.x,
        y_validation=None if validation is None else validation.y,
        moments=train.moments,
        notes=cached.notes,
    )


# ------------------------------------------------------------------------------------------------ torchvision


def _torchvision(name: str, data_dir: Path) -> dict[str, Any]:
    """The parts of a set of torchvision, downloaded if they are not there."""
    import inspect

    try:
        from torchvision import datasets
    except ImportError as error:
        raise SlimnetError(f"{name} needs torchvision, which cannot be imported: {error}.") from error
    kind = getattr(datasets, name.partition("/")[2])
    takes = inspect.signature(kind).parameters
    more = {"download": True} if "download" in takes else {}
    parts = {}
    try:
        for part, argument in TORCHVISION[name].items():
            parts[part] = kind(str(data_dir), **argument, **more)
    except Exception as error:  # torchvision raises what its downloads and decoders raise
        where = f"https://docs.pytorch.org/vision/stable/generated/torchvision.datasets.{kind.__name__}.html"
        reason = first_line(error)
        raise SlimnetError(
            f"{name} is not in {data_dir} and cannot be fetched: {reason.strip('.')}. Fetch it where there "
            f"is a network, or put its files there as torchvision keeps them: {where}"
        ) from error
    return parts


# -------------------------------------------------------------------------------------------------- factories


def _call(source: Source) -> Any:
    from slimnet.models.factory import call, import_factory

    assert source.factory is not None, "it has none where it is not called"
    factory = import_factory(source.factory, source.path)
    with redirect_stdout(sys.stderr):  # as stdout may be for JSON
        return call(
            source.factory, factory, source.args, "in data.args of a config or with --data-arg NAME=VALUE"
        )


def _own_arrays(name: str, made: Mapping[str, Any]) -> Arrays:
    if unknown := [key for key in made if key not in ALL_ARRAYS]:
        raise SlimnetError(f"{name} gives {unknown[0]}; beside arrays it may give {', '.join(ALL_ARRAYS)}.")
    return checked(
        name, {key: value if key == "classes" else _as_array(value) for key, value in made.items()}
    )


def _as_array(value: Any) -> Any:
    """A tensor as an array; everything else as it is."""
    return value.numpy(force=True) if hasattr(value, "numpy") else value


def _own_parts(name: str, made: Any) -> dict[str, Any]:
    """The parts in what a factory gave, and its classes under that name if it gives them."""
    if isinstance(made, tuple) and len(made) == 2:
        made = {"train": made[0], "test": made[1]}
    if not isinstance(made, Mapping) or not {"train", "test"} <= made.keys():
        raise SlimnetError(f"{name} gives {_describe(made)}; it should give {RETURNS}.")
    if unknown := [key for key in made if key not in (*PART_NAMES, "classes")]:
        raise SlimnetError(f"{name} gives a part {unknown[0]!r}; parts are called {', '.join(PART_NAMES)}.")
    parts = {PART_NAMES[key]: part for key, part in made.items() if key != "classes"}
    for key, part in parts.items():
        if not (hasattr(part, "__len__") and hasattr(part, "__getitem__")) or isinstance(part, str | Mapping):
            raise SlimnetError(
                f"{name}: {key} is {_describe(part)}; it should have a length and give a pair for each "
                "number, as a torch.utils.data.Dataset does."
            )
        if len(part) == 0:
            raise SlimnetError(f"{name}: {key} is empty.")
    return {**parts, **({"classes": made["classes"]} if "classes" in made else {})}


def _describe(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"a dict of {', '.join(map(str, value)) or 'nothing'}"
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    return "nothing" if value is None else f"a {type(value).__name__}"


# ---------------------------------------------------------------------------------------- map-style data sets


def _opened(
    name: str, parts: Mapping[str, Any], size: Size | None, channels: Channels | None, resize: Resize
) -> Opened:
    """Data sets that give a picture and its class for each number."""
    sets = {part: parts[part] for part in ("train", "validation", "test") if part in parts}
    first, _ = _item(name, "train", sets["train"], 0)
    width, height = first.size
    guessed = channels is None
    channels = channels or (1 if first.mode in GREYS else 3)
    shape = (*(size or (height, width)), channels)
    given = parts.get("classes", getattr(sets["train"], "classes", None))
    classes = tuple(map(_class_name, listed_classes(name, given))) if given is not None else None

    def reader(part: str) -> Callable[[int], tuple[Pixels, int]]:
        def read(number: int) -> tuple[Pixels, int]:
            image, label = _item(name, part, sets[part], number)
            if size is None and image.size != first.size:
                raise SlimnetError(
                    f"the pictures of {name} differ in size: {first.width}x{first.height} at first, "
                    f"{image.width}x{image.height} in {part} {number}; say to which side they are resized: "
                    "data.image_size or --image-size, such as 64."
                )
            if guessed and shape[2] == 1 and image.mode not in (*GREYS, "LA", "F"):
                raise SlimnetError(
                    f"the pictures of {name} differ: the first is grey, {part} {number} has colours; say "
                    "which to take: data.channels or --channels, 3 for RGB or 1 for greys."
                )
            try:
                return as_pixels(image, shape[:2], shape[2], resize), label
            except Exception as error:  # Pillow decodes only now
                raise _unreadable(_where(name, part, number), error) from error

        return read

    return Opened(shape, classes, {part: Pictures(len(sets[part]), reader(part)) for part in sets})


def _item(name: str, part: str, data: Any, number: int) -> tuple[Image.Image, int]:
    """A picture and the number of its class.

    Raises:
        Unreadable: the data set fails to give it.
        SlimnetError: it gives something else.
    """
    where = _where(name, part, number)
    try:
        item = data[number]
    except Exception as error:  # the user's code and its decoders may raise anything
        raise _unreadable(where, error) from error
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise SlimnetError(f"{where} is {_describe(item)}; it should be a pair of a picture and a class.")
    image, label = item
    try:
        label = int(_as_array(label)) if not isinstance(label, float | str) else None
    except (TypeError, ValueError):
        label = None
    if label is None or label < 0:
        raise SlimnetError(f"{where} has the label {item[1]!r}; it should be the number of a class.")
    return _as_image(where, image), label


def _where(name: str, part: str, number: int) -> str:
    return f"{name}: item {number} of {part}"


def _unreadable(where: str, error: Exception) -> Unreadable:
    return Unreadable(f"{where} cannot be read: {type(error).__name__}: {error}")


def _as_image(where: str, image: Any) -> Image.Image:
    if isinstance(image, Image.Image):
        return image
    pixels = _as_array(image)
    if isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8:
        if not isinstance(image, np.ndarray) and pixels.ndim == 3:
            pixels = pixels.transpose(1, 2, 0)  # tensors have the channels first
        if pixels.ndim == 3 and pixels.shape[2] == 1:
            pixels = pixels[..., 0]
        if pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in MODES):
            return Image.fromarray(np.ascontiguousarray(pixels))
    kind = type(image).__name__
    if hasattr(pixels, "dtype"):
        kind += f" of {pixels.dtype}, {tuple(pixels.shape)}"
    raise SlimnetError(
        f"{where} is a {kind}; a picture is a PIL image, a uint8 array (H, W, C) or a uint8 tensor (C, H, "
        "W): leave out ToTensor and Normalize, which slimnet does by itself."
    )


def _class_name(given: Any) -> str:
    """A class is called by a word, or by several that mean the same, as in ImageNet."""
    return ", ".join(map(str, given)) if isinstance(given, tuple | list) else str(given)
