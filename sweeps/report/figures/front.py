"""The figure of the Pareto front: accuracy over size of every finished trial."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sweeps.comparison import Comparison, Measured
from sweeps.records import TrialRecord
from sweeps.report.drawing import (
    Choice,
    Drawing,
    Figure,
    Plot,
    Trace,
    accuracy_axis,
    add_label,
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
from sweeps.report.figures.marks import (
    HELD_OUT,
    MEASURED,
    MOST_LABELS,
    SIZES,
    ids_of,
    marker,
    result_lines,
)
from sweeps.report.shading import NEUTRAL, Shading
from sweeps.report.verdicts import control_names, seeds_and_epochs, with_error
from sweeps.report.view import StudyView, path_name
from sweeps.report.wording import count

SIZE, ACCURACY = 0, 1  # the figure's choices
SYMBOLS = {"uniform": "square", "scratch": "triangle-up", "random": "x"}  # of the controls


def pareto(view: StudyView, shading: Shading) -> Figure:
    """Accuracy over size: every finished trial, the front, the dense network."""
    objectives = view.study.config.search.objectives
    found = {**SIZES, **(MEASURED if view.measured else {})}
    sizes = dict(sorted(found.items(), key=lambda item: item[1] not in objectives))
    legend, scale = legend_of(shading)
    diamond = " The diamond is the dense network; the dotted line lies one point below its accuracy."
    dense = diamond if view.study.dense.metrics else ""
    controls = [kind for kind in SYMBOLS if view.comparison.of_kind(kind)]
    dense += f" On the dotted lines: {_in_words(view, controls)}." if controls else ""
    if view.comparison.seeds > 1:
        dense += " Dashes with bars: means over seeds and their standard errors."
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


def _in_words(view: StudyView, controls: Iterable[str]) -> str:
    shapes = {"uniform": "squares", "scratch": "triangles", "random": "crosses"}
    names = control_names(view.comparison.from_trained)
    return ", ".join(f"{shapes[kind]} for {names[kind]}" for kind in controls)


def _drawing(view: StudyView, shading: Shading, sizes: Mapping[str, str]) -> Drawing:
    dense = view.study.dense.metrics
    comparison = view.comparison
    networks: list[Mapping[str, Any]] = [trial.metrics for trial in view.complete]
    networks += [dense] if dense else []
    networks += [run for one in comparison.controls.values() for run in one.runs.values()]
    front = [trial for trial in view.complete if trial.number in view.front]
    size_axes = {
        size: axis(f"{size}, log scale", type="log", **log_ticks(known(networks, metric)))
        for size, metric in sizes.items()
    }
    titles = {split: f"{split} accuracy" for split in HELD_OUT}
    drawing = axes(by_choice(SIZE, size_axes), accuracy_axis(by_choice(ACCURACY, titles)), height=480)
    drawing["data"] = [
        *_staircases(front, set(view.study.config.search.objectives), sizes),
        *_controls(comparison, sizes),
        *_points(view, shading, sizes),
        *_means(comparison, shading, view, sizes),
        *([_dense_point(dense, sizes)] if dense else []),
    ]
    if dense:
        below = {split: in_percent(dense[metric] - 0.01) for split, metric in HELD_OUT.items()}
        level_line(drawing, by_choice(ACCURACY, below))
        _label(drawing, "dense", dense, sizes)
    for trial in front if len(front) <= MOST_LABELS else ():
        _label(drawing, f"{trial.number}", trial.metrics, sizes)
    return drawing


def _label(drawing: Drawing, text: str, network: Mapping[str, Any], sizes: Mapping[str, str]) -> None:
    x = by_choice(SIZE, {size: network.get(metric) for size, metric in sizes.items()})
    y = by_choice(ACCURACY, {split: in_percent(network[metric]) for split, metric in HELD_OUT.items()})
    add_label(drawing, text, x, y)


def known(networks: Sequence[Mapping[str, Any]], metric: str) -> list[float]:
    """The values of a metric, of the networks that have it."""
    return [network[metric] for network in networks if network.get(metric) is not None]


def places(networks: Sequence[Mapping[str, Any]], sizes: Mapping[str, str]) -> dict[str, Any]:
    """The positions of networks, for every choice of the axes."""
    xs = {size: [network.get(metric) for network in networks] for size, metric in sizes.items()}
    ys = {split: [in_percent(network[metric]) for network in networks] for split, metric in HELD_OUT.items()}
    return {"x": by_choice(SIZE, xs), "y": by_choice(ACCURACY, ys)}


def _staircases(front: Sequence[TrialRecord], objectives: set[str], sizes: Mapping[str, str]) -> list[Trace]:
    """The best accuracy at or below each size, where the axes are the objectives."""
    return [
        by_choice(SIZE, {size: by_choice(ACCURACY, {split: staircase(front, x, y)})})
        for size, x in sizes.items()
        for split, y in HELD_OUT.items()
        if objectives == {x, y}
    ]


def staircase(front: Sequence[TrialRecord], x: str, y: str, colour: str = NEUTRAL) -> Trace:
    """The line along the points of a front; x and y are metrics."""
    ordered = sorted(front, key=lambda trial: float(trial.metrics[x]))
    return {
        "type": "scatter",
        "x": [trial.metrics[x] for trial in ordered],
        "y": [in_percent(trial.metrics[y]) for trial in ordered],
        "mode": "lines",
        "line": {"shape": "hv", "color": colour, "width": 1.5},
        "hoverinfo": "skip",
        "name": "front",
    }


def _points(view: StudyView, shading: Shading, sizes: Mapping[str, str]) -> list[Trace]:
    return [
        {
            "type": "scatter",
            **places([trial.metrics for trial in part], sizes),
            "mode": "markers",
            "marker": marker(shade.colour, filled=filled),
            "ids": ids_of(part),
            "hovertext": texts_of(part),
            "hoverinfo": "text",
            "name": escaped(shade.label),
            "legendgroup": shade.label,
        }
        for shade in shading.shades(view.complete)
        for filled in (False, True)
        if (part := [trial for trial in shade.trials if (trial.number in view.front) == filled])
    ]


def _controls(comparison: Comparison, sizes: Mapping[str, str]) -> list[Trace]:
    """The controls of each kind, joined by a line, with their standard errors."""
    return [
        {
            **_over_seeds(controls, sizes),
            "mode": "lines+markers",
            "line": {"color": NEUTRAL, "width": 1, "dash": "dot"},
            "marker": {"color": NEUTRAL, "size": 9, "symbol": symbol},
            "name": kind,
        }
        for kind, symbol in SYMBOLS.items()
        if (controls := comparison.of_kind(kind))
    ]


def _means(
    comparison: Comparison, shading: Shading, view: StudyView, sizes: Mapping[str, str]
) -> list[Trace]:
    """The means of points with several seeds, and of the dense network, with their standard errors."""
    traces = []
    for one in [*comparison.points, *([comparison.dense] if comparison.dense else [])]:
        if len(one.runs) < 2:
            continue
        colour = NEUTRAL if one.trial is None else shading.colour(view.study.trials[one.trial])
        bar = {"color": colour, "size": 13, "symbol": "line-ew-open", "line": {"width": 2}}
        traces.append({**_over_seeds([one], sizes), "mode": "markers", "marker": bar, "name": "means"})
    return traces


def _over_seeds(networks: Sequence[Measured], sizes: Mapping[str, str]) -> Trace:
    """The positions of means, and the bars of their standard errors, for every choice of the axes."""
    xs = {size: [_mean_size(one, metric) for one in networks] for size, metric in sizes.items()}
    ys = {split: [in_percent(one.mean(metric)) for one in networks] for split, metric in HELD_OUT.items()}
    errors = {
        split: [in_percent(one.standard_error(metric) or 0.0) for one in networks]
        for split, metric in HELD_OUT.items()
    }
    return {
        "type": "scatter",
        "x": by_choice(SIZE, xs),
        "y": by_choice(ACCURACY, ys),
        "error_y": {"array": by_choice(ACCURACY, errors), "thickness": 1, "width": 3, "color": NEUTRAL},
        "hovertext": [_text(one) for one in networks],
        "hoverinfo": "text",
    }


def _mean_size(one: Measured, metric: str) -> float | None:
    return one.known(metric) if metric in MEASURED.values() else one.size(metric)


def _text(one: Measured) -> str:
    """The text of a mean."""
    names = {"dense": "dense network", "trial": f"trial {one.trial}"}
    name = names.get(one.kind, f"{one.kind} control of trial {one.trial}")
    size = f"{count(one.size('params'))} parameters, {count(one.size('macs'))} MACs"
    split = ", ".join(f"{split} {with_error(one, metric)}" for split, metric in HELD_OUT.items())
    return "<br>".join([f"<b>{name}</b>", seeds_and_epochs(one), size, split])


def _dense_point(dense: Mapping[str, Any], sizes: Mapping[str, str]) -> Trace:
    return {
        "type": "scatter",
        **places([dense], sizes),
        "mode": "markers",
        "marker": {"color": NEUTRAL, "size": 14, "symbol": "diamond"},
        "hovertext": ["<br>".join(["<b>dense network</b>", *result_lines(dense)])],
        "hoverinfo": "text",
        "name": "dense",
    }
