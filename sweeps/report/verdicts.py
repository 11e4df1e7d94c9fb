"""What a comparison allows to be said, in words. Imports nothing that takes long."""

from __future__ import annotations

import math

from sweeps.comparison import Comparison, Difference, Measured
from sweeps.report.wording import UNKNOWN, percent, plural

SAME = "cannot be told apart"
_SPACE = "\N{NO-BREAK SPACE}"

NAMES = {
    "uniform": "a uniformly narrower network, trained from scratch",
    "scratch": "the pruned architecture, trained from scratch",
    "random": "random channels, as many in each layer, fine-tuned in the same way",
}
"""The controls, in words."""


def with_error(one: Measured, metric: str) -> str:
    """Mean and standard error of an accuracy: "84.1 ± 0.6 %"."""
    mean, error = one.mean(metric), one.standard_error(metric)
    if error is None:
        return percent(mean)
    return f"{100 * mean:.1f} ± {100 * error:.1f}{_SPACE}%"


def points(difference: Difference) -> str:
    """A difference with its 95 % interval: "+1.2 ± 0.9"; without where nothing is known of that."""
    if math.isinf(difference.margin):
        return f"{100 * difference.mean:+.1f}"
    return f"{100 * difference.mean:+.1f} ± {100 * difference.margin:.1f}"


def against(comparison: Comparison, control: Measured) -> str:
    """How the trial of a control stands against it: "pruned is better by 1.8 ± 0.9 points"."""
    trial = next((point for point in comparison.points if point.trial == control.trial), None)
    difference = comparison.difference(trial, control) if trial else None
    if difference is None:
        return UNKNOWN
    if difference.better or difference.worse:
        word = "better" if difference.better else "worse"
        return f"pruned is {word}: {points(difference)} points"
    return f"{SAME}: {points(difference)} points"


def beside_dense(difference: Difference) -> str:
    """How a network stands beside the dense one: "within one point of the dense network"."""
    if difference.better:
        return f"better than the dense network ({points(difference)} points)"
    if difference.within_a_point:
        return f"within one point of the dense network ({points(difference)} points)"
    if difference.worse:
        return f"worse than the dense network ({points(difference)} points)"
    return f"{SAME} from the dense network ({points(difference)} points)"


def seeds_and_epochs(one: Measured) -> str:
    """What an accuracy is of: "mean of 3 seeds, 25 epochs each"."""
    seeds, epochs = len(one.runs), plural(one.epochs, "epoch")
    return f"mean of {plural(seeds, 'seed')}, {epochs} each" if seeds > 1 else epochs
