"""Files written aside and renamed, so that a reader sees the old content or the new, never half."""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import IO

from slimnet.errors import SlimnetError


def user_path(text: str, folder: Path | None = None) -> Path:
    """The absolute path that a user means by a text, which may begin with ~.

    Args:
        text: what the user wrote.
        folder: what a relative path is relative to; the working directory if not given.

    Raises:
        SlimnetError: it cannot be a path, as of a user who does not exist.
    """
    try:
        path = ((folder or Path.cwd()) / Path(text).expanduser()).resolve()
    except (RuntimeError, ValueError, OSError) as error:
        raise SlimnetError(f"{text!r} is no path: {error}") from error
    check_name(path)
    return path


def check_name(path: Path) -> None:
    """Refuse a path whose name is not text, which no file or report could hold.

    Raises:
        SlimnetError: it is not UTF-8.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise SlimnetError(f"{str(path)!r} is not UTF-8; give it another name") from None


def content_hash(path: Path) -> str:
    """The sha256 of a file.

    Raises:
        SlimnetError: it cannot be read.
    """
    try:
        with open_file(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SlimnetError(f"{path} cannot be read: {error.strerror}.") from error


def open_file(path: Path) -> BufferedReader:
    """A file to read. A device or a pipe, which may never end, is none.

    Raises:
        SlimnetError: it cannot be read.
    """
    try:
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # which `open` refuses
            raise SlimnetError(f"{path} cannot be read: it is no file.")
        return path.open("rb")
    except OSError as error:
        raise SlimnetError(f"{path} cannot be read: {error.strerror}.") from error


def aside_of(path: Path) -> Path:
    """A hidden name beside `path`, another each time, for what is to take its place."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}")


@contextmanager
def replacing(path: Path, keep_old: Path | None = None) -> Iterator[IO[bytes]]:
    """A file to write, which takes the place of `path` at the end, or vanishes where an error comes before.

    Args:
        path: its folder is made if needed.
        keep_old: where the file that was there goes, if any; by default it is replaced.

    Raises:
        OSError: it cannot be written (a full disk, a missing permission); what was there stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = aside_of(path)
    try:
        with aside.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if keep_old is not None and path.exists():
            os.replace(path, keep_old)
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
