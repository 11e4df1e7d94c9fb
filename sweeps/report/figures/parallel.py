"""The figure of every trial as a line across its searched values and its results."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sweeps.records import TrialRecord
from sweeps.report.drawing import (
    Drawing,
    Figure,
    Plot,
    Trace,
    add_label,
    axes,
    axis,
    escaped,
    legend_of,
    texts_of,
)
from sweeps.report.figures.marks import ids_of
from sweeps.report.shading import NEUTRAL, Shade, Shading
from sweeps.report.view import LAMBDA, StudyView, path_name
from sweeps.report.wording import METRICS, metric_value, searched_value


@dataclass(frozen=True)
class _Scale:
    """One axis: its name, where each trial crosses it from 0 to 1, and the texts at some heights."""

    name: str
    heights: dict[int, float]
    ticks: list[tuple[float, str]]


def parallel_coordinates(view: StudyView, shading: Shading) -> Figure | None:
    """A line per complete trial; None if nothing was searched or too little is complete."""
    trials = [trial for trial in view.distinct if trial.state == "complete"]
    searched = [path for path in view.paths if len({str(view.value(t, path)) for t in trials}) > 1]
    if len(trials) < 2 or not searched:
        return None
    metrics = dict.fromkeys([*view.study.config.search.objectives, "val_accuracy", "params"])
    scales = [_searched(view, trials, path) for path in searched]
    scales += [_measured(trials, str(metric)) for metric in reversed(metrics)]
    legend, scale = legend_of(shading)
    return Figure(
        "parallel",
        "A line per trial, from what was searched on the left to what came out on the right; those of the "
        "front are strong. A click on a line's point leads to its trial.",
        ((Plot("", "Parallel coordinates of all trials", _drawing(view, shading, trials, scales)),),),
        legend=legend,
        scale=scale,
    )


def _searched(view: StudyView, trials: Sequence[TrialRecord], path: str) -> _Scale:
    values = {trial.number: view.value(trial, path) for trial in trials}
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values.values()):
        log = path == LAMBDA and min(values.values()) > 0
        return _numeric(path_name(path), values, searched_value, log=log)
    ordered = sorted({str(value) for value in values.values()})
    at = {text: index / max(len(ordered) - 1, 1) for index, text in enumerate(ordered)}
    heights = {number: at[str(value)] for number, value in values.items()}
    return _Scale(path_name(path), heights, [(height, text) for text, height in at.items()])


def _measured(trials: Sequence[TrialRecord], metric: str) -> _Scale:
    values = {trial.number: float(trial.metrics[metric]) for trial in trials}
    log = metric != "val_accuracy" and min(values.values()) > 0
    return _numeric(METRICS.get(metric, metric), values, lambda value: metric_value(metric, value), log=log)


def _numeric(name: str, values: dict[int, Any], said: Any, *, log: bool) -> _Scale:
    places = {number: math.log(value) if log else float(value) for number, value in values.items()}
    low, high = min(places.values()), max(places.values())
    heights = {
        number: round((place - low) / (high - low), 4) if high > low else 0.5
        for number, place in places.items()
    }
    ends = (min(values.values()), max(values.values()))
    return _Scale(name, heights, [(0.0, said(ends[0])), (1.0, said(ends[1]))])


def _drawing(
    view: StudyView, shading: Shading, trials: Sequence[TrialRecord], scales: Sequence[_Scale]
) -> Drawing:
    names = {
        "tickvals": list(range(len(scales))),
        "ticktext": [escaped(scale.name) for scale in scales],
        "autotickangles": [0, -60],  # where there is little room, to the left: the last name is long
    }
    drawing = axes(
        axis("", range=[-0.4, len(scales) - 0.6], showgrid=False, **names),
        axis("", range=[-0.1, 1.1], showgrid=False, showticklabels=False),
        height=420,
    )
    line = {"width": 1, "color": NEUTRAL}
    drawing["layout"]["shapes"] = [
        {"type": "line", "layer": "below", "x0": x, "x1": x, "y0": 0, "y1": 1, "line": line}
        for x in range(len(scales))
    ]
    drawing["data"] = [
        _lines(shade, part, scales, strong=strong)
        for strong in (False, True)
        for shade in shading.shades(trials)
        if (part := [trial for trial in shade.trials if (trial.number in view.front) == strong])
    ]
    for x, scale in enumerate(scales):
        for height, text in scale.ticks:
            side: Literal["", "above", "below"] = "below" if height == 0 else "above" if height == 1 else ""
            add_label(drawing, text, x, height, side=side)
    return drawing


def _lines(shade: Shade, trials: Sequence[TrialRecord], scales: Sequence[_Scale], *, strong: bool) -> Trace:
    """The lines of one colour, with a gap after each."""
    points = [trial for trial in trials for _ in range(len(scales) + 1)]
    return {
        "type": "scatter",
        "x": [x for _ in trials for x in (*range(len(scales)), None)],
        "y": [y for trial in trials for y in (*(scale.heights[trial.number] for scale in scales), None)],
        "mode": "lines+markers" if strong else "lines",
        "line": {"color": shade.colour, "width": 2 if strong else 1},
        "marker": {"size": 5},
        "opacity": 1 if strong else 0.35,
        "customdata": ids_of(points),  # as ids they would have to differ
        "hovertext": texts_of(points),
        "hoverinfo": "text",
        "name": escaped(shade.label),
        "legendgroup": shade.label,
    }
