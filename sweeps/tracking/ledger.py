"""The small file in which a study notes what it has given to W&B."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

FILE = "projection.json"


@dataclass(frozen=True)
class Entry:
    """Where a run lives and which state of it (a view's mark) is completely there; "" for none yet.

    A run lives in an offline folder, which may be replaced as a whole, until its first row is on a server;
    from then on it is only ever continued there, because rows uploaded twice would show twice.
    """

    home: Literal["folder", "server"]
    mark: str
    folder: str | None = None


class Ledger:
    """The entries by run id, kept in `<wandb folder>/projection.json` and written at each change.

    A file that is missing or damaged counts as empty: what it said is found out again from the run folders.
    """

    def __init__(self, wandb_dir: Path) -> None:
        self._path = wandb_dir / FILE
        self._entries = _read(self._path)

    def get(self, run_id: str) -> Entry | None:
        return self._entries.get(run_id)

    def items(self) -> list[tuple[str, Entry]]:
        return list(self._entries.items())

    def put(self, run_id: str, entry: Entry) -> None:
        if self._entries.get(run_id) != entry:
            self._entries[run_id] = entry
            self._write()

    def drop(self, run_id: str) -> None:
        if self._entries.pop(run_id, None) is not None:
            self._write()

    def _write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        aside = self._path.with_suffix(".tmp")
        content = {run_id: asdict(entry) for run_id, entry in self._entries.items()}
        aside.write_text(json.dumps(content, indent=1))
        os.replace(aside, self._path)


def _read(path: Path) -> dict[str, Entry]:
    try:
        return {run_id: Entry(**fields) for run_id, fields in json.loads(path.read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
