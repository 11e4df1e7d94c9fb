"""The figure of the scaling factors: their distribution for three λ, and how it came about."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

from sweeps.report import view, wording
from sweeps.report.drawing import Figure, Plot, axes, escaped
from sweeps.report.view import NEUTRAL, Shading, SparseRun
from sweeps.results import StudyRecord

Edges = npt.NDArray[np.float64]


def scaling_factors(study: StudyRecord, shading: Shading) -> Figure:
    """For three λ the distribution of γ at the end of sparse training, and over its epochs."""
    runs = view.sparse_runs(study, shading)
    chosen = view.three_lambdas(runs)
    dense = next(
        (run for run in runs if run.stage.key == study.dense.key and view.histograms(run.stage)), None
    )
    rows = [row for run in [*chosen, *([dense] if dense else [])] for row in view.histograms(run.stage)]
    edges = _common_edges([row["gamma"] for row in rows])
    top = max((max(_counts(row["gamma"], edges)) for row in rows), default=1.0)
    columns = tuple(
        (_gamma_at_end(run, None if run is dense else dense, edges, top), _gamma_over_epochs(run, edges))
        for run in chosen
    )
    outline = "; the outline is the dense network, trained with λ = 0" if dense else ""
    return Figure(
        "gamma",
        f"Above: how many scaling factors have which value, counted on a log scale{outline}. Below: the same "
        "over the epochs, the stronger the colour the more. Sparse training draws the factors of channels "
        "that can go to zero, and keeps those that matter apart.",
        columns,
    )


def _gamma_at_end(run: SparseRun, dense: SparseRun | None, edges: Edges, top: float) -> Plot:
    last = view.histograms(run.stage)[-1]
    figure = axes(_gamma_name(edges), "scaling factors", height=260)
    figure.update_yaxes(type="log", range=[-0.2, math.log10(top * 1.5)], dtick=1, tickformat=",d")
    figure.update_xaxes(range=[edges[0], edges[-1]])
    figure.add_trace(
        go.Bar(
            x=_middles(edges),
            y=_counts(last["gamma"], edges),
            width=np.diff(edges).tolist(),
            marker={"color": run.colour, "line": {"width": 0}},
            hovertemplate="γ ≈ %{x:.3f}: %{y:.0f}<extra></extra>",
            name=escaped(run.label),
        )
    )
    if dense:
        figure.add_trace(_outline(_counts(view.histograms(dense.stage)[-1]["gamma"], edges), edges))
    state = "" if run.stage.state == "done" else f", epoch {last['epoch']} of {last['epochs']}"
    title = f"{run.label}{state}: {wording.percent(last['near_zero'])} below 0.01"
    return Plot(title, f"Histogram of the scaling factors, {title}", {"": figure})


def _outline(counts: Sequence[float], edges: Edges) -> go.Scatter:
    return go.Scatter(
        x=edges.tolist(),
        y=[count or None for count in [*counts, counts[-1]]],
        mode="lines",
        line={"shape": "hv", "color": NEUTRAL, "width": 1.5, "dash": "2px,2px"},
        hoverinfo="skip",
        name="dense",
    )


def _gamma_over_epochs(run: SparseRun, edges: Edges) -> Plot:
    rows = view.histograms(run.stage)
    counts = np.array([_counts(row["gamma"], edges) for row in rows]).T
    red, green, blue = view.rgb(run.colour)
    figure = axes("epoch of sparse training", _gamma_name(edges), height=260)
    figure.update_xaxes(showgrid=False)
    figure.update_yaxes(showgrid=False)
    figure.add_trace(
        go.Heatmap(
            x=[row["epoch"] for row in rows],
            y=_middles(edges),
            z=np.log1p(counts).tolist(),
            customdata=counts.tolist(),
            colorscale=[[0, f"rgba({red},{green},{blue},0)"], [1, f"rgba({red},{green},{blue},1)"]],
            showscale=False,
            hovertemplate="epoch %{x}<br>γ ≈ %{y:.3f}: %{customdata:.0f}<extra></extra>",
            name=escaped(run.label),
        )
    )
    return Plot(
        "over the epochs", f"Heat map of the scaling factors over the epochs, {run.label}", {"": figure}
    )


def _common_edges(histograms: Sequence[Mapping[str, Any]]) -> Edges:
    """Bin edges for all of several histograms: their own if they agree, without the empty bins at the end."""
    if not histograms:
        return np.array([0.0, 1.0])
    own = [np.asarray(histogram["edges"], dtype=float) for histogram in histograms]
    low = min(edges[0] for edges in own)
    high = max(
        edges[1:][np.asarray(histogram["counts"]) > 0].max(initial=edges[1])
        for edges, histogram in zip(own, histograms, strict=True)
    )
    if all(np.array_equal(edges, own[0]) for edges in own):
        return own[0][: int(np.searchsorted(own[0], high)) + 1]
    return np.linspace(low, high, 51)


def _counts(histogram: Mapping[str, Any], edges: Edges) -> list[float]:
    """A histogram's counts between other edges, as if they were spread evenly inside each of its own bins."""
    cumulated = np.concatenate([[0.0], np.cumsum(histogram["counts"])])
    counts: list[float] = np.diff(np.interp(edges, histogram["edges"], cumulated)).tolist()
    return counts


def _middles(edges: Edges) -> list[float]:
    middles: list[float] = ((edges[:-1] + edges[1:]) / 2).tolist()
    return middles


def _gamma_name(edges: Edges) -> str:
    return "scaling factor γ" if edges[0] < 0 else "scaling factor |γ|"
