"""The small file in which a study notes what it has logged to W&B."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

FILE = "projection.jsonl"


@dataclass(frozen=True)
class Entry:
    """Where a run is kept.

    A run is kept in an offline folder, which may be replaced as a whole, until its first row is on a server;
    from then on it is only continued there, as rows uploaded twice would be shown twice.

    Attributes:
        home: whether it is kept in a folder or on the server.
        mark: the mark of the view that is completely there; "" for none yet.
        folder: the name of its offline folder, if there is one.
        chain: the chain of the view whose rows these are; None if an earlier version did not note it.
    """

    home: Literal["folder", "server"]
    mark: str
    folder: str | None = None
    chain: str | None = None


class Ledger:
    """The entries by run id, kept in `<wandb folder>/projection.jsonl`: a line per change, the last counts.

    A missing file counts as empty and a damaged line as missing: their content is recovered from the run
    folders.
    """

    def __init__(self, wandb_dir: Path) -> None:
        self._path = wandb_dir / FILE
        self._entries = _read(self._path)

    def get(self, run_id: str) -> Entry | None:
        """The entry of a run; None if there is none."""
        return self._entries.get(run_id)

    def items(self) -> list[tuple[str, Entry]]:
        """Every run with its entry."""
        return list(self._entries.items())

    def put(self, run_id: str, entry: Entry) -> None:
        """Note where a run is kept now."""
        if self._entries.get(run_id) != entry:
            self._entries[run_id] = entry
            self._append(run_id, asdict(entry))

    def drop(self, run_id: str) -> None:
        """Forget a run."""
        if self._entries.pop(run_id, None) is not None:
            self._append(run_id, None)

    def _append(self, run_id: str, fields: dict[str, str | None] | None) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:  # starts a new line, as the last one may be incomplete
            file.write(f"\n{json.dumps({'run': run_id, 'entry': fields})}")


def count_unsent(wandb_dir: Path) -> int:
    """How many runs are kept in folders alone."""
    return sum(entry.home == "folder" for _, entry in Ledger(wandb_dir).items())


def _read(path: Path) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    for line in path.read_text(errors="replace").splitlines() if path.exists() else []:
        try:
            _take(entries, json.loads(line))
        except (ValueError, TypeError, KeyError):
            continue
    return entries


def _take(entries: dict[str, Entry], change: dict[str, Any]) -> None:
    """Apply one change."""
    if change["entry"] is None:
        entries.pop(change["run"], None)
    else:
        entries[change["run"]] = Entry(**change["entry"])
