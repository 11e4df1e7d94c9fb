"""The report's figures of accuracy: over size, over epochs, and before and after fine-tuning.

Accuracies are drawn in percent.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from sweeps.report import view, wording
from sweeps.report.drawing import Choice, Figure, Key, Plot, axes, escaped, legend_of, log_ticks, padded
from sweeps.report.view import NEUTRAL, Shading, SparseRun
from sweeps.results import StudyRecord, TrialRecord

SPLITS = {"validation": "val_accuracy", "test": "test_accuracy", "training": "train_accuracy"}
SIZES = {"parameters": "params", "MACs": "macs"}
LABEL_GAP = "\N{NO-BREAK SPACE}" * 3  # between a point and the number on its left
MOST_MARKERS = 20  # of a line; a single point shows by its marker alone
MOST_LABELS = 15  # with more than these, trials are not numbered and ratios not ticked one by one


def pareto(study: StudyRecord, shading: Shading) -> Figure:
    """Accuracy over size: every finished trial, the front, the dense network."""
    sizes = dict(sorted(SIZES.items(), key=lambda item: item[1] not in study.config.search.objectives))
    accuracies = dict(itertools.islice(SPLITS.items(), 2))
    views = {
        f"{size}|{split}": _pareto_view(study, shading, (size, sizes[size]), (split, accuracies[split]))
        for size, split in itertools.product(sizes, accuracies)
    }
    legend, scale = legend_of(shading)
    diamond = " The diamond is the dense network; the dotted line lies one point below its accuracy."
    dense = diamond if study.dense.metrics else ""
    return Figure(
        "pareto",
        f"Each point is a trial, coloured by {view.path_name(shading.path)}: filled and with its number on "
        f"the front, hollow where another trial is better. Up and to the left is better.{dense}",
        (
            (
                Plot(
                    "", "Scatter plot of accuracy over network size, all trials, with the Pareto front", views
                ),
            ),
        ),
        (Choice("Size", tuple(sizes)), Choice("Accuracy", tuple(accuracies))),
        legend,
        scale,
    )


def _pareto_view(study: StudyRecord, shading: Shading, x: tuple[str, str], y: tuple[str, str]) -> go.Figure:
    front = [trial for trial in study.complete if trial.number in study.front]
    dense = study.dense.metrics
    values = [trial.metrics[x[1]] for trial in study.complete] + ([dense[x[1]]] if dense else [])
    figure = axes(f"{x[0]}, log scale", f"{y[0]} accuracy", height=480)
    figure.update_xaxes(type="log", **log_ticks(values))
    if set(study.config.search.objectives) == {x[1], y[1]}:
        figure.add_trace(_front_line(front, x[1], y[1]))
    for colour, label, trials in _by_colour(study.complete, shading):
        for on_front in (False, True):
            part = [trial for trial in trials if (trial.number in study.front) == on_front]
            if part:
                figure.add_trace(_points(part, x[1], y[1], colour, label, filled=on_front))
    if len(front) <= MOST_LABELS:
        figure.add_trace(_numbers(front, x[1], y[1]))
    if dense:
        figure.add_trace(_dense_point(dense, x[1], y[1]))
        figure.add_hline(100 * dense[y[1]] - 1, line={"dash": "dot", "width": 1, "color": NEUTRAL})
    return figure


def _front_line(front: Iterable[TrialRecord], x: str, y: str) -> go.Scatter:
    """The best accuracy at or below each size: a staircase that steps up at the front's networks."""
    ordered = sorted(front, key=lambda trial: float(trial.metrics[x]))
    return go.Scatter(
        x=[trial.metrics[x] for trial in ordered],
        y=[100 * trial.metrics[y] for trial in ordered],
        mode="lines",
        line={"shape": "hv", "color": NEUTRAL, "width": 1.5},
        hoverinfo="skip",
        name="front",
    )


def _points(
    trials: Sequence[TrialRecord], x: str, y: str, colour: str, group: str, *, filled: bool
) -> go.Scatter:
    return go.Scatter(
        x=[trial.metrics[x] for trial in trials],
        y=[100 * trial.metrics[y] for trial in trials],
        mode="markers",
        marker=_marker(colour, filled=filled),
        hovertext=[_facts(trial) for trial in trials],
        hoverinfo="text",
        name=escaped(group),
        legendgroup=group,
    )


def _numbers(front: Sequence[TrialRecord], x: str, y: str) -> go.Scatter:
    return go.Scatter(
        x=[trial.metrics[x] for trial in front],
        y=[100 * trial.metrics[y] for trial in front],
        mode="text",
        text=[f"{trial.number}{LABEL_GAP}" for trial in front],
        textposition="middle left",
        cliponaxis=False,
        hoverinfo="skip",
        name="trial numbers",
    )


def _dense_point(dense: Mapping[str, Any], x: str, y: str) -> go.Scatter:
    facts = ["<b>dense network</b>", *_outcome(dense)]
    return go.Scatter(
        x=[dense[x]],
        y=[100 * dense[y]],
        mode="markers+text",
        marker={"color": NEUTRAL, "size": 14, "symbol": "diamond"},
        text=["dense"],
        textposition="bottom center",
        cliponaxis=False,
        hovertext=["<br>".join(facts)],
        hoverinfo="text",
        name="dense",
    )


def sparse_training(study: StudyRecord, shading: Shading) -> Figure:
    """Accuracy over the epochs of every distinct sparse training, a plot per split."""
    runs = [run for run in view.sparse_runs(study, shading) if run.stage.history]
    shown = [100 * y for run in runs for metric in SPLITS.values() for _, y in view.curve(run.stage, metric)]
    last = max((row["epoch"] for run in runs for row in run.stage.history), default=1)
    columns = []
    for split in ("training", "validation", "test"):
        figure = axes("epoch of sparse training", "accuracy", height=300)
        figure.update_yaxes(range=padded(shown))
        figure.update_xaxes(range=[0, 1.03 * last])  # the same for all, wherever the first measurement is
        for run in runs:
            points = [(epoch, 100 * y) for epoch, y in view.curve(run.stage, SPLITS[split])]
            figure.add_trace(_sparse_curve(run, points, "%{y:.1f} %"))
        columns.append((Plot(f"{split} split", f"Line plot of {split} accuracy over epochs", {"": figure}),))
    few = len(runs) <= view.MOST_KEYS
    return Figure(
        "sparse",
        "A line per sparse training; trials that differ only in what comes later share one. A line that runs "
        "below the dense one shows what the penalty costs before anything is pruned.",
        tuple(columns),
        legend=tuple(Key(run.label, run.colour) for run in runs) if few else (),
        scale=None if few else legend_of(shading)[1],
    )


def steering(study: StudyRecord, shading: Shading) -> Figure:
    """Where λ changes from epoch to epoch: its path, and the share of γ near zero that it makes."""
    runs = steered_runs(study, shading)
    strengths = axes("epoch of sparse training", "λ, log scale", height=300)
    strengths.update_yaxes(type="log", tickformat="~g", dtick="D2")
    shares = axes("epoch of sparse training", "share of γ near zero", height=300)
    shares.update_yaxes(range=[-2, 102], ticksuffix=" %")
    for run in runs:
        path = [(epoch, strength or None) for epoch, strength in view.curve(run.stage, "lambda")]
        share = [(epoch, 100 * y) for epoch, y in view.curve(run.stage, "near_zero")]
        strengths.add_trace(_sparse_curve(run, path, "λ %{y:.3g}"))
        shares.add_trace(_sparse_curve(run, share, "%{y:.1f} %"))
    return Figure(
        "steering",
        "A line per sparse training whose λ changes: steered to a share of channels near zero, or on a "
        "schedule. Where λ is 0 it is not drawn.",
        (
            (Plot("λ", "Line plot of λ over epochs", {"": strengths}),),
            (Plot("near zero", "Line plot of the share of γ near zero over epochs", {"": shares}),),
        ),
        legend=tuple(Key(run.label, run.colour) for run in runs) if len(runs) <= view.MOST_KEYS else (),
    )


def steered_runs(study: StudyRecord, shading: Shading) -> list[SparseRun]:
    """The sparse trainings whose λ is not the same in every epoch."""
    return [
        run
        for run in view.sparse_runs(study, shading)
        if len({row.get("lambda") for row in run.stage.history}) > 1
    ]


def _sparse_curve(run: SparseRun, points: Sequence[tuple[int, float | None]], shown: str) -> go.Scatter:
    """A line over the epochs; `shown` is how plotly writes a value."""
    return go.Scatter(
        x=[epoch for epoch, _ in points],
        y=[value for _, value in points],
        mode="lines" if len(points) > MOST_MARKERS else "lines+markers",
        line={"color": run.colour, "width": 2, "dash": "solid" if run.searched else "dash"},
        marker={"size": 5},
        hovertemplate=f"{escaped(run.label)}<br>epoch %{{x}}: {shown}<extra></extra>",
        name=escaped(run.label),
        legendgroup=run.label,
    )


def before_and_after(study: StudyRecord, shading: Shading) -> Figure:
    """Each trial's accuracy right after pruning, joined to its accuracy after fine-tuning."""
    trials = [trial for trial in view.distinct_trials(study) if trial.stages[1].metrics]
    by_ratio = len({trial.config.prune.ratio for trial in trials}) > 1
    legend, scale = legend_of(shading)
    where = "over the pruning ratio" if by_ratio else "by trial"
    return Figure(
        "pruned",
        "Each trial is a pair of points: hollow right after pruning, before any fine-tuning, and filled "
        "after it. The line between them is what fine-tuning wins back; where it is short, sparse training "
        "had already emptied the channels that were removed.",
        (
            (
                Plot(
                    "",
                    f"Pairs of points {where}: accuracy right after pruning and after fine-tuning",
                    {
                        split: _pairs(study, trials, shading, split, by_ratio=by_ratio)
                        for split in ("validation", "test")
                    },
                ),
            ),
        ),
        (Choice("Accuracy", ("validation", "test")),),
        legend,
        scale,
    )


def _pairs(
    study: StudyRecord, trials: Sequence[TrialRecord], shading: Shading, split: str, *, by_ratio: bool
) -> go.Figure:
    metric = SPLITS[split]
    places = _places(trials, shading, by_ratio=by_ratio)
    figure = axes(
        "ratio: share of the prunable channels removed" if by_ratio else "trial",
        f"{split} accuracy",
        height=400,
    )
    ratios = sorted({trial.config.prune.ratio for trial in trials})
    if by_ratio and len(ratios) <= MOST_LABELS:
        figure.update_xaxes(tickvals=ratios, ticktext=[wording.plain(ratio) for ratio in ratios])
    if not by_ratio:
        figure.update_xaxes(range=[-0.5, trials[-1].number + 0.5], tickformat="d", nticks=len(trials) + 1)
    if study.dense.metrics:
        figure.add_hline(
            100 * study.dense.metrics[metric],
            line={"dash": "dot", "width": 1, "color": NEUTRAL},
            annotation={"text": "dense", "xanchor": "right"},
        )
    for colour, label, part in _by_colour(trials, shading):
        ends = [
            (
                places[t.number],
                100 * t.stages[1].metrics[metric],
                100 * t.metrics[metric] if t.metrics else None,
                t,
            )
            for t in part
        ]
        figure.add_trace(_joins(ends, colour, label))
        figure.add_trace(_ends([(x, before, t) for x, before, _, t in ends], colour, label, filled=False))
        figure.add_trace(
            _ends([(x, after, t) for x, _, after, t in ends if after is not None], colour, label, filled=True)
        )
    return figure


def _joins(
    ends: Iterable[tuple[float, float, float | None, TrialRecord]], colour: str, group: str
) -> go.Scatter:
    lines = [(x, before, after) for x, before, after, _ in ends if after is not None]
    return go.Scatter(
        x=[value for x, _, _ in lines for value in (x, x, None)],
        y=[value for _, before, after in lines for value in (before, after, None)],
        mode="lines",
        line={"color": colour, "width": 2},
        opacity=0.5,
        hoverinfo="skip",
        name="difference",
        legendgroup=group,
    )


def _ends(
    ends: Sequence[tuple[float, float, TrialRecord]], colour: str, group: str, *, filled: bool
) -> go.Scatter:
    moment = "after fine-tuning" if filled else "right after pruning"
    return go.Scatter(
        x=[x for x, _, _ in ends],
        y=[y for _, y, _ in ends],
        mode="markers",
        marker=_marker(colour, filled=filled),
        hovertext=[f"{moment}: {y:.1f} %<br>{_facts(trial)}" for _, y, trial in ends],
        hoverinfo="text",
        name=moment,
        legendgroup=group,
    )


def _places(trials: Sequence[TrialRecord], shading: Shading, *, by_ratio: bool) -> dict[int, float]:
    """Where each trial stands on the x axis: at its ratio, side by side with others of the same ratio."""
    if not by_ratio:
        return {trial.number: trial.number for trial in trials}
    colours = list(shading.colours.values())
    at: dict[float, list[TrialRecord]] = {}
    for trial in sorted(trials, key=lambda trial: colours.index(shading.colour(trial))):
        at.setdefault(trial.config.prune.ratio, []).append(trial)
    gap = min(high - low for low, high in itertools.pairwise(sorted(at)))
    step = 0.6 * gap / max(map(len, at.values()))
    return {
        trial.number: ratio + step * (index - (len(group) - 1) / 2)
        for ratio, group in at.items()
        for index, trial in enumerate(group)
    }


def fine_tuning(study: StudyRecord, shading: Shading) -> Figure:
    """Accuracy over the epochs of fine-tuning, from right after pruning; the trials of the front at first."""
    trials = [trial for trial in view.distinct_trials(study) if trial.stages[2].history]
    fronted = [trial for trial in trials if trial.number in study.front]
    some = fronted or trials
    numbered = len(some) <= MOST_LABELS
    views = {split: _fine_tuning_view(trials, shading, split, numbered=numbered) for split in SPLITS}
    return Figure(
        "finetune",
        "Epoch 0 is the network right after pruning. The trials of the front are shown, the others can be "
        "switched on in the legend. On the training split, accuracy is known from the first epoch on.",
        ((Plot("", "Line plot of accuracy over the epochs of fine-tuning, a line per trial", views),),),
        (Choice("Accuracy", tuple(SPLITS)),),
        tuple(Key(_trial_name(trial), shading.colour(trial), trial in some) for trial in trials),
    )


def _fine_tuning_view(
    trials: Sequence[TrialRecord], shading: Shading, split: str, *, numbered: bool
) -> go.Figure:
    figure = axes("epoch of fine-tuning", f"{split} accuracy", height=400)
    metric = SPLITS[split]
    last = max((row["epochs"] for trial in trials for row in trial.stages[2].history), default=1)
    figure.update_xaxes(range=[-0.12 * last, 1.02 * last])  # room for numbers on the left
    if last <= 12:
        figure.update_xaxes(tickvals=list(range(last + 1)))
    for trial in trials:
        start = [(0, trial.stages[1].metrics[metric])] if metric in trial.stages[1].metrics else []
        curve = start + view.curve(trial.stages[2], metric)
        name = _trial_name(trial)
        figure.add_trace(
            go.Scatter(
                x=[epoch for epoch, _ in curve],
                y=[100 * accuracy for _, accuracy in curve],
                mode="lines+markers+text",
                line={"color": shading.colour(trial), "width": 2},
                marker={"size": 5},
                text=[f"{trial.number}{LABEL_GAP}" if numbered else ""] + [""] * (len(curve) - 1),
                textposition="middle left",
                hovertemplate=f"{escaped(name)}<br>epoch %{{x}}: %{{y:.1f}} %<extra></extra>",
                name=escaped(name),
                legendgroup=name,
            )
        )
    return figure


def _marker(colour: str, *, filled: bool) -> dict[str, Any]:
    if filled:
        return {"color": colour, "size": 11, "symbol": "circle"}
    return {"color": colour, "size": 10, "symbol": "circle-open", "line": {"width": 2}}


def _trial_name(trial: TrialRecord) -> str:
    return f"{trial.number}: {view.describe(trial)}"


def _facts(trial: TrialRecord) -> str:
    """All that is known of a trial's outcome, for the text that appears under the pointer."""
    outcome = _outcome(trial.metrics) if trial.metrics else []
    return "<br>".join([f"<b>trial {trial.number}</b>", escaped(view.describe(trial)), *outcome])


def _outcome(metrics: Mapping[str, Any]) -> list[str]:
    val, test = (wording.percent(metrics[split]) for split in ("val_accuracy", "test_accuracy"))
    params, macs = wording.count(metrics["params"]), wording.count(metrics["macs"])
    return [f"{params} parameters, {macs} MACs", f"validation {val}, test {test}"]


def _by_colour(trials: Iterable[TrialRecord], shading: Shading) -> list[tuple[str, str, list[TrialRecord]]]:
    """Colour, legend entry and trials for every value that colours stand for."""
    trials = list(trials)
    groups = (
        (colour, shading.label(value), [t for t in trials if view.value_at(t, shading.path) == value])
        for value, colour in shading.colours.items()
    )
    return [group for group in groups if group[2]]
