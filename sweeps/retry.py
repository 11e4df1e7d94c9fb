"""Takes failures back, so that the next run tries again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from slimnet.errors import SlimnetError
from sweeps.config import Config
from sweeps.snapshot import plan_stages
from sweeps.stages import Stage, Store
from sweeps.study import open_study, reopen_trials


def forget_failures(runs: Path, config: Config, numbers: Sequence[int]) -> list[int]:
    """Let failed trials run again under their own numbers, and the dense baseline if it has failed.

    Args:
        runs: holds the study, whose lock the caller has.
        config: of the study.
        numbers: failed trials; all of them if empty. Trials that failed with the same stage come along.

    Returns:
        The trials that will run again.

    Raises:
        SlimnetError: a number is not that of a failed trial.
    """
    folder, store = runs / config.study, Store(runs)
    study = open_study(folder, config)
    asked = study.trials()
    plan = plan_stages(config, asked, study.precision, study.data)
    told = {trial.number for trial in asked if trial.state == "failed"}
    broken = {number: _failed(store, stages) for number, stages in plan.chains.items()}
    failed = sorted(told | {number for number, stages in broken.items() if stages})
    for number in numbers:
        if number not in failed:
            listed = ", ".join(map(str, failed)) or "none"
            raise SlimnetError(f"trial {number} has not failed; failed trials: {listed}")
    stages = [stage for number in numbers or failed for stage in broken[number]] + _failed(
        store, [plan.dense]
    )
    keys = {stage.key for stage in stages}
    again = [n for n in failed if n in (numbers or failed) or keys & {stage.key for stage in broken[n]}]
    reopen_trials(folder, config, [number for number in again if number in told])
    store.clear(stages)
    return again


def _failed(store: Store, stages: Sequence[Stage]) -> list[Stage]:
    return [stage for stage in stages if store.state(stage) == "failed"]
