"""Small files, each replaced as a whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from slimnet.errors import SlimnetError
from slimnet.files import replacing


def write_text(path: Path, text: str) -> None:
    """Replace the content of `path`, making its folder if needed.

    Raises:
        SlimnetError: it cannot be written (a full disk, a missing permission); the old content stays.
    """
    try:
        with replacing(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise SlimnetError(
            f"cannot write {path}: {error.strerror}; make room or choose another folder"
        ) from error


def write_json(path: Path, content: Any) -> None:
    """Replace the content of `path` by `content` as indented JSON.

    Raises:
        SlimnetError: it cannot be written; the old content stays.
    """
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
