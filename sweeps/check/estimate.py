"""How long a sweep will take, from the seconds of its parts."""

from __future__ import annotations

import math

from slimnet.pruning.options import CURVE_BATCHES, CURVE_RATIOS
from sweeps.check.findings import Findings
from sweeps.config.sections import Recipe
from sweeps.state import State

PROCESS = 0.4  # seconds until a process of a stage has begun, as seen on two cores
LATENCY = 0.7  # seconds to measure that of a finished network


def seconds_of(state: State, findings: Findings) -> float:
    """Seconds until the sweep is done, on the workers of `findings`; at most, as trials share stages.

    Args:
        state: of the study, begun or not.
        findings: of the study's config.
    """
    config, times = state.config, findings.times
    left = state.epochs_ahead()
    narrow = state.narrow_epochs_ahead()
    whole, tuned = left["sparse"] + left["early"] - narrow, left["finetune"]
    long = config.sparse if config.sparse.epochs else config.finetune  # of a training in one go
    of_whole = _epoch(findings, long, times.step)
    of_narrow = _epoch(findings, long, times.pruned_step * long.batch_size / config.finetune.batch_size)
    of_tuned = _epoch(findings, config.finetune, times.pruned_step)
    training = whole * of_whole + narrow * of_narrow + tuned * of_tuned
    alone, sparse = narrow / config.most_epochs, whole / max(1, config.sparse.epochs)
    prunings = tuned / config.finetune.epochs
    data = findings.data
    pruning = prunings * (times.prune + (sum(data.validation) + sum(data.test)) * times.image)
    starts = (alone + sparse + 2 * prunings) * (PROCESS + times.start)
    latencies = (alone + prunings + 1) * (PROCESS + LATENCY)
    curves = config.curves * sparse * (PROCESS + len(CURVE_RATIOS) * _point(findings))
    return (training + pruning + starts + latencies + curves) / findings.workers


def _point(findings: Findings) -> float:
    """A point of a curve: pruned, recalibrated, and measured in three ways."""
    times = findings.times
    return times.prune + CURVE_BATCHES * times.step / 3 + 3 * sum(findings.data.validation) * times.image


def _epoch(findings: Findings, recipe: Recipe, step: float) -> float:
    data = findings.data
    measured = sum(data.validation) + sum(data.test)
    steps = math.ceil(sum(data.train) / recipe.batch_size)
    return steps * step + measured * findings.times.image / recipe.evaluate_every
