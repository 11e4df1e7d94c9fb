"""Reads a study as it stands: Optuna knows what was asked, the stage folders what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slimnet.precision import Precision
from sweeps.config import Config, resolve
from sweeps.pareto import front
from sweeps.results import StageRecord, StudyRecord, TrialRecord, TrialState
from sweeps.stages import Stage, Store, chain, dense_stage
from sweeps.study import Asked


@dataclass(frozen=True)
class Plan:
    """The stages that a study needs: the dense baseline and a chain per trial."""

    dense: Stage
    chains: dict[int, tuple[Stage, Stage, Stage]]

    def stages(self) -> list[Stage]:
        """Each stage once, the baseline first, then in the order of the trials."""
        every = [self.dense, *(stage for stages in self.chains.values() for stage in stages)]
        return list({stage.key: stage for stage in every}.values())


def plan_stages(
    config: Config, asked: Sequence[Asked], precision: Precision, data: str | None = None
) -> Plan:
    """The stages of the trials that have been asked for; `data` as for `sweeps.stages.chain`."""
    return Plan(
        dense_stage(config, precision, data),
        {trial.number: chain(resolve(config, trial.params), precision, data) for trial in asked},
    )


def goal_of(config: Config, asked: Sequence[Asked]) -> int:
    """How many trials a study is to have; a lower number than it has already takes nothing back."""
    return max(config.search.trials, len(asked))


class Reader:
    """Reads stage folders, finished ones only once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._done: dict[str, StageRecord] = {}

    def read(self, stage: Stage) -> StageRecord:
        """A stage as its folder has it now."""
        if stage.key in self._done:
            return self._done[stage.key]
        record = self._store.read(stage)
        if record.state == "done":
            self._done[stage.key] = record
        return record


def take(
    config: Config, runs: Path, asked: Sequence[Asked], plan: Plan, uid: str, reader: Reader
) -> StudyRecord:
    """The study as it stands now."""
    trials = []
    for trial in asked:
        stages = plan.chains[trial.number]
        first, second, third = (reader.read(stage) for stage in stages)
        state, reason = _outcome(first, second, third)
        trials.append(
            TrialRecord(
                trial.number,
                trial.params,
                resolve(config, trial.params),
                state,
                reason,
                (first, second, third),
            )
        )
    complete = [trial for trial in trials if trial.state == "complete"]
    best = front([trial.row() for trial in complete], config.search.objectives)
    return StudyRecord(
        name=config.study,
        uid=uid,
        config=config,
        goal=goal_of(config, asked),
        dense=reader.read(plan.dense),
        trials=trials,
        front=[complete[index].number for index in best],
    )


def _outcome(*stages: StageRecord) -> tuple[TrialState, str | None]:
    for stage in stages:
        if stage.state == "failed" and stage.failure:
            return "failed", f"{stage.kind}: {stage.failure['reason']}"
    return ("complete" if stages[-1].state == "done" else "running"), None
