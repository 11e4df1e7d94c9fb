"""The figure of the Pareto front: accuracy over size of every finished trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sweeps.records import TrialRecord
from sweeps.report.drawing import (
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
    legend_of,
    level_line,
    log_ticks,
    texts_of,
)
from sweeps.report.figures.marks import HELD_OUT, LABEL_GAP, MOST_LABELS, SIZES, marker, result_lines
from sweeps.report.shading import NEUTRAL, Shading
from sweeps.report.view import StudyView, path_name

_SIZE, _ACCURACY = 0, 1  # the figure's choices


def pareto(view: StudyView, shading: Shading) -> Figure:
    """Accuracy over size: every finished trial, the front, the dense network."""
    objectives = view.study.config.search.objectives
    sizes = dict(sorted(SIZES.items(), key=lambda item: item[1] not in objectives))
    legend, scale = legend_of(shading)
    diamond = " The diamond is the dense network; the dotted line lies one point below its accuracy."
    dense = diamond if view.study.dense.metrics else ""
    numbered = " and with its number" if len(view.front) <= MOST_LABELS else ""
    alt = "Scatter plot of accuracy over network size, all trials, with the Pareto front"
    return Figure(
        "pareto",
        f"Each point is a trial, coloured by {path_name(shading.path)}: filled{numbered} on "
        f"the front, hollow where another trial is better. Up and to the left is better.{dense}",
        ((Plot("", alt, _drawing(view, shading, sizes)),),),
        (Choice("Size", tuple(sizes)), Choice("Accuracy", tuple(HELD_OUT))),
        legend,
        scale,
    )


def _drawing(view: StudyView, shading: Shading, sizes: Mapping[str, str]) -> Drawing:
    dense = view.study.dense.metrics
    networks = [trial.metrics for trial in view.complete] + ([dense] if dense else [])
    front = [trial for trial in view.complete if trial.number in view.front]
    size_axes = {
        size: axis(f"{size}, log scale", type="log", **log_ticks([network[metric] for network in networks]))
        for size, metric in sizes.items()
    }
    titles = {split: f"{split} accuracy" for split in HELD_OUT}
    drawing = axes(by_choice(_SIZE, size_axes), accuracy_axis(by_choice(_ACCURACY, titles)), height=480)
    drawing["data"] = [
        *_staircases(front, set(view.study.config.search.objectives), sizes),
        *_points(view, shading, sizes),
        *([_numbers(front, sizes)] if len(front) <= MOST_LABELS else []),
        *([_dense_point(dense, sizes)] if dense else []),
    ]
    if dense:
        below = {split: in_percent(dense[metric] - 0.01) for split, metric in HELD_OUT.items()}
        level_line(drawing, by_choice(_ACCURACY, below))
    return drawing


def _places(networks: Sequence[Mapping[str, Any]], sizes: Mapping[str, str]) -> dict[str, Any]:
    """Where networks stand, for every choice of the axes."""
    xs = {size: [network[metric] for network in networks] for size, metric in sizes.items()}
    ys = {split: [in_percent(network[metric]) for network in networks] for split, metric in HELD_OUT.items()}
    return {"x": by_choice(_SIZE, xs), "y": by_choice(_ACCURACY, ys)}


def _staircases(front: Sequence[TrialRecord], objectives: set[str], sizes: Mapping[str, str]) -> list[Trace]:
    """The best accuracy at or below each size: steps at the front's networks, over the objectives only."""
    return [
        by_choice(_SIZE, {size: by_choice(_ACCURACY, {split: _staircase(front, x, y)})})
        for size, x in sizes.items()
        for split, y in HELD_OUT.items()
        if objectives == {x, y}
    ]


def _staircase(front: Sequence[TrialRecord], x: str, y: str) -> Trace:
    ordered = sorted(front, key=lambda trial: float(trial.metrics[x]))
    return {
        "type": "scatter",
        "x": [trial.metrics[x] for trial in ordered],
        "y": [in_percent(trial.metrics[y]) for trial in ordered],
        "mode": "lines",
        "line": {"shape": "hv", "color": NEUTRAL, "width": 1.5},
        "hoverinfo": "skip",
        "name": "front",
    }


def _points(view: StudyView, shading: Shading, sizes: Mapping[str, str]) -> list[Trace]:
    return [
        {
            "type": "scatter",
            **_places([trial.metrics for trial in part], sizes),
            "mode": "markers",
            "marker": marker(shade.colour, filled=filled),
            "hovertext": texts_of(part),
            "hoverinfo": "text",
            "name": escaped(shade.label),
            "legendgroup": shade.label,
        }
        for shade in shading.shades(view.complete)
        for filled in (False, True)
        if (part := [trial for trial in shade.trials if (trial.number in view.front) == filled])
    ]


def _numbers(front: Sequence[TrialRecord], sizes: Mapping[str, str]) -> Trace:
    return {
        "type": "scatter",
        **_places([trial.metrics for trial in front], sizes),
        "mode": "text",
        "text": [f"{trial.number}{LABEL_GAP}" for trial in front],
        "textposition": "middle left",
        "cliponaxis": False,
        "hoverinfo": "skip",
        "name": "trial numbers",
    }


def _dense_point(dense: Mapping[str, Any], sizes: Mapping[str, str]) -> Trace:
    return {
        "type": "scatter",
        **_places([dense], sizes),
        "mode": "markers+text",
        "marker": {"color": NEUTRAL, "size": 14, "symbol": "diamond"},
        "text": ["dense"],
        "textposition": "bottom center",
        "cliponaxis": False,
        "hovertext": ["<br>".join(["<b>dense network</b>", *result_lines(dense)])],
        "hoverinfo": "text",
        "name": "dense",
    }
