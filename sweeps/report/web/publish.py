"""Publishes a study's report and view on W&B, or updates them in place."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimnet.errors import SlimnetError
from sweeps.records import StudyRecord
from sweeps.report.compare import Compared
from sweeps.tracking.ledger import Ledger
from sweeps.tracking.mode import require_key, sentence
from sweeps.tracking.server import Server, run_page
from sweeps.tracking.study_view import study_views
from sweeps.tracking.views import run_id

if TYPE_CHECKING:
    from sweeps.report.web.build import WebPages


@dataclass(frozen=True)
class Published:
    """What was published.

    Attributes:
        place: that of the runs.
        report, view: their addresses; None for a comparison, which has no view.
        shared: the link with which everybody can see the report, if it was asked for.
        runs: how many runs each study has.
        lacking: how many of them are not on the server.
    """

    place: str
    report: str
    view: str | None
    shared: str | None
    runs: Sequence[int]
    lacking: Sequence[int]


@dataclass(frozen=True)
class _OnServer:
    """The runs of a study on a server.

    Attributes:
        server: with the project.
        ids: under which they were begun there, by those that they have in the study.
        held: which of these it has.
        former: ids of runs that were begun again under others.
    """

    server: Server
    ids: dict[str, str]
    held: frozenset[str]
    former: list[str]

    @property
    def lacking(self) -> int:
        return len(self.ids) - len(self.held)

    def id_of(self, study: StudyRecord, number: int) -> str | None:
        """The id there of a trial's run, if there is one."""
        own = self.ids.get(run_id(study, number))
        return own if own in self.held else None


def check_usable(command: str) -> None:
    """Check what can be checked without asking the server.

    Args:
        command: that needs it, as "report --wandb", for the messages.

    Raises:
        SlimnetError: wandb-workspaces is not installed, or there is no key; and what to do.
    """
    if find_spec("wandb_workspaces") is None:
        raise SlimnetError(f"{command} needs the package wandb-workspaces: pip install wandb-workspaces")
    require_key(f"{command} needs W&B", "leave out --wandb for the page on disk")


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

    with _telling_refusals():
        there = _look_up(study, folder, sync)
        server = there.server
        found = {trial.number: there.id_of(study, trial.number) for trial in study.trials}
        addresses = {number: run_page(server.place, own) for number, own in found.items() if own}
        pages = WebPages(study, server.entity, study.config.wandb.project, there.former, addresses)
        shared = _save(pages.report, pages.mark, server, share)
        view = _save_view(study, pages, server.place)
    return Published(server.place, pages.report.url, view, shared, [len(there.ids)], [there.lacking])


def publish_comparison(
    compared: Compared, folders: Sequence[Path], syncs: Sequence[str], *, share: bool = False
) -> Published:
    """Publish the comparison of studies in the project of the first, in place of what was there before.

    Args:
        compared: the studies, whose runs are on the server.
        folders, syncs: the folder of each, and the command that uploads its runs; see `publish`.
        share: whether to make a link with which everybody can see the report.

    Raises:
        SlimnetError: the server does not answer, refuses, or has no run of one of the studies.
    """
    from sweeps.report.web.compare import Shown, comparison, mark

    with _telling_refusals():
        found = [_look_up(*one) for one in zip(compared.studies, folders, syncs, strict=True)]
        shown = [
            Shown(
                there.server.entity,
                study.config.wandb.project,
                there.former,
                [own for number in study.front if (own := there.id_of(study, number))],
            )
            for study, there in zip(compared.studies, found, strict=True)
        ]
        report = comparison(compared, shown)
        shared = _save(report, mark(compared.studies), found[0].server, share)
    return Published(
        found[0].server.place,
        report.url,
        None,
        shared,
        [len(there.ids) for there in found],
        [there.lacking for there in found],
    )


@contextmanager
def _telling_refusals() -> Iterator[None]:
    """Raise what wandb raises as a SlimnetError that says what to do."""
    try:
        yield
    except SlimnetError:
        raise
    except Exception as error:
        raise SlimnetError(
            f"W&B did not take the report: {sentence(error)}. "
            "Fix that and run the command again; it changes what was published, and makes nothing twice."
        ) from error


def _look_up(study: StudyRecord, folder: Path, sync: str) -> _OnServer:
    """Ask the server for the runs of a study.

    Raises:
        SlimnetError: it has none of them.
    """
    server = Server(study.config.wandb.project, study.config.wandb.entity)
    ledger = Ledger(folder / "wandb")
    views = [view for view in study_views(study) if view.state != "waiting"]
    ids = {view.id: ledger.id_at(server.place, view) for view in views}
    held = server.held(list(ids.values()))
    if not held:
        raise SlimnetError(f"{server.place} has no run of {study.name}; upload them first with: {sync}")
    former = [id_ for view in views for id_ in ledger.former_ids(server.place, view)]
    return _OnServer(server, ids, frozenset(held), former)


def _save(report: Any, mark: str, server: Server, share: bool) -> str | None:
    """Save a report in place of the one with the same mark; returns the link to share, if it is asked for."""
    before = server.reports()  # asked of the server, as nothing that is noted here may be lost
    report.id = next((id_ for id_, text in before if mark in text), "")
    report.save()
    return str(report.enable_share_link()) if share else None


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
