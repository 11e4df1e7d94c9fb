"""Hashes of many files, remembered, so that only files that have changed are read again."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from slimnet.errors import SlimnetError
from slimnet.files import content_hash, replacing

OnProgress = Callable[[str, int, int], None]
"""Called with (what is being done, files done, files), or with (a sentence, 0, 0)."""


def silent(what: str, done: int, total: int) -> None:
    """Tell nobody."""


SETTLED = 2_000_000_000
"""Nanoseconds after which a file that is written again has another time, on any file system."""


def combined_hash(root: Path, paths: Sequence[str], memory: Path, on_progress: OnProgress) -> str:
    """The sha256 of the names and contents of files.

    What `memory` knows of a file holds as long as its size, its number on the disk and both its times are the
    same: that of its content, and that of any change, which no program can set. A file that was changed less
    than two seconds before it was read is read again the next time, as git does.

    Args:
        root: the folder.
        paths: of the files, below it.
        memory: a folder for what is remembered; nothing is where it cannot be written.
        on_progress: told how far the reading is, if anything is read.

    Raises:
        SlimnetError: a file cannot be read.
    """
    place = memory / f"{hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]}.json"
    known, began = _recall(place), time.time_ns()
    stamps = {path: _stamp(root / path) for path in paths}
    hashes = {path: known[path][1] for path in paths if path in known and known[path][0] == stamps[path]}
    if unread := [path for path in paths if path not in hashes]:
        with ThreadPoolExecutor() as pool:
            try:
                for done, (path, found) in enumerate(
                    zip(unread, pool.map(lambda path: content_hash(root / path), unread), strict=True), 1
                ):
                    hashes[path] = found
                    on_progress("reading", done, len(unread))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        if settled := [path for path in paths if max(stamps[path][2:]) < began - SETTLED]:
            _remember(place, {path: [stamps[path], hashes[path]] for path in settled})
    total = hashlib.sha256()
    for path in sorted(paths):
        total.update(f"{path}\0{hashes[path]}\n".encode())
    return total.hexdigest()


def _stamp(path: Path) -> list[int]:
    try:
        found = os.stat(path)
    except OSError as error:
        broken = "it is a link to nothing" if path.is_symlink() else error.strerror
        raise SlimnetError(f"{path} cannot be read: {broken}; mend it, or move it elsewhere.") from error
    return [found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns]


def _recall(place: Path) -> Mapping[str, Any]:
    with suppress(OSError, ValueError):
        found = json.loads(place.read_bytes())
        if isinstance(found, dict):
            return found
    return {}


def _remember(place: Path, known: Mapping[str, Any]) -> None:
    with suppress(OSError), replacing(place) as file:
        file.write(json.dumps(known).encode())
