"""Which runs of a project a panel shows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from wandb_workspaces import expr

from sweeps.records import StudyRecord, TrialRecord
from sweeps.tracking.views import STUDY


def every_run(study: StudyRecord) -> expr.And:
    """All runs of a study."""
    return expr.And(_of(study))


def runs_of(study: StudyRecord, job_type: str) -> expr.And:
    """The runs of a kind: "trial", "study", …"""
    return expr.And(_of(study), expr.Metric("JobType") == job_type)


def some_trials(study: StudyRecord, trials: Iterable[TrialRecord]) -> expr.And:
    """The runs of some trials, found by number: a run that was begun again has another id."""
    numbers = [trial.number for trial in trials]
    return expr.And(runs_of(study, "trial"), expr.Config("trial").isin(numbers))


def _of(study: StudyRecord) -> Any:
    """Those of this study, and not of others of its name in the project."""
    return expr.Config(STUDY) == study.uid
