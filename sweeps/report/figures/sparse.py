"""The figures of sparse training: accuracy over its epochs, and λ where it changes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sweeps.report.drawing import (
    MOST_CURVES,
    Figure,
    Key,
    Plot,
    Scale,
    Trace,
    accuracy_axis,
    axes,
    axis,
    escaped,
    in_percent,
    legend_of,
    padded,
    spread,
    whole_axis,
)
from sweeps.report.figures.marks import SPLITS
from sweeps.report.runs import Course, SparseRun, read_courses, sparse_runs
from sweeps.report.shading import MOST_KEYS, Shading
from sweeps.report.view import StudyView
from sweeps.report.wording import count

_EPOCHS = "epoch of sparse training"
MOST_MARKERS = 20  # on a line; without markers, a single point would be invisible
Curve = Sequence[tuple[int, float | None]]


@dataclass(frozen=True)
class SparsePass:
    """The sparse training runs of one pass that are drawn.

    Attributes:
        number: the pass, from 1.
        passes: how many passes there are.
        begun: how many training runs have begun.
        courses: those of all of them, or of an even selection over λ.
    """

    number: int
    passes: int
    begun: int
    courses: list[Course]


def read_pass(view: StudyView, shading: Shading, number: int) -> SparsePass:
    """Read the histories of a pass, each once; of too many, an even selection and the headline's."""
    begun = [run for run in sparse_runs(view, shading, number) if run.stage.epochs_done]
    named = {stage.key for stage in view.best.stages} if view.best else set()
    fixed = [run for run in begun if run.stage.key in named]
    others = spread([run for run in begun if run.stage.key not in named], MOST_CURVES - len(fixed))
    drawn = {run.stage.key for run in (*fixed, *others)}
    return SparsePass(
        number, view.passes, len(begun), read_courses(run for run in begun if run.stage.key in drawn)
    )


def sparse_training(sparse: SparsePass, shading: Shading) -> Figure:
    """Accuracy over the epochs of every distinct sparse training run, with a plot for each split."""
    courses = sparse.courses
    shown = [100 * y for course in courses for metric in SPLITS.values() for _, y in course.curves[metric]]
    last = max(course.last_epoch for course in courses)
    legend = legend_of_runs([course.run for course in courses], shading)
    columns = []
    for split in ("training", "validation", "test"):
        drawing = axes(
            whole_axis(
                _EPOCHS, last, range=[0, 1.03 * last]
            ),  # the same, whatever the first measured epoch is
            accuracy_axis("accuracy", range=padded(shown)),
            height=300,
        )
        for course in courses:
            points = [(epoch, in_percent(y)) for epoch, y in course.curves[SPLITS[split]]]
            drawing["data"].append(_line(course.run, points, "%{y:.1f} %", legend))
        columns.append((Plot(f"{split} split", f"Line plot of {split} accuracy over epochs", drawing),))
    return Figure(
        _name("sparse", sparse), _caption(sparse), tuple(columns), legend=legend.keys, scale=legend.scale
    )


def steering(sparse: SparsePass, shading: Shading) -> Figure:
    """Where λ changes between epochs: its path, and the resulting fraction of γ near zero."""
    courses = changing(sparse)
    legend = legend_of_runs([course.run for course in courses], shading)
    last = max(course.last_epoch for course in courses)
    strengths = axes(
        whole_axis(_EPOCHS, last), axis("λ, log scale", type="log", tickformat="~g", dtick="D2"), height=300
    )
    fractions = axes(
        whole_axis(_EPOCHS, last),
        axis("fraction of γ near zero", range=[-2, 102], ticksuffix=" %"),
        height=300,
    )
    for course in courses:
        path = [(epoch, _on_log_scale(lambda_)) for epoch, lambda_ in course.curves["lambda"]]
        fraction = [(epoch, in_percent(y)) for epoch, y in course.curves["near_zero"]]
        strengths["data"].append(_line(course.run, path, "λ %{y:.3g}", legend))
        fractions["data"].append(_line(course.run, fraction, "%{y:.1f} %", legend))
    return Figure(
        _name("steering", sparse),
        f"{_of_pass(sparse)}A line per sparse training run whose λ changes: adjusted to reach a fraction of "
        "channels near zero, or on a schedule. Where λ is 0 it is not drawn.",
        (
            (Plot("λ", "Line plot of λ over epochs", strengths),),
            (Plot("near zero", "Line plot of the fraction of γ near zero over epochs", fractions),),
        ),
        legend=legend.keys,
        scale=legend.scale,
    )


def changing(sparse: SparsePass) -> list[Course]:
    """The sparse training runs whose λ is not the same in every epoch."""
    return [course for course in sparse.courses if course.lambda_changes]


def _name(figure: str, sparse: SparsePass) -> str:
    return figure if sparse.number == 1 else f"{figure}-pass-{sparse.number}"


def _of_pass(sparse: SparsePass) -> str:
    return f"Pass {sparse.number} of {sparse.passes}. " if sparse.passes > 1 else ""


def _caption(sparse: SparsePass) -> str:
    lines = (
        "A line per sparse training run; trials that differ only in later stages share one. A line that runs "
        "below the dense one shows what the penalty costs before anything is pruned."
        if sparse.number == 1
        else f"A line per trial: sparse training of the network that pass {sparse.number - 1} ended with."
    )
    drawn = len(sparse.courses)
    some = f" {drawn} of {count(sparse.begun)} are drawn, chosen evenly over λ."
    return f"{_of_pass(sparse)}{lines}{some if drawn < sparse.begun else ''}"


@dataclass(frozen=True)
class RunsLegend:
    """A list of the lines, or of the study's colours if there are too many lines."""

    keys: tuple[Key, ...]
    scale: Scale | None
    of_lines: bool

    def group(self, run: SparseRun) -> str:
        """The name of the key that shows and hides the line of a training run."""
        return run.label if self.of_lines else run.group


def legend_of_runs(runs: Sequence[SparseRun], shading: Shading) -> RunsLegend:
    """The legend of a figure with a line per sparse training run."""
    if len(runs) <= MOST_KEYS:
        return RunsLegend(tuple(Key(run.label, run.colour) for run in runs), None, of_lines=True)
    coloured = any(run.group for run in runs)
    return RunsLegend(*(legend_of(shading) if coloured else ((), None)), of_lines=False)


def _line(run: SparseRun, points: Curve, value_format: str, legend: RunsLegend) -> Trace:
    """A line over the epochs; `value_format` is how plotly writes a value."""
    return {
        "type": "scatter",
        "x": [epoch for epoch, _ in points],
        "y": [value for _, value in points],
        "mode": "lines" if len(points) > MOST_MARKERS else "lines+markers",
        "line": {"color": run.colour, "width": 2, "dash": "solid" if run.searched else "dash"},
        "marker": {"size": 5},
        "hovertemplate": f"{escaped(run.label)}<br>epoch %{{x}}: {value_format}<extra></extra>",
        "name": escaped(run.label),
        "legendgroup": legend.group(run),
    }


def _on_log_scale(lambda_: float) -> float | None:
    """None, which is not drawn, if it cannot be shown on a log scale."""
    return float(f"{lambda_:.4g}") if lambda_ and math.isfinite(lambda_) else None
