"""The figure of several studies' fronts: accuracy over size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sweeps.records import StudyRecord
from sweeps.report.drawing import (
    Choice,
    Drawing,
    Figure,
    Key,
    Plot,
    Trace,
    accuracy_axis,
    axes,
    axis,
    by_choice,
    escaped,
    log_ticks,
)
from sweeps.report.figures.front import ACCURACY, SIZE, known, places, staircase
from sweeps.report.figures.marks import HELD_OUT, MEASURED, SIZES, marker, result_lines
from sweeps.report.shading import NEUTRAL, ramp


def fronts(studies: Sequence[StudyRecord]) -> Figure:
    """The front of each study in a colour of its own, its other trials hollow."""
    networks = [trial.metrics for study in studies for trial in study.complete]
    sizes = {
        name: metric
        for name, metric in {**SIZES, **MEASURED}.items()
        if all(any(t.metrics.get(metric) is not None for t in study.complete) for study in studies)
    }
    shades = colours(studies)
    alt = "Scatter plot of accuracy over network size, the fronts of several studies"
    return Figure(
        "fronts",
        "A colour for each study: filled points and a line for its front, hollow ones for its other trials, "
        "a diamond for its dense network. Up and to the left is better.",
        ((Plot("", alt, _drawing(studies, networks, sizes or dict(SIZES), shades)),),),
        (Choice("Size", tuple(sizes or SIZES)), Choice("Accuracy", tuple(HELD_OUT))),
        tuple(Key(name, colour) for name, colour in shades.items()),
    )


def colours(studies: Sequence[StudyRecord]) -> dict[str, str]:
    """A colour for each study, by its name."""
    return {study.name: ramp(i / max(len(studies) - 1, 1)) for i, study in enumerate(studies)}


def _drawing(
    studies: Sequence[StudyRecord],
    networks: Sequence[Mapping[str, Any]],
    sizes: Mapping[str, str],
    shades: Mapping[str, str],
) -> Drawing:
    every = [*networks, *(study.dense.metrics for study in studies if study.dense.metrics)]
    size_axes = {
        size: axis(f"{size}, log scale", type="log", **log_ticks(known(every, metric)))
        for size, metric in sizes.items()
    }
    titles = {split: f"{split} accuracy" for split in HELD_OUT}
    drawing = axes(by_choice(SIZE, size_axes), accuracy_axis(by_choice(ACCURACY, titles)), height=480)
    drawing["data"] = [trace for study in studies for trace in _traces(study, sizes, shades[study.name])]
    return drawing


def _traces(study: StudyRecord, sizes: Mapping[str, str], colour: str) -> list[Trace]:
    front = [study.trials[number] for number in study.front]
    others = [trial for trial in study.complete if trial.number not in study.front]
    own = {"legendgroup": study.name, "name": escaped(study.name)}
    lines = [
        by_choice(SIZE, {size: by_choice(ACCURACY, {split: {**staircase(front, x, y, colour), **own}})})
        for size, x in sizes.items()
        for split, y in HELD_OUT.items()
        if set(study.config.search.objectives) == {x, y}
    ]
    points = [
        {
            "type": "scatter",
            **places([trial.metrics for trial in part], sizes),
            "mode": "markers",
            "marker": marker(colour, filled=filled),
            "opacity": 1 if filled else 0.5,
            "hovertext": [_text(study.name, f"trial {t.number}", t.metrics) for t in part],
            "hoverinfo": "text",
            **own,
        }
        for part, filled in ((others, False), (front, True))
        if part
    ]
    if study.dense.metrics:
        points.append(
            {
                "type": "scatter",
                **places([study.dense.metrics], sizes),
                "mode": "markers",
                "marker": {
                    "color": colour,
                    "size": 13,
                    "symbol": "diamond",
                    "line": {"width": 1, "color": NEUTRAL},
                },
                "hovertext": [_text(study.name, "dense network", study.dense.metrics)],
                "hoverinfo": "text",
                **own,
            }
        )
    return [*lines, *points]


def _text(study: str, name: str, metrics: Mapping[str, Any]) -> str:
    return "<br>".join([f"<b>{escaped(study)}, {name}</b>", *result_lines(metrics)])
