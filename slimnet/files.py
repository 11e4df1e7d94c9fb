"""Files written aside and renamed, so that a reader sees the old content or the new, never half."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from slimnet.errors import SlimnetError


def content_hash(path: Path) -> str:
    """The sha256 of a file.

    Raises:
        SlimnetError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SlimnetError(f"{path} cannot be read: {error.strerror}.") from error


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
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
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
