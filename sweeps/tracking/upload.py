"""`sync`: uploads to the W&B server what is only on this machine, and asks it whether everything is there."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from sweeps.records import StudyRecord
from sweeps.tracking.mode import require_key
from sweeps.tracking.projection import Projector

logger = logging.getLogger("sweeps.tracking")


@dataclass(frozen=True)
class SyncResult:
    """How the upload of one run ended.

    Attributes:
        run_id: of the run.
        ok: whether the server has confirmed it.
        reason: why not.
        gone: whether the run cannot go on under its id, and `force` would begin it anew.
        anew: under which other id it was begun anew, and why; None if it was not.
    """

    run_id: str
    ok: bool
    reason: str | None = None
    gone: bool = False
    anew: str | None = None


def sync(study_dir: Path, study: StudyRecord, *, force: bool = False) -> list[SyncResult]:
    """Upload the runs that the server does not have, or not as they are now.

    The rows come from the study itself, and each run continues at the step that the server names, so that a
    run uploaded in part, or tracked online until the server failed, ends with every row once. (`wandb sync`
    would send such a run again from its start, and marks a run as uploaded even if the server refused its
    rows.) The server is asked for every run: what was deleted there, or is not complete, is not taken for
    uploaded.
    Hold the study's lock: no other process may project it at the same time.

    Args:
        study_dir: runs/<study>.
        study: as it is now.
        force: whether runs that were deleted on the server, or have other rows there, are uploaded again
            under other ids. They are failures otherwise.

    Returns:
        How each of these uploads ended; an empty list if the server has all runs.

    Raises:
        SlimnetError: wandb is not installed, or there is no API key.
    """
    require_key("sync needs W&B")
    projector = Projector(study_dir, online=True, warn=logger.info, force=force)  # results tell why
    wanted = projector.missing_on_server(study)
    projector.project(study, final=True)
    missing = {view.id for view in projector.missing_on_server(study)}
    return [
        SyncResult(
            view.id,
            ok=view.id not in missing,
            reason=projector.why_not(view.id) if view.id in missing else None,
            gone=view.id in projector.gone,
            anew=projector.anew.get(view.id),
        )
        for view in wanted
    ]
