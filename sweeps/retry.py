"""Clears failures, so that the next run tries again."""

from __future__ import annotations

from collections.abc import Sequence

from slimnet.errors import SlimnetError
from sweeps.records import StudyRecord, TrialRecord
from sweeps.stages import Store


def forget_failures(store: Store, study: StudyRecord, numbers: Sequence[int]) -> list[int]:
    """Let failed trials run again, under the same numbers, and the baseline and curves if they failed.

    Args:
        store: holds the stages.
        study: the study, whose lock the caller must hold.
        numbers: failed trials; if empty, all of them and all failed controls and repeats. Trials that failed
            by the same stage run again as well.

    Returns:
        The trials that will run again.

    Raises:
        SlimnetError: a number is not that of a failed trial.
    """
    failed = {trial.number: trial for trial in study.trials if trial.state == "failed"}
    for number in numbers:
        if number not in failed:
            listed = ", ".join(map(str, failed)) or "none"
            raise SlimnetError(f"trial {number} has not failed; failed trials: {listed}")
    trials = (stage for number in numbers or failed for stage in failed[number].stages)
    contenders = (stage for contender in study.contenders for stage in contender.stages)
    others = (*study.curves.values(), *study.latencies.values())
    chosen = [study.dense, *trials, *others, *(() if numbers else contenders)]
    stages = {stage.key: stage for stage in chosen if stage.state == "failed"}
    for stage in stages.values():
        store.folder(stage).forget_failure()

    def again(trial: TrialRecord) -> bool:
        measurement = study.latencies.get(trial.stages[-1].key)
        return any(stage is not None and stage.key in stages for stage in (*trial.stages, measurement))

    return [number for number, trial in failed.items() if again(trial)]
