"""Pictures decoded once: arrays of one size in a folder of the data folder, found again by their content.

    <data folder>/pictures/<name>-<key>/
        facts.json                  format, size, classes, what could not be read
        <part>.pixels               uint8, (N, H, W, C), mapped into memory by whoever trains
        <part>.labels.npy           int64, (N,)
        <part>.moments.npy          int64, (N, C, 2): sum and sum of squares of each image's pixels

The folder is written aside and renamed, so it is whole or not there. A process that finds another one writing
it waits. To make room, delete folders in <data folder>/pictures; they are made again when they are needed.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from slimnet.data.hashes import OnProgress
from slimnet.data.pictures import Pixels, Unreadable
from slimnet.errors import SlimnetError
from slimnet.files import replacing
from slimnet.wording import file_size, plural

FORMAT = 1
"""Incremented when the same pictures would give other pixels."""

MOST_UNREADABLE = 0.05
"""Fraction of the pictures of a part up to which those that cannot be read are left out."""

DARK = 20  # root mean square of the pixels of a picture, below which nearly nothing of it is seen
LONGEST_NAME = 100  # bytes of a data set's name in that of its folder
NAMED = 5  # unreadable pictures that a message names
CHUNK = 32  # pictures that a thread takes at a time

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Part:
    """One part of a data set in memory-mapped files.

    Attributes:
        x: (N, H, W, C), uint8; private to the process if it is written to.
        y: (N,), int64.
        moments: (N, C, 2), int64, sum and sum of squares over the pixels of each image.
    """

    x: Pixels
    y: Labels
    moments: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Pictures:
    """Pictures of one part, still to be decoded.

    Attributes:
        count: how many.
        read: the pixels of one by its number, (H, W, C), and its label; called from several threads. Raises
            `Unreadable`, naming the picture, where that one is to be left out.
    """

    count: int
    read: Callable[[int], tuple[Pixels, int]]


@dataclass(frozen=True)
class Opened:
    """What is to be decoded.

    Attributes:
        shape: (H, W, C) of all images.
        classes: their names; None where they are numbers.
        parts: by name: train, test and, if there is one, validation.
        notes: sentences on what was decided for want of a setting.
    """

    shape: tuple[int, int, int]
    classes: tuple[str, ...] | None
    parts: Mapping[str, Pictures]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Request:
    """Pictures that are to be decoded where they are not in the cache.

    Attributes:
        name: of the data set; the name of the folder begins with it.
        content: what the pixels depend on, in primitives: a fingerprint of the pictures, size and so on.
        open: called only to decode them.
        threads: how many decode at a time; None for as many as the processor serves.
    """

    name: str
    content: Mapping[str, Any]
    open: Callable[[], Opened]
    threads: int | None = None


@dataclass(frozen=True)
class Cached:
    """Decoded pictures.

    Attributes:
        parts: by name.
        classes: names of the classes.
        notes: sentences on what was decided, and on pictures that are left out.
    """

    parts: dict[str, Part]
    classes: tuple[str, ...]
    notes: tuple[str, ...]


def decoded(request: Request, data_dir: Path, on_progress: OnProgress) -> Cached:
    """The pictures of a request, out of the cache, where they are decoded to first if need be.

    Raises:
        SlimnetError: too many pictures cannot be read, or all of a class; the cache cannot be written.
    """
    folder = _place(request, data_dir)
    if found := _open(folder):
        return found
    from filelock import FileLock, Timeout

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_name(f".{folder.name}.lock"))
        try:
            lock.acquire(blocking=False)
        except Timeout:
            on_progress(f"waiting for another process, which is decoding {request.name}", 0, 0)
            lock.acquire()
        try:
            if _open(folder) is None:  # another process may have written it meanwhile
                _write(folder, request, on_progress)
        finally:
            lock.release()
    except OSError as error:
        raise SlimnetError(
            f"{folder.parent}, where decoded pictures are kept, cannot be written "
            f"({error.strerror or error}); make room there, or name another folder with --data-dir or "
            "SLIMNET_DATA"
        ) from error
    found = _open(folder)
    assert found is not None, "it was written just now"
    return found


def find(request: Request, data_dir: Path) -> Cached | None:
    """The pictures of a request where they are in the cache.

    Raises:
        SlimnetError: they are, but the folder is damaged.
    """
    return _open(_place(request, data_dir))


def _place(request: Request, data_dir: Path) -> Path:
    key = hashlib.sha256(json.dumps([FORMAT, request.content], sort_keys=True).encode()).hexdigest()[:16]
    name = request.name.encode()[:LONGEST_NAME].decode(errors="ignore")  # a file system counts bytes
    return data_dir / "pictures" / f"{name}-{key}"


def _open(folder: Path) -> Cached | None:
    try:
        facts = json.loads((folder / "facts.json").read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise SlimnetError(
            f"{folder} may not be read; allow yourself to read it, or name another folder with --data-dir or "
            "SLIMNET_DATA"
        ) from error
    except (OSError, ValueError) as error:
        raise SlimnetError(f"{folder} is damaged ({error}); remove it, and it is made again") from error
    try:
        parts = {
            name: Part(
                np.memmap(folder / f"{name}.pixels", np.uint8, "c", shape=(count, *facts["shape"])),
                np.load(folder / f"{name}.labels.npy"),
                np.load(folder / f"{name}.moments.npy"),
            )
            for name, count in facts["parts"].items()
        }
    except (OSError, ValueError) as error:
        raise SlimnetError(f"{folder} is damaged ({error}); remove it, and it is made again") from error
    return Cached(parts, tuple(facts["classes"]), tuple(facts["notes"]))


def _write(folder: Path, request: Request, on_progress: OnProgress) -> None:
    """Decode into a folder beside, and rename it."""
    for unfinished in folder.parent.glob(f".{escape(folder.name)}.*.aside"):
        shutil.rmtree(unfinished)  # of a process that was killed, as the lock is ours
    aside = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.aside")
    aside.mkdir()
    try:
        opened = request.open()
        total = sum(part.count for part in opened.parts.values())
        _check_room(folder.parent, total * math.prod(opened.shape))
        labels, unreadable, before = {}, [], 0
        for name, part in opened.parts.items():

            def tell(done: int, before: int = before) -> None:
                on_progress(f"decoding {request.name}", before + done, total)

            labels[name], failed = _write_part(aside / name, part, opened.shape, request.threads, tell)
            _check_failed(name, part.count, failed)
            unreadable += failed
            before += part.count
        notes = [*opened.notes, *_notes(aside, labels, unreadable, opened.shape)]
        facts = {
            "format": FORMAT,
            "name": request.name,
            "content": request.content,
            "shape": opened.shape,
            "classes": _classes(request.name, labels, opened.classes),
            "parts": {name: len(found) for name, found in labels.items()},
            "notes": notes,
            "unreadable": unreadable,
        }
        with replacing(aside / "facts.json") as file:
            file.write(json.dumps(facts, indent=2, ensure_ascii=False).encode())
        os.replace(aside, folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise SlimnetError(
            f"the decoded pictures take {file_size(needed)}, but {folder} has {file_size(free)} left; "
            "make room, name another folder with --data-dir or SLIMNET_DATA, or make the pictures smaller "
            "(data.image_size or --image-size) or grey (data.channels: 1 or --channels 1)"
        )


def _write_part(
    stem: Path, part: Pictures, shape: tuple[int, ...], threads: int | None, tell: Callable[[int], None]
) -> tuple[Labels, list[str]]:
    """Decode one part into files; returns its labels, and what was said of each picture that is left out."""
    image_bytes = math.prod(shape)
    labels = np.full(part.count, -1, np.int64)
    moments = np.zeros((part.count, shape[-1], 2), np.int64)
    failed: dict[int, str] = {}
    with stem.with_suffix(".pixels").open("xb") as file:

        def decode(numbers: range) -> int:
            for number in numbers:
                try:
                    pixels, labels[number] = part.read(number)
                except Unreadable as error:
                    failed[number] = str(error)
                    continue
                # Written, not mapped: on a full disk that is an error, where a mapped file is a crash.
                os.pwrite(file.fileno(), pixels.tobytes(), number * image_bytes)
                moments[number] = _moments(pixels)
            return numbers.stop

        chunks = [range(start, min(start + CHUNK, part.count)) for start in range(0, part.count, CHUNK)]
        with ThreadPoolExecutor(threads) as pool:
            try:
                for done in pool.map(decode, chunks):
                    tell(done)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        kept = np.flatnonzero(labels >= 0)
        if failed and len(kept):
            _close_gaps(Path(file.name), kept, shape)
        os.fsync(file.fileno())
    np.save(stem.with_suffix(".labels.npy"), labels[kept])
    np.save(stem.with_suffix(".moments.npy"), moments[kept])
    return labels[kept], [failed[number] for number in sorted(failed)]


def _close_gaps(path: Path, kept: npt.NDArray[np.int64], shape: tuple[int, ...]) -> None:
    """Move the images that were read to the front of their file, in their order."""
    pixels = np.memmap(path, np.uint8, "r+", shape=(int(kept[-1]) + 1, *shape))
    for place, number in enumerate(kept):
        if place != number:
            pixels[place] = pixels[number]
    pixels.flush()
    del pixels
    os.truncate(path, len(kept) * math.prod(shape))


def _moments(pixels: Pixels) -> npt.NDArray[np.int64]:
    """(C, 2): sum and sum of squares of an image's pixels."""
    flat = pixels.reshape(-1, pixels.shape[-1]).astype(np.uint32)
    return np.stack([flat.sum(0, dtype=np.int64), np.square(flat).sum(0, dtype=np.int64)], axis=1)


def _check_failed(name: str, count: int, failed: list[str]) -> None:
    if len(failed) > MOST_UNREADABLE * count:
        found = f"{len(failed)} of the {plural(count, 'picture')} of {name}"
        raise SlimnetError(
            f"{found} cannot be read, and more than {MOST_UNREADABLE:.0%} are not left out unasked; mend or "
            f"remove them: {_name(failed)}"
        )


def _classes(name: str, labels: Mapping[str, Labels], given: tuple[str, ...] | None) -> tuple[str, ...]:
    """The names of the classes, each of which every part has pictures of."""
    count = len(given) if given else int(labels["train"].max()) + 1
    classes = given or tuple(map(str, range(count)))
    if count < 2:
        raise SlimnetError(f"{name} holds a single class, {classes[0]}; telling classes apart takes two.")
    for part, found in labels.items():
        if found.max() >= count:
            raise SlimnetError(f"{name}: {part} has the label {found.max()}, but there are {count} classes.")
        if len(absent := np.flatnonzero(np.bincount(found, minlength=count) == 0)):
            raise SlimnetError(f"{name}: {part} has no picture of {classes[absent[0]]} that can be read.")
    return classes


def _notes(
    folder: Path, labels: Mapping[str, Labels], unreadable: Sequence[str], shape: tuple[int, int, int]
) -> Iterator[str]:
    if unreadable:
        total = len(unreadable) + sum(map(len, labels.values()))
        yield f"{len(unreadable)} of {total} pictures cannot be read and are left out: {_name(unreadable)}"
    every = [np.load(folder / f"{name}.moments.npy") for name in labels]
    if max(moments[..., 1].max(initial=0) for moments in every) < DARK**2 * math.prod(shape[:2]):
        yield (
            f"all pictures are nearly black, at most {DARK} of 255 in the mean; of 16 bits the upper 8 are "
            "taken: if yours use fewer, multiply them to fill all"
        )
    if shape[-1] == 3 and all((moments == moments[:, :1]).all() for moments in every):
        yield "all pictures are grey; data.channels: 1 or --channels 1 would take a third of the memory"


def _name(unreadable: Sequence[str]) -> str:
    """The first few of what was said of pictures that cannot be read, in a line."""
    more = f" and {len(unreadable) - NAMED} more" if len(unreadable) > NAMED else ""
    return "; ".join(text.rstrip(".") for text in unreadable[:NAMED]) + more
