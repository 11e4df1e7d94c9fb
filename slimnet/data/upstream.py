"""Fashion-MNIST, CIFAR-10 and CIFAR-100 as published: found on disk or downloaded, checked, decoded.

What is already in the data folder is used, be it unpacked files or archives, in torchvision's places or at
the top of the folder; it is decoded in memory, so that the folder may be read-only. Only the content counts:
every file is held against its md5 before it is decoded, and a Fashion-MNIST file that was compressed anew
(as in the Debian package dataset-fashion-mnist) is as good as upstream's own.
"""

import gzip
import hashlib
import io
import os
import pickle
import socket
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from slimnet.data.catalogue import PUBLISHED, Archive
from slimnet.errors import SlimnetError

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
Part = tuple[Pixels, Labels]
"""Images (N, H, W, C) and their labels (N,)."""

STALLED_AFTER = 60.0
"""Seconds without a byte after which a download counts as failed."""


def load(name: str, data_dir: Path) -> tuple[Part, Part]:
    """The train and the test part of a published set.

    Args:
        name: one of `slimnet.data.catalogue.PUBLISHED`.
        data_dir: where the files are looked for, and downloaded to where they are missing.

    Raises:
        SlimnetError: a file is damaged, or is missing and cannot be downloaded; the message says where
            upstream keeps the files and where to put them.
    """
    archives = PUBLISHED[name].archives
    files: dict[str, bytes] = {}
    try:
        for archive in archives:
            files |= _unpacked_files(archive, data_dir) or _archive_content(archive, data_dir)
    except _DownloadFailedError as failure:
        by_hand = (f"{a.url} (md5 {a.md5}) to be put at {data_dir / a.path}" for a in archives)
        raise SlimnetError(f"{failure} What can be fetched by hand:\n  " + "\n  ".join(by_hand)) from failure
    return DECODERS[name](files)


class _DownloadFailedError(Exception):
    """Names the file and the reason."""


def _unpacked_files(archive: Archive, data_dir: Path) -> dict[str, bytes] | None:
    """The archive's data files where all of them lie unpacked, else None."""
    for folder in (data_dir / archive.folder, data_dir):
        if all((folder / name).is_file() for name in archive.members):
            files = {name: _read(folder / name) for name in archive.members}
            for name, content in files.items():
                _check_md5(folder / name, content, archive.members[name])
            return files
    return None


def _archive_content(archive: Archive, data_dir: Path) -> dict[str, bytes]:
    home = data_dir / archive.path
    path = next((place for place in (home, data_dir / home.name) if place.is_file()), None)
    return _unpack(archive, path or _download(archive, home))


def _unpack(archive: Archive, path: Path) -> dict[str, bytes]:
    try:
        files = _members(archive, path)
    except (OSError, EOFError, KeyError, tarfile.TarError, zlib.error):
        files = {}
    if {name: _md5(content) for name, content in files.items()} != archive.members:
        raise _damaged(path, _md5(_read(path)), archive.md5)
    return files


def _members(archive: Archive, path: Path) -> dict[str, bytes]:
    if not archive.path.name.endswith(".tar.gz"):
        (name,) = archive.members
        with gzip.open(path) as file:
            return {name: file.read()}
    files = {}
    with tarfile.open(path, mode="r:gz") as tar:
        for name in archive.members:
            member = tar.extractfile(str(archive.folder / name))
            files[name] = member.read() if member else b""
    return files


def _download(archive: Archive, target: Path) -> Path:
    """Fetch the archive to `target`, which appears whole and checked, or not at all.

    Processes that want the same file wait for the first one to bring it.
    """
    unfinished = target.with_name(target.name + ".part")
    try:
        from filelock import FileLock
        from torchvision.datasets.utils import download_url

        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(target.name + ".lock")):
            if target.is_file():
                return target
            unfinished.unlink(missing_ok=True)  # torchvision takes a file that is there for the finished one
            with _socket_timeout(STALLED_AFTER):
                download_url(archive.url, str(unfinished.parent), unfinished.name)
            if (found := _md5(_read(unfinished))) != archive.md5:
                unfinished.unlink()
                raise RuntimeError(f"what came has md5 {found}")
            os.replace(unfinished, target)
    except (ImportError, OSError, RuntimeError, HTTPException) as error:
        raise _DownloadFailedError(f"{target} is missing and could not be downloaded: {error}.") from error
    return target


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """torchvision sets no limit to the wait for a server that has gone silent."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SlimnetError(f"{path} cannot be read: {error.strerror}.") from error


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _check_md5(path: Path, content: bytes, expected: str) -> None:
    if (found := _md5(content)) != expected:
        raise _damaged(path, found, expected)


def _damaged(path: Path, found: str, expected: str) -> SlimnetError:
    return SlimnetError(
        f"{path} is damaged, or another file of that name: md5 {found}, expected {expected}. "
        "Remove it to have it fetched again, or put the right file in its place."
    )


# ---------------------------------------------------------------------------------------------- Fashion-MNIST


def _decode_fashion_mnist(files: dict[str, bytes]) -> tuple[Part, Part]:
    def part(prefix: str) -> Part:
        pixels = np.frombuffer(files[f"{prefix}-images-idx3-ubyte"], np.uint8, offset=16)
        labels = np.frombuffer(files[f"{prefix}-labels-idx1-ubyte"], np.uint8, offset=8)
        return pixels.reshape(-1, 28, 28, 1).copy(), labels.astype(np.int64)

    return part("train"), part("t10k")


# ------------------------------------------------------------------------------------------------------ CIFAR


class _BatchUnpickler(pickle.Unpickler):
    """Knows the three names of numpy that CIFAR's batch files use, and refuses every other.

    The batch files are pickles by nature. They reach this class only with the md5 that upstream's have.
    """

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("numpy", "dtype"):
            # The files pass integers for flags, which makes numpy 2.4 warn.
            return lambda code, *_: np.dtype(code)
        if (module, name) in {("numpy", "ndarray"), ("numpy.core.multiarray", "_reconstruct")}:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a CIFAR batch")


def _decode_cifar(files: dict[str, bytes], *, test: str, labels_key: str) -> tuple[Part, Part]:
    def part(names: list[str]) -> Part:
        batches = [_BatchUnpickler(io.BytesIO(files[name]), encoding="latin1").load() for name in names]
        pixels = np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, 32, 32)
        labels = np.concatenate([np.asarray(batch[labels_key], np.int64) for batch in batches])
        return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)), labels

    return part([name for name in files if name != test]), part([test])


DECODERS: dict[str, Callable[[dict[str, bytes]], tuple[Part, Part]]] = {
    "fashion-mnist": _decode_fashion_mnist,
    "cifar10": partial(_decode_cifar, test="test_batch", labels_key="labels"),
    "cifar100": partial(_decode_cifar, test="test", labels_key="fine_labels"),
}
"""How the data files of each published set become the train and the test part."""
