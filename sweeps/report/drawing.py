"""What a figure of the report is made of, and how all of them look.

Figures carry no colours of text, paper or grid: the page's style sheet gives those, for light and dark.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from sweeps.report import wording
from sweeps.report.view import Shading


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
    """A question to the reader of which one option is taken; the first to begin with."""

    label: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class Plot:
    """One drawing; `views` has one for every combination of its figure's choices, options joined by "|"."""

    title: str
    alt: str
    views: dict[str, go.Figure]


@dataclass(frozen=True)
class Figure:
    """Plots under one caption, in columns that stand side by side where there is room."""

    name: str
    caption: str
    columns: tuple[tuple[Plot, ...], ...]
    choices: tuple[Choice, ...] = ()
    legend: tuple[Key, ...] = ()
    scale: Scale | None = None


def legend_of(shading: Shading) -> tuple[tuple[Key, ...], Scale | None]:
    if shading.is_scale:
        low, *_, high = shading.colours
        return (), Scale(shading.label(low), shading.label(high))
    return tuple(Key(shading.label(value), colour) for value, colour in shading.colours.items()), None


def axes(x_title: str, y_title: str, *, height: int) -> go.Figure:
    """Axes on a transparent ground; accuracies carry a percent sign on their ticks."""
    axis = {
        "showline": False,
        "zeroline": False,
        "automargin": True,
        "ticks": "",
        "title": {"standoff": 10, "font_size": 13},
    }
    figure = go.Figure()
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 10, "r": 24, "t": 16, "b": 10},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 13},
        hoverlabel={"align": "left"},
        showlegend=False,
        hovermode="closest",
        bargap=0,
        separators=".,",
    )
    figure.update_xaxes(**axis, title_text=x_title)
    figure.update_yaxes(**axis, title_text=y_title)
    if y_title.endswith("accuracy"):
        figure.update_yaxes(ticksuffix=" %")
    if x_title.startswith("epoch"):
        figure.update_xaxes(tickformat="d")
    return figure


def log_ticks(values: Sequence[float]) -> dict[str, Any]:
    """A range with a margin around `values` and round ticks inside: 10k, 20k, 50k, 100k."""
    if not values:
        return {}
    low, high = math.log10(min(values)), math.log10(max(values))
    margin = max(0.08 * (high - low), 0.05)
    digits = (1, 2, 5) if high - low < 1.7 else (1, 3) if high - low < 3 else (1,)
    ticks = [digit * 10.0**power for power in range(int(low) - 1, int(high) + 2) for digit in digits]
    return {
        "range": [low - margin, high + margin],
        "tickvals": ticks,
        "ticktext": [wording.short_count(tick) for tick in ticks],
        "tickangle": 0,
    }


def padded(values: Sequence[float]) -> list[float] | None:
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return None
    margin = max(0.05 * (max(finite) - min(finite)), 0.5)
    return [min(finite) - margin, max(finite) + margin]


def escaped(text: str) -> str:
    """Plotly reads tags in its texts; what comes from a config is not meant as tags."""
    return html.escape(text, quote=False)
