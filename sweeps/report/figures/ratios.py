"""The figure of each sparse network's accuracy right after pruning, over the ratio."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sweeps.records import Row
from sweeps.report.drawing import (
    MOST_CURVES,
    Choice,
    Drawing,
    Figure,
    Plot,
    Trace,
    accuracy_axis,
    axes,
    axis,
    by_choice,
    escaped,
    in_percent,
    level_line,
    padded,
    spread,
)
from sweeps.report.figures.sparse import RunsLegend, legend_of_runs
from sweeps.report.runs import SparseRun, sparse_runs
from sweeps.report.shading import Shading
from sweeps.report.view import StudyView
from sweeps.report.wording import count

_WEIGHTS = 0  # the figure's choice
WAYS = ("copied", "absorbed", "recalibrated")


@dataclass(frozen=True)
class RatioCurve:
    """A sparse network pruned at one ratio after another.

    Attributes:
        run: the training run of the network.
        rows: as `slimnet.steps.prune_curve` returns them.
    """

    run: SparseRun
    rows: list[Row]


def ratio_curves(view: StudyView, shading: Shading) -> list[RatioCurve]:
    """The curves that have been computed, by λ."""
    curves = view.study.curves
    return [
        RatioCurve(run, curves[run.stage.key].metrics["curve"])
        for run in sparse_runs(view, shading)
        if run.stage.key in curves and curves[run.stage.key].metrics
    ]


def over_the_ratio(view: StudyView, shading: Shading, curves: Sequence[RatioCurve]) -> Figure:
    """A line per sparse network: accuracy over the ratio, before any fine-tuning."""
    drawn = spread(curves, MOST_CURVES)
    legend = legend_of_runs([curve.run for curve in drawn], shading)
    some = f" {len(drawn)} of {count(len(curves))} are drawn, chosen evenly over λ."
    first = " Of several passes the first is shown." if view.passes > 1 else ""
    alt = "Line plot of accuracy right after pruning over the pruning ratio, a line per sparse network"
    return Figure(
        "ratios",
        "A line per sparse network: its accuracy when a fraction of its channels is removed, without further "
        "training. Where a line is level, the removed channels were not needed; λ matters where the lines "
        "separate. Copied: the remaining weights are unchanged. Absorbed: the constant outputs of removed "
        "channels are folded into the following layers. Recalibrated: BatchNorm gets new statistics as "
        f"well.{some if len(drawn) < len(curves) else ''}{first}",
        ((Plot("", alt, _drawing(view, drawn, legend)),),),
        (Choice("Weights", WAYS),),
        legend.keys,
        legend.scale,
    )


def _drawing(view: StudyView, curves: Sequence[RatioCurve], legend: RunsLegend) -> Drawing:
    dense = view.study.dense.metrics
    shown = [100 * row[way] for curve in curves for row in curve.rows for way in WAYS]
    shown += [100 * dense["val_accuracy"]] if dense else []
    drawing = axes(
        axis("ratio: fraction of the prunable channels removed"),
        accuracy_axis("validation accuracy", range=padded(shown)),  # the same for every choice
        height=400,
    )
    if dense:
        level_line(drawing, in_percent(dense["val_accuracy"]), label="dense")
    drawing["data"] = [_line(curve, legend) for curve in curves]
    return drawing


def _line(curve: RatioCurve, legend: RunsLegend) -> Trace:
    name = escaped(curve.run.label)
    return {
        "type": "scatter",
        "x": [row["ratio"] for row in curve.rows],
        "y": by_choice(_WEIGHTS, {way: [in_percent(row[way]) for row in curve.rows] for way in WAYS}),
        "mode": "lines+markers",
        "line": {"color": curve.run.colour, "width": 2},
        "marker": {"size": 5},
        "customdata": [row["params"] for row in curve.rows],
        "hovertemplate": f"{name}<br>ratio %{{x}}, %{{customdata:,}} parameters: %{{y:.1f}} %<extra></extra>",
        "name": name,
        "legendgroup": legend.group(curve.run),
    }
