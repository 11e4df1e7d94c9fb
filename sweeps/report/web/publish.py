"""Publishes a study's report and view on W&B, or updates them in place."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from slimnet.errors import SlimnetError
from sweeps.records import StudyRecord
from sweeps.tracking.ledger import Ledger
from sweeps.tracking.mode import require_key, sentence
from sweeps.tracking.server import Server
from sweeps.tracking.study_view import study_views

if TYPE_CHECKING:
    from sweeps.report.web.build import WebPages


@dataclass(frozen=True)
class Published:
    """What was published.

    Attributes:
        place: that of the runs.
        report, view: their addresses.
        shared: the link with which everybody can see the report, if it was asked for.
        runs: how many runs the study has.
        lacking: how many of them are not on the server.
    """

    place: str
    report: str
    view: str
    shared: str | None
    runs: int
    lacking: int


def check_usable() -> None:
    """Check what can be checked without asking the server.

    Raises:
        SlimnetError: wandb-workspaces is not installed, or there is no key; and what to do.
    """
    if find_spec("wandb_workspaces") is None:
        raise SlimnetError("report --wandb needs the package wandb-workspaces: pip install wandb-workspaces")
    require_key("report --wandb needs W&B", "leave out --wandb for the page on disk")


def publish(study: StudyRecord, folder: Path, sync: str, *, share: bool = False) -> Published:
    """Publish the report and the view of a study, in place of what was published before.

    Args:
        study: whose runs are on the server.
        folder: runs/<study>, where it is noted under which ids they are there.
        sync: the command that uploads runs, for the messages.
        share: whether to make a link with which everybody can see the report.

    Raises:
        SlimnetError: the server does not answer, refuses, or has no run of the study.
    """
    from sweeps.report.web.build import WebPages

    try:
        server = Server(study.config.wandb.project, study.config.wandb.entity)
        ledger = Ledger(folder / "wandb")
        views = [view for view in study_views(study) if view.state != "waiting"]
        ids = [ledger.id_at(server.place, view) for view in views]
        held = server.held(ids)
        if not held:
            raise SlimnetError(f"{server.place} has no run of {study.name}; upload them first with: {sync}")
        former = [id_ for view in views for id_ in ledger.former_ids(server.place, view)]
        pages = WebPages(study, server.entity, study.config.wandb.project, former)
        before = server.reports()  # asked of the server, as nothing that is noted here may be lost
        pages.report.id = next((id_ for id_, text in before if pages.mark in text), "")
        pages.report.save()
        shared = pages.report.enable_share_link() if share else None
        view = _save_view(study, pages, server.place)
    except SlimnetError:
        raise
    except Exception as error:
        raise SlimnetError(
            f"W&B did not take the report: {sentence(error)}. "
            "Fix that and run the command again; it changes what was published, and makes nothing twice."
        ) from error
    return Published(server.place, pages.report.url, view, shared, len(ids), len(ids) - len(held))


def _save_view(study: StudyRecord, pages: WebPages, place: str) -> str:
    """Save the view of the project's page, which has the same name each time; returns its address."""
    import wandb_workspaces.workspaces as ws

    name = hashlib.sha256(study.uid.encode()).hexdigest()[:11]
    try:
        view = ws.Workspace.from_url(f"{place}?nw={name}")
    except ValueError:  # there is none
        view = ws.Workspace(entity=pages.report.entity, project=pages.report.project)
        view._internal_name = f"nw-{name}-v"
    view.name = study.name
    view.sections = pages.sections
    view.runset_settings = ws.RunsetSettings(filters=pages.runs, pinned_columns=list(pages.columns))
    view.save()
    return str(view.url)
