"""Where a study and its trials are on W&B, as pages on disk link to them."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from sweeps.files import write_json
from sweeps.records import StudyRecord
from sweeps.tracking.ledger import Ledger
from sweeps.tracking.server import run_page
from sweeps.tracking.views import trial_view

# The address of the study's report by the place of the runs, and those of comparisons by their pages on disk;
# lost, they are noted again.
FILE = "reports.json"


def links(wandb_dir: Path) -> tuple[tuple[str, str], ...]:
    """What of a study is on W&B, each with its address: its runs, and its report."""
    found: list[tuple[str, str]] = []
    reports = _reports(wandb_dir)
    for place in Ledger(wandb_dir).places():
        found.append(("runs on W&B", place))
        found += [("report on W&B", reports[place])] if place in reports else []
    return tuple(found)


def comparison_links(wandb_dir: Path, page: str) -> tuple[tuple[str, str], ...]:
    """Where a comparison is on W&B, with the address; nothing if it was not published.

    Args:
        wandb_dir: of the first study.
        page: the name of its page on disk.
    """
    address = _reports(wandb_dir).get(page)
    return (("comparison on W&B", address),) if address else ()


def run_pages(study: StudyRecord, wandb_dir: Path) -> dict[int, str]:
    """The addresses of the trials' runs on W&B, by trial; of several servers, on the first that has one."""
    ledger, found = Ledger(wandb_dir), dict[int, str]()
    places = ledger.places()
    for trial in study.trials if places else ():
        view = trial_view(study, trial)
        pages = (run_page(place, own) for place in places if (own := ledger.begun_as(place, view)))
        if page := next(pages, None):
            found[trial.number] = page
    return found


def note_report(wandb_dir: Path, what: str, address: str) -> None:
    """Note where the report of a study or a comparison was published.

    Args:
        wandb_dir: of the study, or the first of the comparison.
        what: the place of the runs, or the name of the comparison's page on disk.
        address: of the report.

    Raises:
        SlimnetError: it cannot be written.
    """
    write_json(wandb_dir / FILE, {**_reports(wandb_dir), what: address})


def _reports(wandb_dir: Path) -> dict[str, str]:
    with suppress(OSError, ValueError, TypeError):
        return dict(json.loads((wandb_dir / FILE).read_text()))
    return {}
