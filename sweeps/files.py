"""Small files, each replaced whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from slimnet.errors import SlimnetError
from slimnet.files import replacing


def write_text(path: Path, text: str) -> None:
    """Replace the content of `path`, making its folder if needed.

    Raises:
        SlimnetError: it cannot be written (a full disk, a missing permission); what was there stays.
    """
    try:
        with replacing(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise SlimnetError(
            f"cannot write {path}: {error.strerror}; make room or choose another folder"
        ) from error


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
