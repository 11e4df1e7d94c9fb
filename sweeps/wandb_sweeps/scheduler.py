"""The `scheduler.source` of a W&B sweep: points from the study's own sampler, for `wandb sweep-scheduler`.

W&B loads this file twice, once for each of the two functions that the sweep's config names, and keeps the
trials in memory: after a restart it tells the runs of the sweep again.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import optuna

from sweeps.config import load_config
from sweeps.study.sampling import Sampling
from sweeps.wandb_sweeps.definition import TRIAL

if TYPE_CHECKING:
    from wandb.sdk.sweeps.sweep_info import SweepInfo


def make_study(sweep: SweepInfo) -> optuna.Study:
    """The Optuna study that W&B asks for points, with the sampler, the seed and the goal of the config."""
    command = sweep.config["command"]
    name, *options = command[command.index(TRIAL) + 1 :]
    overrides = [value for option, value in pairwise(options) if option == "--set"]
    config = load_config(name, overrides)
    return Sampling(config.search, config.seed).as_study(config.search.trials)


def search_space(trial: optuna.Trial) -> dict[str, Any]:
    """The point of a trial, as the config's values by dotted path; W&B tries this on an empty study first."""
    draw = getattr(trial.study.sampler, "draw_point", None)
    return draw(trial) if draw else {}
