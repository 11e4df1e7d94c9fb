"""Small files written aside and renamed, so that a reader sees the old content or the new, never half."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slimnet.errors import SlimnetError


def write_text(path: Path, text: str) -> None:
    """Replace the content of `path`, making its folder if needed.

    Raises:
        SlimnetError: it cannot be written (a full disk, a missing permission); what was there stays.
    """
    try:
        _replace(path, text)
    except OSError as error:
        raise SlimnetError(
            f"cannot write {path}: {error.strerror}; make room or choose another folder"
        ) from error


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(aside, 0o644)  # mkstemp makes private files
        os.replace(aside, path)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_lines(path: Path, rows: Sequence[Any]) -> None:
    """Write one JSON value per line."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
