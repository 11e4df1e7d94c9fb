"""The figure of each trial's accuracy right after pruning, joined to its accuracy after fine-tuning."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
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
    in_percent,
    legend_of,
    level_line,
    texts_of,
    whole_axis,
)
from sweeps.report.figures.marks import HELD_OUT, MOST_TICKS, ids_of, marker
from sweeps.report.shading import Shade, Shading
from sweeps.report.view import StudyView
from sweeps.report.wording import searched_value

_ACCURACY = 0  # the figure's choice


def before_and_after(view: StudyView, shading: Shading) -> Figure:
    """The pairs of all trials that have been pruned, over the ratio if it varies."""
    trials = [trial for trial in view.distinct if trial.last("prune").metrics]
    by_ratio = len({trial.ratio for trial in trials}) > 1
    legend, scale = legend_of(shading)
    where = "over the pruning ratio" if by_ratio else "by trial"
    last_pass = (
        " Of several passes the last is shown: its pruning, its fine-tuning." if view.passes > 1 else ""
    )
    return Figure(
        "pruned",
        "Each trial is a pair of points: hollow right after pruning, before any fine-tuning, and filled "
        "after it. The line between them is what fine-tuning recovers; where it is short, sparse training "
        f"had already silenced the channels that were removed.{last_pass}",
        (
            (
                Plot(
                    "",
                    f"Pairs of points {where}: accuracy right after pruning and after fine-tuning",
                    _drawing(view, trials, shading, by_ratio=by_ratio),
                ),
            ),
        ),
        (Choice("Accuracy", tuple(HELD_OUT)),),
        legend,
        scale,
    )


def _drawing(view: StudyView, trials: Sequence[TrialRecord], shading: Shading, *, by_ratio: bool) -> Drawing:
    titles = by_choice(_ACCURACY, {split: f"{split} accuracy" for split in HELD_OUT})
    x_axis = _ratio_axis(trials) if by_ratio else _number_axis(trials)
    drawing = axes(x_axis, accuracy_axis(titles), height=400)
    if dense := view.study.dense.metrics:
        level = {split: in_percent(dense[metric]) for split, metric in HELD_OUT.items()}
        level_line(drawing, by_choice(_ACCURACY, level), label="dense")
    places = _beside_each_other(trials, shading) if by_ratio else {t.number: float(t.number) for t in trials}
    drawing["data"] = [trace for shade in shading.shades(trials) for trace in _traces(shade, places)]
    return drawing


def _ratio_axis(trials: Sequence[TrialRecord]) -> dict[str, Any]:
    ratios = sorted({trial.ratio for trial in trials})
    gap = min(high - low for low, high in itertools.pairwise(ratios))
    even = gap * MOST_TICKS >= ratios[-1] - ratios[0]  # else their texts would overlap, or be the same
    ticks = {"tickvals": ratios, "ticktext": list(map(searched_value, ratios))} if even else {}
    return axis("ratio: fraction of the prunable channels removed", **ticks)


def _number_axis(trials: Sequence[TrialRecord]) -> dict[str, Any]:
    last = trials[-1].number
    return whole_axis("trial", last, range=[-0.5, last + 0.5])


def _beside_each_other(trials: Sequence[TrialRecord], shading: Shading) -> dict[int, float]:
    """The position of each trial on the x axis: at its ratio, next to others with the same ratio."""
    at: dict[float, list[TrialRecord]] = {}
    for shade in shading.shades(trials):
        for trial in shade.trials:
            at.setdefault(trial.ratio, []).append(trial)
    gap = min(high - low for low, high in itertools.pairwise(sorted(at)))
    step = 0.6 * gap / max(map(len, at.values()))
    return {
        trial.number: round(ratio + step * (index - (len(group) - 1) / 2), 6)
        for ratio, group in at.items()
        for index, trial in enumerate(group)
    }


def _traces(shade: Shade, places: dict[int, float]) -> list[Trace]:
    """The lines, the hollow points and the filled points of one colour."""
    tuned = [trial for trial in shade.trials if trial.metrics]
    joins = {
        "type": "scatter",
        "x": [x for trial in tuned for x in (places[trial.number], places[trial.number], None)],
        "y": by_choice(_ACCURACY, {split: _joins(tuned, metric) for split, metric in HELD_OUT.items()}),
        "mode": "lines",
        "line": {"color": shade.colour, "width": 2},
        "opacity": 0.5,
        "hoverinfo": "skip",
        "name": "difference",
        "legendgroup": shade.label,
    }
    return [joins, _ends(shade.trials, shade, places, filled=False), _ends(tuned, shade, places, filled=True)]


def _joins(tuned: Sequence[TrialRecord], metric: str) -> list[float | None]:
    return [
        y
        for trial in tuned
        for y in (in_percent(trial.last("prune").metrics[metric]), in_percent(trial.metrics[metric]), None)
    ]


def _ends(trials: Sequence[TrialRecord], shade: Shade, places: dict[int, float], *, filled: bool) -> Trace:
    moment = "after fine-tuning" if filled else "right after pruning"
    return {
        "type": "scatter",
        "x": [places[trial.number] for trial in trials],
        "y": _accuracies([trial.metrics if filled else trial.last("prune").metrics for trial in trials]),
        "mode": "markers",
        "marker": marker(shade.colour, filled=filled),
        "ids": ids_of(trials),
        "hovertext": texts_of(trials),
        "hovertemplate": f"{moment}: %{{y:.1f}} %<br>%{{hovertext}}<extra></extra>",
        "name": moment,
        "legendgroup": shade.label,
    }


def _accuracies(networks: Sequence[dict[str, Any]]) -> Any:
    """The accuracies of networks, for every choice of the split."""
    return by_choice(
        _ACCURACY,
        {split: [in_percent(network[metric]) for network in networks] for split, metric in HELD_OUT.items()},
    )
