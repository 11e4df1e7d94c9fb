"""Comparisons in words, only as far as the numbers support them. Imports nothing slow."""

from __future__ import annotations

from slimnet.wording import plural
from sweeps.comparison import Comparison, Difference, Measured
from sweeps.report.wording import UNKNOWN, percent

SAME = "cannot be told apart"
_SPACE = "\N{NO-BREAK SPACE}"


def control_names(from_trained: bool = False) -> dict[str, str]:
    """The controls, in words, of a study that starts from new or from trained weights."""
    return {
        "uniform": f"a uniformly narrower network, {uniform_start(from_trained)}",
        "scratch": "the pruned architecture, trained from scratch",
        "random": "random channels, as many in each layer, fine-tuned in the same way",
    }


def uniform_start(from_trained: bool) -> str:
    """What uniform controls are trained from, in words."""
    return "cut from the same weights and trained" if from_trained else "trained from scratch"


def with_error(one: Measured, metric: str) -> str:
    """Mean and standard error of an accuracy: "84.1 ± 0.6 %"."""
    mean, error = one.mean(metric), one.standard_error(metric)
    if error is None:
        return percent(mean)
    return f"{100 * mean:.1f}{_SPACE}±{_SPACE}{100 * error:.1f}{_SPACE}%"


def points(difference: Difference) -> str:
    """A difference and its 95 % interval: "+1.2 points (95 %: +0.3 to +2.1)"."""
    mean, margin = 100 * difference.mean, 100 * difference.margin
    if not difference.sure:
        return f"{mean:+.1f} points with one seed"
    return f"{mean:+.1f} points (95{_SPACE}%: {mean - margin:+.1f} to {mean + margin:+.1f})"


def against(comparison: Comparison, control: Measured) -> str:
    """How a control's trial compares with it: "pruned is better: +1.8 points (95 %: +0.9 to +2.7)"."""
    trial = next((point for point in comparison.points if point.trial == control.trial), None)
    difference = comparison.difference(trial, control) if trial else None
    if difference is None:
        return UNKNOWN
    word = "pruned is better" if difference.better else "pruned is worse" if difference.worse else SAME
    return f"{word}: {points(difference)}" if difference.sure else points(difference)


def beside_dense(difference: Difference) -> str:
    """How a network compares with the dense one: "within one point of the dense network: +0.2 points …"."""
    if difference.better:
        words = "better than the dense network"
    elif difference.within_a_point:
        words = "within one point of the dense network"
    else:
        words = "worse than the dense network" if difference.worse else f"{SAME} from the dense network"
    return f"{words}: {points(difference)}"


def seeds_and_epochs(one: Measured) -> str:
    """The runs behind an accuracy: "mean of 3 seeds, 25 epochs each"."""
    seeds, epochs = len(one.runs), plural(one.epochs, "epoch")
    return f"mean of {plural(seeds, 'seed')}, {epochs} each" if seeds > 1 else epochs
