"""Files written aside and renamed, so that a reader sees the old content or the new, never half."""

from __future__ import annotations

import hashlib
import os
import tempfile
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
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(aside, 0o644)  # mkstemp makes private files
        if keep_old is not None and path.exists():
            os.replace(path, keep_old)
        os.replace(aside, path)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise
