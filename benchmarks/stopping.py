"""Stopping trials early on recorded curves: epochs saved and hypervolume lost, by several rules."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from benchmarks import recorded
from benchmarks.recorded import EPOCHS, SPARSE_EPOCHS, Curve
from sweeps.pareto import hypervolume
from sweeps.stopping import Course, Yardstick

Rule = Callable[[Sequence[Curve]], list[int]]
"""The epochs of fine-tuning that each trial gets, in the order of the trials."""

TRIALS, ORDERS = 40, 20
OBJECTIVES = recorded.settings().search.objectives
COARSE = 4
NUMBERS = (0.0, 0.0005, 0.001, 0.002, 0.005)  # values of search.stopping


def main() -> None:
    """Print the table: each rule on the same trials in the same orders."""
    curves = recorded.load().curves
    orders = [random.Random(seed).sample(curves, TRIALS) for seed in range(ORDERS)]
    print(
        f"{TRIALS} of {len(curves)} recorded trials, in {ORDERS} random orders; {SPARSE_EPOCHS} epochs of "
        f"sparse training, which trials share, and {EPOCHS} of fine-tuning each\n"
    )
    print("| rule | fine-tuning saved | all epochs saved | hypervolume lost | at worst | trials stopped |")
    print("|---|---|---|---|---|---|")
    for name, rule in rules().items():
        found = [_outcome(order, rule(order)) for order in orders]
        tuning, everything, lost, stopped = (list(column) for column in zip(*found, strict=True))
        print(
            f"| {name} | {statistics.mean(tuning):.0%} | {statistics.mean(everything):.0%} "
            f"| {statistics.mean(lost):.2%} | {max(lost):.2%} | {statistics.mean(stopped):.0%} |"
        )


def rules() -> dict[str, Rule]:
    """The rules that are compared."""
    ours = {f"search.stopping: {number:g}": partial(cost_aware, number) for number in NUMBERS}
    coarse = f"search.stopping: 0.001, measured every {COARSE} epochs"
    ours[coarse] = partial(cost_aware, 0.001, every=COARSE)
    return {**ours, "MultiMetricPruner, median": pareto_rank_median, "MOASHA": moasha}


def cost_aware(stopping: float, trials: Sequence[Curve], ahead: int = 4, every: int = 1) -> list[int]:
    """The rule of `sweeps.stopping`, where a trial sees those up to its number less `ahead`."""
    search = recorded.settings(f"search.stopping={stopping}").search
    yardsticks, trained = [Yardstick(search)], []
    for number, curve in enumerate(trials):
        judge = yardsticks[max(0, number - ahead + 1)]
        trained.append(_epochs_until(judge, curve, every))
        after = yardsticks[-1]
        if trained[-1] == EPOCHS:
            after = after.with_trial(number, _facts(curve), recorded.load().dense, _course(curve))
        yardsticks.append(after)
    return trained


def _epochs_until(judge: Yardstick, curve: Curve, every: int) -> int:
    facts = {"params": curve.params, "macs": curve.macs}
    epochs = (epoch for epoch in range(0, EPOCHS, every) if judge.judge(facts, _course(curve), epoch))
    return next(epochs, EPOCHS)


def pareto_rank_median(trials: Sequence[Curve], startup: int = 5) -> list[int]:
    """OptunaHub's MultiMetricPruner around Optuna's MedianPruner, both with their defaults.

    All trials that have reported a step are ranked by Pareto dominance at that step; a trial is pruned if its
    best rank so far is worse than the median of the finished trials' ranks at this step.
    See https://hub.optuna.org/pruners/multi_metric_pruner (version for Optuna 4.8).
    """
    trained: list[int] = []
    for number, curve in enumerate(trials):
        best, stopped = float("inf"), EPOCHS
        for step in range(1, EPOCHS):
            others = [other for other, epochs in zip(trials, trained, strict=False) if epochs >= step]
            ranks = _pareto_ranks([_values(one, step) for one in (curve, *others)])
            best = min(best, ranks[0])
            if number >= startup and others and best > statistics.median(ranks[1:]):
                stopped = step
                break
        trained.append(stopped)
    return trained


def moasha(trials: Sequence[Curve], reduction: int = 3) -> list[int]:
    """Multi-objective ASHA (Schmucker et al., 2021, arXiv:2106.12639) with the defaults of Syne Tune.

    At the rungs 1, 3, … a trial goes on if it is among the best third of those that have reached the rung: by
    non-dominated sorting, and within a front by an epsilon net, which spreads.
    """
    rungs: dict[int, list[tuple[float, float]]] = {1: [], 3: []}
    trained = []
    for curve in trials:
        stopped = EPOCHS
        for rung, seen in rungs.items():
            seen.append(_values(curve, rung))
            order = _spread_sort(seen)
            if len(seen) > 1 and order.index(len(seen) - 1) / len(seen) > 1 / reduction:
                stopped = rung
                break
        trained.append(stopped)
    return trained


def _values(curve: Curve, epoch: int) -> tuple[float, float]:
    """What a trial reports after an epoch, both to be minimised."""
    return -curve.tuned[epoch - 1], float(curve.params)


def _pareto_ranks(values: Sequence[tuple[float, float]]) -> list[int]:
    """The front on which each point is, from 0."""
    ranks, left, rank = [0] * len(values), set(range(len(values))), 0
    while left:
        front = {one for one in left if not any(_dominates(values[other], values[one]) for other in left)}
        for one in front:
            ranks[one] = rank
        left -= front
        rank += 1
    return ranks


def _dominates(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return a != b and a[0] <= b[0] and a[1] <= b[1]


def _spread_sort(values: Sequence[tuple[float, float]]) -> list[int]:
    """Indices from best to worst: front by front, and in each the farthest from those before it first."""
    spans = [max(column) - min(column) or 1.0 for column in zip(*values, strict=True)]
    points = [tuple(value / span for value, span in zip(row, spans, strict=True)) for row in values]
    ranks, order = _pareto_ranks(values), []
    for rank in range(max(ranks) + 1):
        left = [index for index, own in enumerate(ranks) if own == rank]
        chosen = [min(left, key=lambda index: values[index])]
        while len(chosen) < len(left):
            rest = [index for index in left if index not in chosen]
            chosen.append(max(rest, key=lambda index: min(_distance(points, index, one) for one in chosen)))
        order += chosen
    return order


def _distance(points: Sequence[tuple[float, ...]], one: int, other: int) -> float:
    return sum((a - b) ** 2 for a, b in zip(points[one], points[other], strict=True))


def _outcome(trials: Sequence[Curve], trained: Sequence[int]) -> tuple[float, float, float, float]:
    """Fine-tuning epochs saved, all epochs saved, hypervolume lost, trials stopped; all as fractions."""
    sparse = SPARSE_EPOCHS * len({curve.strength for curve in trials})
    saved = EPOCHS * len(trials) - sum(trained)
    kept = [_facts(curve) for curve, epochs in zip(trials, trained, strict=True) if epochs == EPOCHS]
    every = volume([_facts(curve) for curve in trials])
    stopped = 1 - len(kept) / len(trials)
    tuning = EPOCHS * len(trials)
    return saved / tuning, saved / (tuning + sparse), 1 - volume(kept) / every, stopped


def volume(rows: Sequence[dict[str, Any]]) -> float:
    """The hypervolume, in parameters."""
    return hypervolume(rows, OBJECTIVES, {"val_accuracy": 0.0, "params": recorded.load().dense["params"]})


def _facts(curve: Curve) -> dict[str, Any]:
    return {"val_accuracy": curve.tuned[-1], "params": curve.params, "macs": curve.macs}


def _course(curve: Curve) -> Course:
    return Course(EPOCHS, dict(enumerate([curve.pruned, *curve.tuned])))
