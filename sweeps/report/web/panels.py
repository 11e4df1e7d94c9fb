"""W&B's own panels for the figures of the report; they follow the runs while the sweep runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import wandb_workspaces.reports.v2 as wr
from wandb_workspaces.expr import And

from sweeps.report.drawing import Figure
from sweeps.report.runs import a_few_lambdas, read_courses, sparse_runs
from sweeps.report.shading import Shading
from sweeps.report.view import LAMBDA, RATIO, StudyView, path_name
from sweeps.report.web.runs import Runs
from sweeps.report.wording import METRICS
from sweeps.tracking.study_view import study_view
from sweeps.tracking.views import CURVE, Table

WIDE, HALF = 24, 12  # a grid has 24 columns
CURVES = ("train_accuracy", "val_accuracy", "test_accuracy")
PRUNED = "prune/test_accuracy"  # of the first pass; W&B keeps the last value of each metric in the summary


@dataclass(frozen=True)
class Grid:
    """Panels that show the same runs.

    Attributes:
        runs: which; they are listed below the panels if `listed`.
        panels: of W&B.
        listed: whether to list the runs.
    """

    runs: And
    panels: list[Any]
    listed: bool = False


@dataclass(frozen=True)
class _Shown:
    """A figure of a study.

    Attributes:
        view, shading: of the study.
        titles: what is said of each of its plots to those who cannot see it.
        stage_suffix: what the names of stages of its pass end in.
        runs: which runs are the study's.
    """

    view: StudyView
    shading: Shading
    titles: list[str]
    stage_suffix: str
    runs: Runs


def grids(view: StudyView, shading: Shading, runs: Runs, figure: Figure) -> list[Grid]:
    """The panels for a figure; none if W&B has no such panel."""
    name, _, pass_number = figure.name.partition("-pass-")
    titles = [plot.alt for column in figure.columns for plot in column]
    shown = _Shown(view, shading, titles, f"-{pass_number}" if pass_number else "", runs)
    return _FIGURES[name](shown) if name in _FIGURES else []


def tables(view: StudyView, runs: Runs) -> Grid:
    """The tables and charts in the run of the study but the chart of the front, which has its own place."""
    found = study_view(view.study).summary
    panels = [
        wr.WeavePanelSummaryTable(table_name=name, layout=_row(index, height=10))
        if isinstance(value, Table)
        else wr.MediaBrowser(media_keys=[name], num_columns=1, layout=_row(index, height=10))
        for index, (name, value) in enumerate(
            (name, value)
            for name, value in found.items()
            if name != "front_chart" and (isinstance(value, Table) or hasattr(value, "to_plotly_json"))
        )
    ]
    return Grid(runs.of("study"), panels)


def widths(view: StudyView, runs: Runs) -> Grid:
    """The channels of each layer, before and after, of the networks of the front."""
    front = [trial for trial in view.complete if trial.number in view.front]
    charts = wr.MediaBrowser(media_keys=["widths_chart"], num_columns=2, layout=_row(0, height=12))
    return Grid(runs.some(front), [charts])


def run_table(runs: Runs) -> Grid:
    """The table of the trials' runs, sized and measured right after pruning and at the end."""
    bars = wr.BarPlot(
        title=METRICS["test_accuracy"],
        metrics=[PRUNED, "test_accuracy"],
        layout=_row(0, height=8),
    )
    return Grid(runs.of("trial"), [bars], listed=True)


def columns(view: StudyView) -> list[str]:
    """The columns of the table of runs, as W&B addresses them."""
    searched = [_address(path) for path in view.paths]
    facts = ["params", "macs", PRUNED, "val_accuracy", "test_accuracy"]
    return ["run:displayName", *searched, *(f"summary:{name}" for name in facts)]


def _front(shown: _Shown) -> list[Grid]:
    """The chart with the line of the front and the controls; and all trials, each a link to its run."""
    chart = wr.MediaBrowser(media_keys=["front_chart"], num_columns=1, layout=_row(0, height=14))
    scatter = wr.ScatterPlot(
        title=shown.titles[0],
        x=wr.SummaryMetric("params"),
        y=wr.SummaryMetric("val_accuracy"),
        z=_value(LAMBDA),
        log_x=True,
        layout=_row(0, height=12),
    )
    return [Grid(shown.runs.of("study"), [chart]), Grid(shown.runs.of("trial"), [scatter])]


def _sparse(shown: _Shown) -> list[Grid]:
    lines = _lines(f"sparse{shown.stage_suffix}", CURVES, by_lambda=_by_lambda(shown.view))
    return [Grid(shown.runs.every(), lines)]


def _steering(shown: _Shown) -> list[Grid]:
    return [Grid(shown.runs.of("trial"), _lines(f"sparse{shown.stage_suffix}", ("lambda", "near_zero")))]


def _gamma(shown: _Shown) -> list[Grid]:
    """A histogram over the epochs for each of a few λ, each from one of the trials that share it."""
    view = shown.view
    courses = read_courses(sparse_runs(view, shown.shading))
    chosen = a_few_lambdas(courses, view.best.first("sparse").key if view.best else None)
    owners = {trial.first("sparse").key: trial for trial in reversed(view.study.trials)}
    return [Grid(shown.runs.some([owners[run.stage.key]]), [_histogram(run.label)]) for run in chosen]


def _histogram(label: str) -> Any:
    return wr.LinePlot(title=f"γ, {label}", x="sparse/epoch", y=["sparse/gamma"], layout=_row(0, height=8))


def _ratios(shown: _Shown) -> list[Grid]:
    """Accuracy over every ratio, right after pruning in three ways, of the networks of the front."""
    front = [trial for trial in shown.view.complete if trial.number in shown.view.front]
    table = wr.WeavePanelSummaryTable(table_name=CURVE, layout=_row(0, height=10))
    return [Grid(shown.runs.some(front), [table])]


def _pruned(shown: _Shown) -> list[Grid]:
    """Accuracy over the ratio, right after pruning and at the end."""
    moments = (("right after pruning", PRUNED), ("after fine-tuning", "test_accuracy"))
    panels = [
        wr.ScatterPlot(
            title=f"{METRICS['test_accuracy']} {moment}",
            x=_value(RATIO),
            y=wr.SummaryMetric(metric),
            z=_value(LAMBDA),
            range_y=(0, 1),
            layout=_half(index),
        )
        for index, (moment, metric) in enumerate(moments)
    ]
    return [Grid(shown.runs.of("trial"), panels)]


def _finetune(shown: _Shown) -> list[Grid]:
    return [Grid(shown.runs.of("trial"), _lines("finetune", CURVES))]


def _hypervolume(shown: _Shown) -> list[Grid]:
    axes = (("trial", "trial"), ("epochs", "epochs trained so far"))
    panels = [
        wr.LinePlot(
            title=title, x=x, y=["hypervolume"], title_x=name, title_y="hypervolume", layout=_half(index)
        )
        for index, (title, (x, name)) in enumerate(zip(shown.titles, axes, strict=True))
    ]
    return [Grid(shown.runs.of("study"), panels)]


def _parallel(shown: _Shown) -> list[Grid]:
    searched = [
        wr.ParallelCoordinatesPlotColumn(
            _value(path), display_name=path_name(path), log=path == LAMBDA or None
        )
        for path in shown.view.paths
    ]
    found = [
        wr.ParallelCoordinatesPlotColumn(wr.SummaryMetric(name), display_name=METRICS.get(name, name))
        for name in shown.view.study.config.search.objectives
    ]
    panel = wr.ParallelCoordinatesPlot(
        title=shown.titles[0], columns=[*searched, *found], layout=_row(0, height=10)
    )
    return [Grid(shown.runs.of("trial"), [panel])]


def _importance(shown: _Shown) -> list[Grid]:
    objectives = shown.view.study.config.search.objectives
    panels = [
        wr.ParameterImportancePlot(with_respect_to=name, layout=_half(index))
        for index, name in enumerate(objectives)
    ]
    return [Grid(shown.runs.of("trial"), panels)]


_FIGURES: dict[str, Callable[[_Shown], list[Grid]]] = {
    "pareto": _front,
    "sparse": _sparse,
    "steering": _steering,
    "gamma": _gamma,
    "ratios": _ratios,
    "pruned": _pruned,
    "finetune": _finetune,
    "hypervolume": _hypervolume,
    "parallel": _parallel,
    "importance": _importance,
}


def _lines(stage: str, metrics: tuple[str, ...], *, by_lambda: bool = False) -> list[Any]:
    """Metrics of a stage over its epochs; runs with the same λ as one line where `by_lambda`."""
    return [
        wr.LinePlot(
            title=f"{stage}: {METRICS.get(metric, metric.replace('_', ' '))}",
            x=f"{stage}/epoch",
            y=[f"{stage}/{metric}"],
            groupby=wr.Config(LAMBDA) if by_lambda else None,
            layout=wr.Layout(x=8 * index, y=0, w=8, h=8),
        )
        for index, metric in enumerate(metrics)
    ]


def _by_lambda(view: StudyView) -> bool:
    """Whether sparse training differs in λ alone, so that the runs with one λ have one and the same curve."""
    search = view.study.config.search.space
    return all(path == LAMBDA or path.partition(".")[0] in ("prune", "finetune") for path in search)


def _value(path: str) -> Any:
    """A searched field; λ and ratio as they came out, which may not be what was asked for."""
    own = {LAMBDA: "lambda", RATIO: "ratio"}
    return wr.SummaryMetric(own[path]) if path in own else wr.Config(path)


def _address(path: str) -> str:
    own = {LAMBDA: "summary:lambda", RATIO: "summary:ratio"}
    section, _, rest = path.partition(".")
    return own.get(path, f"config:{section}.value{f'.{rest}' if rest else ''}")


def _row(index: int, *, height: int) -> Any:
    return wr.Layout(x=0, y=height * index, w=WIDE, h=height)


def _half(index: int) -> Any:
    return wr.Layout(x=HALF * (index % 2), y=8 * (index // 2), w=HALF, h=8)
