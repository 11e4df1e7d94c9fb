"""What the exporters share: files that appear only when they are right, and quiet tools."""

from __future__ import annotations

import fcntl
import io
import logging
import os
import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from glob import escape
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from slimnet.errors import SlimnetError
from slimnet.files import aside_of
from slimnet.wording import first_line

ASIDE = ".aside"  # what the hidden folders of exports end in
NEW = 60  # seconds for which one may be about to be held


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """A file to write, of the same name elsewhere, which takes the place of `path` if all goes well.

    Raises:
        SlimnetError: the file cannot be written.
    """
    try:
        with workspace(path) as folder:
            yield folder / path.name
            os.replace(folder / path.name, path)
    except OSError as error:
        raise SlimnetError(f"cannot write {path}: {error}; make room or choose another folder") from error


@contextmanager
def workspace(path: Path) -> Iterator[Path]:
    """A hidden folder beside `path` for what is to take its place; it is gone in the end.

    So are those that killed processes left, which nobody holds any more.
    """
    for left in path.parent.glob(f".{escape(path.name)}.*{ASIDE}"):
        with suppress(OSError):  # gone meanwhile, or no folder
            if time.time() - left.lstat().st_mtime > NEW:
                _remove_unless_held(left)
    aside = aside_of(path)
    aside = aside.with_name(f"{aside.name}{ASIDE}")
    aside.mkdir(parents=True)
    try:
        with _held(aside):
            yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _remove_unless_held(folder: Path) -> None:
    with _held(folder) as alone:
        if alone:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Hold a folder, which ends with the process; whether nobody else does. No file is made for that.

    Raises:
        OSError: it is not there, or it is a link or a file.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            alone = True
        except OSError:  # somebody holds it, or the file system has no locks
            alone = False
        yield alone
    finally:
        os.close(descriptor)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporters' chatter from the terminal; what matters of it is in their exceptions."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def require(packages: tuple[str, ...]) -> None:
    """Refuse what needs a package that is not installed.

    Raises:
        SlimnetError: one is missing, with the way to get it.
    """
    for package in packages:
        if find_spec(package) is None:
            raise SlimnetError(
                f"export to ONNX needs {package}; get it with: pip install onnx onnxscript onnxruntime"
            )


def reason(error: BaseException) -> str:
    """The first line of the exception at the bottom of it: the exporters' own ones fill pages."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)


def of_size(example: Tensor, size: int) -> Tensor:
    """A batch of `size` images like the example's, all different."""
    generator = torch.Generator().manual_seed(0)
    shape = (size, *example.shape[1:])
    if example.is_floating_point():
        images = torch.randn(shape, generator=generator)
    else:
        images = torch.randint(256, shape, generator=generator)
    return images.to(example.device, example.dtype)


def any_batch() -> tuple[dict[int, object]]:
    """The dynamic shapes of one input whose batch size is free."""
    return ({0: torch.export.Dim("batch")},)
