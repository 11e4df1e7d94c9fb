"""What is told of a trial: to the study's record, to the sampler, and to Optuna's study."""

from __future__ import annotations

from dataclasses import replace

from sweeps.records import TrialRecord
from sweeps.study import Point, Study
from sweeps.study.database import REASON, Entry
from sweeps.study.sampling import Sampling


def tell(trial: TrialRecord, study: Study, sampling: Sampling) -> None:
    """Have the sampler learn of a trial that has ended, and record for good whether it was stopped.

    One that failed may be tried again, which the record leaves open.
    """
    if trial.state != "failed":
        study.settle(trial.number, trial.stop)
    sampling.tell(trial.number, objective_values(trial), violations(trial))


def objective_values(trial: TrialRecord) -> tuple[float, ...] | None:
    """The objectives of a trial, in the config's order, as the sampler learns them.

    Of a trial that was stopped they are estimated, as samplers learn nothing from one without values; None if
    it failed or is still running.
    """
    if trial.stop is None and trial.state != "complete":
        return None
    facts = trial.stop.estimate if trial.stop else trial.facts()
    return tuple(float(facts[name]) for name in trial.config.search.objectives)


def violations(trial: TrialRecord) -> dict[str, float]:
    """How far a trial is off each constraint, as the sampler learns it; empty if it failed or is running."""
    if trial.stop is None and trial.state != "complete":
        return {}
    return trial.config.search.violations(trial.stop.estimate if trial.stop else trial.facts())


def ended_entry(trial: TrialRecord, point: Point) -> Entry:
    """A trial that has ended, as the Optuna study holds it; one that was stopped has no values there."""
    is_complete = trial.state == "complete"
    objectives = trial.config.search.objectives
    facts = trial.facts() if is_complete else {REASON: trial.reason}
    notes = {name: fact for name, fact in facts.items() if name not in objectives}
    return replace(
        open_entry(trial, point),
        values=objective_values(trial) if is_complete else None,
        state=trial.state,
        violations=violations(trial) if is_complete else {},
        notes={**_keys(trial), **notes},
    )


def open_entry(trial: TrialRecord, point: Point) -> Entry:
    """A trial that the sampler has not seen the end of, as the Optuna study holds it."""
    return Entry(trial.number, point, None, "running", notes=_keys(trial))


def _keys(trial: TrialRecord) -> dict[str, str]:
    """The keys of a trial's stages, by which their folders are found."""
    return {f"stage.{stage.name}": stage.key for stage in trial.stages}
