"""Which runs of a project a panel shows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from wandb_workspaces import expr

from sweeps.records import StudyRecord, TrialRecord
from sweeps.tracking.views import STUDY


@dataclass(frozen=True)
class Runs:
    """Which runs of a project are a study's.

    Attributes:
        study: whose they are; another of its name may be in the project.
        former: ids of runs that were begun again under others, and are not shown.
    """

    study: StudyRecord
    former: Sequence[str] = ()

    def every(self) -> expr.And:
        """All of them."""
        return expr.And(*self._own())

    def of(self, job_type: str) -> expr.And:
        """Those of a kind: "trial", "study", …"""
        return expr.And(*self._own(), expr.Metric("JobType") == job_type)

    def some(self, trials: Iterable[TrialRecord]) -> expr.And:
        """Those of some trials, found by number: a run that was begun again has another id."""
        numbers = [trial.number for trial in trials]
        return expr.And(self.of("trial"), expr.Config("trial").isin(numbers))

    def _own(self) -> list[Any]:
        others = [expr.Metric("ID").notin(list(self.former))] if self.former else []
        return [expr.Config(STUDY) == self.study.uid, *others]
