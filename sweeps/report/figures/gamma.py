"""The figure of the scaling factors: their distribution for a few λ, and how it developed."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

from sweeps.records import Row
from sweeps.report import wording
from sweeps.report.drawing import Figure, Plot, Trace, axes, axis, escaped, whole_axis
from sweeps.report.figures.sparse import SparsePass
from sweeps.report.runs import SparseRun, with_histograms
from sweeps.report.shading import NEUTRAL, rgb
from sweeps.report.view import StudyView

Edges = Sequence[float]
_BINS = 50  # if histograms have different bins


def scaling_factors(view: StudyView, sparse: SparsePass, chosen: Sequence[SparseRun]) -> Figure:
    """For a few λ the distribution of γ at the end of sparse training, and over its epochs."""
    rows = {run.stage.key: with_histograms(run.stage.history) for run in chosen}
    dense = rows.get(view.study.dense.key) or with_histograms(view.study.dense.history)
    edges = _common_edges([row["gamma"] for part in (*rows.values(), dense) for row in part])
    outline = _counts(dense[-1]["gamma"], edges) if dense else []
    top = max(max(_counts(row["gamma"], edges)) for part in (*rows.values(), dense) for row in part)
    columns = tuple(
        (
            _at_end(
                run,
                rows[run.stage.key][-1],
                [] if run.stage.key == view.study.dense.key else outline,
                edges,
                top,
            ),
            _over_epochs(run, rows[run.stage.key], edges),
        )
        for run in chosen
    )
    of_pass = f" Of {sparse.passes} passes the first is shown." if sparse.passes > 1 else ""
    named = "; the outline is the dense network, trained with λ = 0" if outline else ""
    return Figure(
        "gamma",
        f"Above: how many scaling factors have which value, counted on a log scale{named}. Below: the same "
        "over the epochs; a stronger colour means more. Sparse training drives the factors of channels that "
        f"can be removed to zero, and leaves the others away from it.{of_pass}",
        columns,
    )


def _at_end(run: SparseRun, last: Row, outline: Sequence[float], edges: Edges, top: float) -> Plot:
    drawing = axes(
        axis(_gamma_name(edges), range=[edges[0], edges[-1]]),
        axis(
            "scaling factors",
            type="log",
            range=[-0.2, round(math.log10(top * 1.5), 3)],
            dtick=1,
            tickformat=",d",
        ),
        height=260,
    )
    bars = {
        "type": "bar",
        "x": _middles(edges),
        "y": _counts(last["gamma"], edges),
        "width": [round(high - low, 6) for low, high in pairwise(edges)],
        "marker": {"color": run.colour, "line": {"width": 0}},
        "hovertemplate": "γ ≈ %{x:.3f}: %{y:.0f}<extra></extra>",
        "name": escaped(run.label),
    }
    drawing["data"] = [bars, *([_outline(outline, edges)] if outline else [])]
    state = "" if run.stage.state == "done" else f", epoch {last['epoch']} of {last['epochs']}"
    title = f"{run.label}{state}: {wording.percent(last['near_zero'])} below 0.01"
    return Plot(title, f"Histogram of the scaling factors, {title}", drawing)


def _outline(counts: Sequence[float], edges: Edges) -> Trace:
    return {
        "type": "scatter",
        "x": [round(edge, 6) for edge in edges],
        "y": [count or None for count in [*counts, counts[-1]]],
        "mode": "lines",
        "line": {"shape": "hv", "color": NEUTRAL, "width": 1.5, "dash": "2px,2px"},
        "hoverinfo": "skip",
        "name": "dense",
    }


def _over_epochs(run: SparseRun, rows: Sequence[Row], edges: Edges) -> Plot:
    by_bin = list(zip(*(_counts(row["gamma"], edges) for row in rows), strict=True))
    red, green, blue = rgb(run.colour)
    drawing = axes(
        whole_axis("epoch of sparse training", rows[-1]["epoch"], showgrid=False),
        axis(_gamma_name(edges), showgrid=False),
        height=260,
    )
    drawing["data"] = [
        {
            "type": "heatmap",
            "x": [row["epoch"] for row in rows],
            "y": _middles(edges),
            "z": [[round(math.log1p(count), 2) for count in counts] for counts in by_bin],
            "customdata": by_bin,
            "colorscale": [[0, f"rgba({red},{green},{blue},0)"], [1, f"rgba({red},{green},{blue},1)"]],
            "showscale": False,
            "hovertemplate": "epoch %{x}<br>γ ≈ %{y:.3f}: %{customdata:.0f}<extra></extra>",
            "name": escaped(run.label),
        }
    ]
    return Plot("over the epochs", f"Heat map of the scaling factors over the epochs, {run.label}", drawing)


def _common_edges(histograms: Sequence[Mapping[str, Any]]) -> Edges:
    """Common bin edges of several histograms: theirs if they agree, without empty bins at the end."""
    own = [histogram["edges"] for histogram in histograms]
    low = min(edges[0] for edges in own)
    high = max(map(_last_filled, histograms))
    if all(edges == own[0] for edges in own):
        return [*(edge for edge in own[0] if edge < high), high]
    return [low + (high - low) * index / _BINS for index in range(_BINS + 1)]


def _last_filled(histogram: Mapping[str, Any]) -> float:
    """The upper edge of the last bin that is not empty."""
    first, *uppers = histogram["edges"][1:]
    filled = (upper for upper, count in zip(uppers, histogram["counts"][1:], strict=True) if count)
    return float(max(filled, default=first))


def _counts(histogram: Mapping[str, Any], edges: Edges) -> list[int]:
    """A histogram's counts between other edges, as if spread evenly inside each bin, in whole numbers."""
    own, below = histogram["edges"], [0, *accumulate(histogram["counts"])]
    return [high - low for low, high in pairwise(round(_at(edge, own, below)) for edge in edges)]


def _at(x: float, xs: Sequence[float], ys: Sequence[float]) -> float:
    """The line through the points (xs, ys) at x, constant beyond its ends."""
    right = bisect_right(xs, x)
    if right in (0, len(xs)):
        return ys[min(right, len(ys) - 1)]
    low, high = xs[right - 1], xs[right]
    return ys[right - 1] + (ys[right] - ys[right - 1]) * (x - low) / (high - low)


def _middles(edges: Edges) -> list[float]:
    return [round((low + high) / 2, 6) for low, high in pairwise(edges)]


def _gamma_name(edges: Edges) -> str:
    return "scaling factor γ" if edges[0] < 0 else "scaling factor |γ|"
