"""Where a study is on W&B, as its page on disk links to it."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from sweeps.files import write_json
from sweeps.tracking.ledger import Ledger

FILE = "reports.json"  # the address of the report by the place of the runs; lost, it is noted again


def links(wandb_dir: Path) -> tuple[tuple[str, str], ...]:
    """What of a study is on W&B, each with its address: its runs, and its report."""
    found: list[tuple[str, str]] = []
    reports = _reports(wandb_dir)
    for place in Ledger(wandb_dir).places():
        found.append(("runs on W&B", place))
        found += [("report on W&B", reports[place])] if place in reports else []
    return tuple(found)


def note_report(wandb_dir: Path, place: str, address: str) -> None:
    """Note where a report was published.

    Raises:
        SlimnetError: it cannot be written.
    """
    write_json(wandb_dir / FILE, {**_reports(wandb_dir), place: address})


def _reports(wandb_dir: Path) -> dict[str, str]:
    with suppress(OSError, ValueError, TypeError):
        return dict(json.loads((wandb_dir / FILE).read_text()))
    return {}
