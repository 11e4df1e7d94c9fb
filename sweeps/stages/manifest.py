"""What stage.json holds, which says what a stage at a URL is."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

FORMAT = 1  # of stage.json


class AnotherFormatError(ValueError):
    """It was written by another version of slimnet."""


@dataclass(frozen=True)
class Manifest:
    """What stage.json holds.

    Attributes:
        version: raised whenever it is written.
        generation: drawn anew whenever it is written.
        files: the text of the small files, by name.
        network: the object that holds the checkpoint; None if there is none.
        bytes: of it.
    """

    version: int
    generation: str
    files: dict[str, str]
    network: str | None = None
    bytes: int = 0

    @property
    def progress(self) -> tuple[bool, int]:
        """Whether the stage is done, and its epochs."""
        return progress_in(self.files)


def dump(manifest: Manifest) -> bytes:
    """As stage.json."""
    return json.dumps({"format": FORMAT, **asdict(manifest)}, ensure_ascii=False).encode()


def load(content: bytes) -> Manifest:
    """From stage.json.

    Raises:
        AnotherFormatError: of another version of slimnet.
        ValueError, TypeError, LookupError, AttributeError: it is none.
    """
    found = json.loads(content)
    if found.pop("format") != FORMAT:
        raise AnotherFormatError
    return from_fields(found)


def from_fields(fields: dict[str, Any]) -> Manifest:
    """From its fields.

    Raises:
        TypeError, AttributeError: they are none.
    """
    found = Manifest(**fields)
    texts = [found.generation, *found.files, *found.files.values(), found.network or ""]
    numbers = (found.version, found.bytes)
    if not all(isinstance(text, str) for text in texts) or not all(isinstance(n, int) for n in numbers):
        raise TypeError("it is no manifest")
    return found


def progress_in(files: dict[str, str]) -> tuple[bool, int]:
    """Whether a stage with these small files is done, and its epochs."""
    return "result.json" in files, files.get("history.jsonl", "").count("\n")
