"""A study as the config of a W&B sweep. Imports neither wandb nor optuna."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from importlib import resources
from typing import Any

from slimnet.errors import SlimnetError
from sweeps.config import Config
from sweeps.config.space import By, Entry, Log, Range, entries_of

TRIAL = "wandb-trial"  # the command that agents run
ACCURACY = "val_accuracy"  # the objective that grows with the epochs, by which W&B may stop runs
_ETA = 3  # of the runs that are as far, hyperband lets the best third go on


def definition(config: Config, trial: Sequence[str], *, scheduled: bool) -> dict[str, Any]:
    """The config of a sweep whose agents run trials of a study.

    Args:
        config: the study's config.
        trial: the arguments of the command that runs a trial.
        scheduled: whether the points come from the study's own sampler, in `wandb sweep-scheduler`; else W&B
            chooses them.

    Raises:
        SlimnetError: W&B cannot choose points of this space.
    """
    search = config.search
    conditional = [path for path, entry in search.space.items() if isinstance(entry, By)]
    if conditional and not scheduled:
        raise SlimnetError(
            f"search.space.{conditional[0]} goes by another field, which W&B's own search does not know; "
            "use --scheduler, so that the sampler of this study chooses the points"
        )
    metrics = [{"name": name, "goal": goal} for name, goal in search.objectives.items()]
    own = {"metric": metrics[0]} if len(metrics) == 1 else {"metrics": metrics}
    chosen: dict[str, Any] = {"method": _method(config)}
    if scheduled:
        source = str(resources.files("sweeps.wandb_sweeps") / "scheduler.py")
        chosen["scheduler"] = {
            "engine": "optuna",
            "source": source,
            "optimizer": "make_study",
            "search_space": "search_space",
        }
    elif rule := _early_terminate(config):
        chosen["early_terminate"] = rule
    return {
        "name": config.study,
        "program": "sweeps",
        "command": [sys.executable, "-P", "-m", "sweeps", TRIAL, *trial],  # -P: not what lies where it is run
        **chosen,
        "run_cap": search.trials,
        **own,
        "parameters": {path: _parameter(config, path) for path in search.space},
    }


def _method(config: Config) -> str:
    """W&B's search that comes nearest to the study's: its bayesian one knows one objective."""
    if config.search.sampler == "grid":
        return "grid"
    return "bayes" if config.search.sampler != "random" and len(config.search.objectives) == 1 else "random"


def _early_terminate(config: Config) -> dict[str, Any] | None:
    """W&B's rule for stopping runs early, by their accuracy over the last fine-tuning.

    None where the config asks for no stopping, or W&B cannot judge: it knows one objective, and compares runs
    by how often they have measured it.
    """
    search, tuning = config.search, config.finetune
    measured = math.ceil(tuning.epochs / tuning.evaluate_every)
    uneven = {"finetune.epochs", "finetune.evaluate_every"} & search.space.keys()
    if search.stopping is None or list(search.objectives) != [ACCURACY] or measured < 2 or uneven:
        return None
    return {"type": "hyperband", "min_iter": max(1, measured // 4), "eta": _ETA}


def _parameter(config: Config, path: str) -> dict[str, Any]:
    """A searched field; one that goes by another, with the values of all cases."""
    values: list[Any] = []
    for entry in entries_of(config.search.space, path):
        listed = entry.values()
        if listed is None:
            return _continuous(entry)
        values += [value for value in listed if value not in values]
    return {"values": values}


def _continuous(entry: Entry) -> dict[str, Any]:
    assert isinstance(entry, Range | Log)  # choices are listed
    kind = "log_uniform_values" if isinstance(entry, Log) else "uniform"
    return {"distribution": kind, "min": entry.low, "max": entry.high}
