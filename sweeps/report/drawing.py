"""The parts of the report's figures, and their common style.

A drawing is the input of plotly.js, {"data": [...], "layout": {...}}, as plain dictionaries, and "labels",
which the page places where they overlap nothing. The page fills in two kinds of placeholders, so that nothing
is stored twice: `by_choice` for what depends on the reader's choices, and `texts_of` for the texts of trials.

Drawings set no colours of text, background or grid: the page's style sheet does, for light and dark.
"""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from sweeps.records import TrialRecord
from sweeps.report import wording
from sweeps.report.shading import NEUTRAL, Shading

Drawing = dict[str, Any]
Trace = dict[str, Any]
Item = TypeVar("Item")

MOST_CURVES = 100  # in a figure; of more, an even selection is drawn


@dataclass(frozen=True)
class Key:
    """An entry of a legend, which shows and hides the traces of its name."""

    name: str
    colour: str
    shown: bool = True


@dataclass(frozen=True)
class Scale:
    """A legend for more values than can be listed: a strip of colours between two labels."""

    low: str
    high: str


@dataclass(frozen=True)
class Choice:
    """A choice that the reader has; the first option is selected at first."""

    label: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class Plot:
    """One drawing, with a title and a text for those who cannot see it."""

    title: str
    alt: str
    drawing: Drawing


@dataclass(frozen=True)
class Figure:
    """Plots with one caption, in columns that are side by side where there is room."""

    name: str
    caption: str
    columns: tuple[tuple[Plot, ...], ...]
    choices: tuple[Choice, ...] = ()
    legend: tuple[Key, ...] = ()
    scale: Scale | None = None


def by_choice(choice: int, options: Mapping[str, Any]) -> Any:
    """A placeholder for a part of a drawing that depends on the reader's choice.

    Args:
        choice: index of the choice in its figure.
        options: the part for each option; a trace that an option lacks is not drawn.
    """
    return {"choice": choice, "options": dict(options)}


def texts_of(trials: Iterable[TrialRecord]) -> Any:
    """A placeholder for the list of the texts of some trials."""
    return {"trials": [trial.number for trial in trials]}


def axes(x: Any, y: Any, *, height: int) -> Drawing:
    """Two axes on a transparent background, without traces; the height is in pixels."""
    return {
        "data": [],
        "layout": {
            "height": height,
            "margin": {"l": 10, "r": 24, "t": 16, "b": 10},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"family": "system-ui, sans-serif", "size": 13},
            "hoverlabel": {"align": "left"},
            "showlegend": False,
            "hovermode": "closest",
            "bargap": 0,
            "separators": ".,",
            "xaxis": x,
            "yaxis": y,
        },
        "labels": [],
    }


def axis(title: Any, **options: Any) -> dict[str, Any]:
    """An axis without an axis line; `options` are plotly's."""
    looks = {"showline": False, "zeroline": False, "automargin": True, "ticks": ""}
    return {**looks, "title": {"text": title, "standoff": 10, "font": {"size": 13}}, **options}


def accuracy_axis(title: Any, **options: Any) -> dict[str, Any]:
    """An axis of accuracies, with a percent sign on its ticks."""
    return axis(title, ticksuffix=" %", **options)


def whole_axis(title: str, last: float, **options: Any) -> dict[str, Any]:
    """An axis of whole numbers up to `last`, such as epochs: at most ten ticks, none between two numbers."""
    steps = (digit * 10**power for power in itertools.count() for digit in (1, 2, 5))
    step = next(step for step in steps if last / step <= 10)
    off = {"ticklabelstandoff": 6}  # its 0 from the lowest number of the other axis
    return axis(title, tickformat="d", tick0=0, dtick=step, **off, **options)


def add_label(
    drawing: Drawing, text: str, x: Any, y: Any, *, group: str = "", side: Literal["", "above", "below"] = ""
) -> None:
    """Add a label to a point of a drawing; it is hidden with the traces of its `group` in the legend.

    The page puts it close to the point, or a little away with a line to it. Where everything around is taken,
    it is left out; labels that are added first are placed first. With a `side`, there and nowhere else.
    """
    options = {name: value for name, value in (("group", group), ("side", side)) if value}
    drawing["labels"].append({"text": text, "x": x, "y": y, **options})


def level_line(drawing: Drawing, y: Any, *, label: str = "") -> None:
    """Add a horizontal dotted line to a drawing at y, with a label somewhere along it."""
    across = {"x0": 0, "x1": 1, "xref": "x domain", "y0": y, "y1": y, "yref": "y"}
    line = {"dash": "dot", "width": 1, "color": NEUTRAL}
    drawing["layout"]["shapes"] = [{"type": "line", **across, "line": line}]
    if label:
        drawing["labels"].append({"text": label, "y": y, "along": True})


def legend_of(shading: Shading) -> tuple[tuple[Key, ...], Scale | None]:
    """The legend of a study's colours: keys that switch them, or a scale if there are too many."""
    if shading.is_scale:
        low, *_, high = shading.colours
        return (), Scale(shading.label(low), shading.label(high))
    return tuple(Key(shading.label(value), colour) for value, colour in shading.colours.items()), None


def log_ticks(values: Sequence[float]) -> dict[str, Any]:
    """The range of a log axis, with a margin around `values`, and round ticks: 10k, 20k, 50k, 100k."""
    if not values:
        return {}
    low, high = math.log10(min(values)), math.log10(max(values))
    margin = max(0.08 * (high - low), 0.05)
    low, high = low - margin, high + margin
    ticks = _ticks_between(10**low, 10**high)
    return {
        "range": [round(low, 4), round(high, 4)],
        "tickvals": ticks,
        "ticktext": [wording.short_count(tick) for tick in ticks],
        "tickangle": 0,
    }


def _ticks_between(low: float, high: float) -> list[float]:
    """Round numbers for a log axis: four at least, and no more than can stand side by side."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        ticks = [float(f"{digit}e{power}") for power in powers for digit in digits]
        inside = [tick for tick in ticks if low <= tick <= high]
        if len(inside) >= 4:
            return inside
    size = 10.0 ** math.floor(math.log10(high - low))
    step = next(size * part for part in (2, 1, 0.5, 0.2, 0.1) if (high - low) / (size * part) >= 4)
    return [float(f"{step * k:.6g}") for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def padded(values: Sequence[float]) -> list[float] | None:
    """A range with a margin around the finite values; None if there are none."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return None
    margin = max(0.05 * (max(finite) - min(finite)), 0.5)
    return [round(min(finite) - margin, 2), round(max(finite) + margin, 2)]


def in_percent(fraction: float) -> float | None:
    """0.86912 -> 86.91; None, which plotly leaves out, if it is not finite."""
    return round(100 * fraction, 2) if math.isfinite(fraction) else None


def spread(items: Sequence[Item], most: int) -> list[Item]:
    """At most `most` of the items, evenly spaced from the first to the last."""
    if len(items) <= most or most < 2:
        return list(items[:most])
    return [items[round(index * (len(items) - 1) / (most - 1))] for index in range(most)]


def escaped(text: str) -> str:
    """Escape a text for plotly, which interprets tags: those in a config are not meant as such."""
    return html.escape(text, quote=False)
