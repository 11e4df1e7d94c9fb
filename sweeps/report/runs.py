"""The sparse training runs of a study: which are drawn, and what figures need of their histories."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sweeps.records import Row, StageRecord
from sweeps.report.shading import NEUTRAL, RAMP, Shading
from sweeps.report.view import LAMBDA, StudyView, stage_of_pass

Points = list[tuple[int, float]]
MOST_LAMBDAS = 4  # side by side


@dataclass(frozen=True)
class SparseRun:
    """One sparse training run, which several trials may share.

    Attributes:
        stage: its record.
        lambda_: its λ.
        label: what distinguishes it from the others of its pass.
        group: the entry of the study's legend that it belongs to; "" if its trials have different ones.
        colour: that of its trials, as #rrggbb.
        searched: False for a dense baseline that no trial uses.
    """

    stage: StageRecord
    lambda_: float
    label: str
    group: str
    colour: str
    searched: bool


@dataclass(frozen=True)
class Course:
    """A sparse training run and its history, without the histograms, which are long.

    Attributes:
        run: the training run.
        last_epoch: its last finished epoch.
        curves: (epoch, value) by metric, for the epochs in which it was measured.
        lambda_changes: whether λ is not the same in every epoch.
        has_histograms: whether its history holds histograms of γ.
    """

    run: SparseRun
    last_epoch: int
    curves: dict[str, Points]
    lambda_changes: bool
    has_histograms: bool


def sparse_runs(view: StudyView, shading: Shading, pass_number: int = 1) -> list[SparseRun]:
    """The distinct sparse training runs of a pass, by λ; those of the first include the dense baseline."""
    runs: dict[str, SparseRun] = {}
    first = pass_number == 1
    rank = {value: index for index, value in enumerate(shading.colours)}
    for trial in sorted(view.study.trials, key=lambda trial: rank[view.value(trial, shading.path)]):
        stage = stage_of_pass(trial, "sparse", pass_number)
        if stage is None or stage.key in runs:
            continue
        told_apart = shading.of_sparse_training or not first
        runs[stage.key] = SparseRun(
            stage,
            view.value(trial, LAMBDA),
            view.sparse_label(trial) if first else view.trial_label(trial),
            shading.label(view.value(trial, shading.path)) if told_apart else "",
            shading.colour(trial) if told_apart else RAMP[0],
            searched=True,
        )
    dense = view.study.dense
    if first and dense.key not in runs:
        runs[dense.key] = SparseRun(dense, 0.0, "dense, λ 0", "", NEUTRAL, searched=False)
    return sorted(runs.values(), key=lambda run: (run.lambda_, run.searched))


def read_courses(runs: Iterable[SparseRun]) -> list[Course]:
    """The courses of the training runs that have begun."""
    return [_course(run, history) for run in runs if (history := run.stage.history)]


def _course(run: SparseRun, history: Sequence[Row]) -> Course:
    metrics = ("train_accuracy", "val_accuracy", "test_accuracy", "lambda", "near_zero")
    return Course(
        run,
        history[-1]["epoch"],
        {metric: curve(history, metric) for metric in metrics},
        len({row.get("lambda") for row in history}) > 1,
        bool(with_histograms(history)),
    )


def curve(history: Iterable[Row], metric: str) -> Points:
    """(epoch, value) for each row with the metric; accuracies may not be measured in every epoch."""
    return [(row["epoch"], row[metric]) for row in history if metric in row]


def with_histograms(history: Iterable[Row]) -> list[Row]:
    """The rows of a history with a histogram of γ whose edges are finite; a diverged network's are not."""
    return [row for row in history if row.get("gamma") and _is_finite(row["gamma"])]


def _is_finite(histogram: dict[str, Any]) -> bool:
    return all(map(math.isfinite, histogram["edges"]))


def a_few_lambdas(courses: Sequence[Course], headline: str | None = None) -> list[SparseRun]:
    """The searched runs that have histograms of γ, by λ: all of up to four, else four of them.

    Args:
        courses: of all runs that are drawn.
        headline: the key of the sparse training that the headline's trial began with, which is always chosen.
    """
    seen = [course.run for course in courses if course.run.searched and course.has_histograms]
    by_lambda = {run.lambda_: run for run in reversed(seen)}
    by_lambda |= {run.lambda_: run for run in seen if run.stage.key == headline}
    found = sorted(by_lambda.values(), key=lambda run: run.lambda_) if len(by_lambda) > 1 else seen
    if len(found) <= MOST_LAMBDAS:
        return found
    named = next((index for index, run in enumerate(found) if run.stage.key == headline), len(found) // 3)
    others = [0, len(found) - 1, len(found) // 2, len(found) // 3, 2 * len(found) // 3]
    chosen = list(dict.fromkeys([named, *others]))[:MOST_LAMBDAS]
    return [found[index] for index in sorted(chosen)]
