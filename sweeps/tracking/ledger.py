"""The small file in which a study notes what it has logged to W&B, and where."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sweeps.tracking.views import RunView

FILE = "projection.jsonl"
FOLDER = "folder"  # the place of offline runs
UNKNOWN = "?"  # a server that was not noted: `wandb sync` by hand, or an earlier version


@dataclass(frozen=True)
class Entry:
    """What is known of a run at one place.

    Attributes:
        mark: the mark of the view that is completely there, which a server has confirmed; "" for none yet.
        chain: the chain of the view whose rows these are; None if it was not noted.
        folder: the name of its offline folder; None on a server.
        again: how often it was begun anew on this server, under another id.
    """

    mark: str = ""
    chain: str | None = None
    folder: str | None = None
    again: int = 0


class Ledger:
    """The entries by place and run id, kept in `<wandb folder>/projection.jsonl`: a line per change.

    A place is the offline folder, or a server with an entity and a project. The last line counts. A missing
    file counts as empty and a damaged line as missing: their content is recovered from the run folders and
    from the servers.
    """

    def __init__(self, wandb_dir: Path) -> None:
        self._path = wandb_dir / FILE
        self._entries = _read(self._path)
        self._places: dict[str, set[str]] = {}  # by run
        for place, run_id in self._entries:
            self._places.setdefault(run_id, set()).add(place)

    def get(self, place: str, run_id: str) -> Entry | None:
        """The entry of a run; None if there is none."""
        return self._entries.get((place, run_id))

    def at(self, place: str, run_id: str) -> Entry | None:
        """What is known of a run on a server, or on one that was not noted."""
        return self.get(place, run_id) or self.get(UNKNOWN, run_id)

    def unmixed(self, place: str, view: RunView) -> RunView:
        """The view, with another id if the run with its id has rows of other stages on the server."""
        entry = self.at(place, view.id)
        if entry is None or entry.chain in (None, view.chain):
            return view
        return replace(view, id=_with(view.id, view.chain[:6]))

    def id_at(self, place: str, view: RunView) -> str:
        """The id that a run has on a server: another one if its rows are others or it was begun again."""
        unmixed = self.unmixed(place, view)
        entry = self.at(place, unmixed.id)
        return _again(unmixed.id, entry.again if entry else 0)

    def begun_as(self, place: str, view: RunView) -> str | None:
        """The id with which a run was begun on a server; None if it was not, as far as is noted."""
        begun = self.get(place, self.unmixed(place, view).id)
        return self.id_at(place, view) if begun else None

    def former_ids(self, place: str, view: RunView) -> list[str]:
        """The ids under which a run that was begun again may still be on a server, with rows of its own."""
        unmixed = self.unmixed(place, view)
        entry = self.at(place, unmixed.id)
        return [_again(unmixed.id, times) for times in range(entry.again if entry else 0)]

    def items(self, place: str) -> list[tuple[str, Entry]]:
        """Every run at a place with its entry."""
        return [(run, entry) for (its, run), entry in self._entries.items() if its == place]

    def runs(self) -> list[str]:
        """The ids of all runs."""
        return [run_id for run_id, places in self._places.items() if places]

    def places(self) -> list[str]:
        """The servers, each with entity and project, on which any run has begun."""
        places = {place for place, _ in self._entries}
        return sorted(place for place in places if place not in (FOLDER, UNKNOWN))

    def servers(self, run_id: str) -> list[str]:
        """The servers on which a run has begun."""
        return sorted(self._places.get(run_id, set()) - {FOLDER})

    def settled(self) -> set[str]:
        """The ids of runs, former ones too, that every server where they have begun has confirmed.

        Without those that are to be kept in a folder.
        """
        found = set()
        for run_id in self.runs():
            places = self._places[run_id]
            entries = [self._entries[place, run_id] for place in places]
            if FOLDER not in places and all(entry.mark for entry in entries):
                found |= {_again(run_id, times) for entry in entries for times in range(entry.again + 1)}
        return found

    def on_servers(self, run_id: str, ending: str = "") -> list[Entry]:
        """The entries of a run on servers whose place is unknown or has this ending."""
        places = [place for place in self.servers(run_id) if place == UNKNOWN or place.endswith(ending)]
        return [self._entries[place, run_id] for place in places]

    def put(self, place: str, run_id: str, entry: Entry) -> None:
        """Note what is known of a run now."""
        if self._entries.get((place, run_id)) != entry:
            self._entries[place, run_id] = entry
            self._places.setdefault(run_id, set()).add(place)
            self._append(place, run_id, asdict(entry))

    def drop(self, place: str, run_id: str) -> None:
        """Forget a run."""
        if self._entries.pop((place, run_id), None) is not None:
            self._places[run_id].discard(place)
            self._append(place, run_id, None)

    def _append(self, place: str, run_id: str, fields: dict[str, Any] | None) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:  # starts a new line, as the last one may be incomplete
            file.write(f"\n{json.dumps({'place': place, 'run': run_id, 'entry': fields})}")


def _with(run_id: str, part: str) -> str:
    """An id with a further part, before that of the study."""
    stem, _, uid = run_id.rpartition("-")
    return f"{stem}-{part}-{uid}"


def _again(run_id: str, times: int) -> str:
    """The id of a run that was begun again so often."""
    return _with(run_id, f"again{times}") if times else run_id


def count_unsent(wandb_dir: Path) -> int:
    """How many runs no server has confirmed."""
    ledger = Ledger(wandb_dir)
    return sum(not any(entry.mark for entry in ledger.on_servers(run)) for run in ledger.runs())


def _read(path: Path) -> dict[tuple[str, str], Entry]:
    entries: dict[tuple[str, str], Entry] = {}
    for line in path.read_text(errors="replace").splitlines() if path.exists() else []:
        try:
            _take(entries, json.loads(line))
        except (ValueError, TypeError, KeyError):
            continue
    return entries


def _take(entries: dict[tuple[str, str], Entry], change: dict[str, Any]) -> None:
    """Apply one change."""
    run, fields = change["run"], change["entry"]
    if "place" not in change:  # of an earlier version, which did not note where and was told by no server
        for place in (FOLDER, UNKNOWN):
            entries.pop((place, run), None)
        if fields is not None:
            place = FOLDER if fields.pop("home") == "folder" else UNKNOWN
            entries[place, run] = Entry(**{**fields, "mark": fields["mark"] if place == FOLDER else ""})
    elif fields is None:
        entries.pop((change["place"], run), None)
    else:
        entries[change["place"], run] = Entry(**fields)
