"""The figure of how the front grew: its hypervolume over the trials, and over the epochs trained for them."""

from __future__ import annotations

from sweeps.growth import Step, growth
from sweeps.pareto import reference
from sweeps.report.drawing import Drawing, Figure, Plot, axes, axis, whole_axis
from sweeps.report.figures.marks import trial_id
from sweeps.report.figures.sparse import MOST_MARKERS
from sweeps.report.shading import RAMP
from sweeps.report.view import StudyView


def hypervolume_grows(view: StudyView) -> Figure | None:
    """Two lines: over trials and over epochs."""
    study = view.study
    objectives = study.config.search.objectives
    bound = reference(study.dense.metrics, objectives)
    steps = list(growth(study, (trial for trial in study.trials if trial.state != "running")))
    if bound is None or not study.complete or len(steps) < 2:
        return None
    over = (
        ("over trials", [step.trial.number + 1 for step in steps], "trials"),
        ("over epochs of training", [step.epochs for step in steps], "epochs trained so far"),
    )
    return Figure(
        "hypervolume",
        "The hypervolume says how much the front covers: the fraction of what a network of accuracy 1 and no "
        "cost would cover, counted from accuracy 0 at the dense network's cost. Where the line has long been "
        "level, more trials of this kind would bring little.",
        tuple(
            (Plot(title, f"Line of the hypervolume {title}", _line(xs, steps, name)),)
            for title, xs, name in over
        ),
    )


def _line(xs: list[int], steps: list[Step], name: str) -> Drawing:
    drawing = axes(
        whole_axis(name, xs[-1], range=[0, 1.03 * xs[-1]]),
        axis("hypervolume", rangemode="tozero"),
        height=300,
    )
    drawing["data"] = [
        {
            "type": "scatter",
            "x": xs,
            "y": [round(step.volume or 0.0, 5) for step in steps],
            "ids": [trial_id(step.trial) for step in steps],
            "mode": "lines" if len(xs) > MOST_MARKERS else "lines+markers",
            "line": {"shape": "hv", "color": RAMP[0], "width": 2},
            "marker": {"size": 4},
            "text": [f"trial {step.trial.number}" for step in steps],
            "hovertemplate": "after %{text}: %{y:.4f}<extra></extra>",
            "name": "hypervolume",
        }
    ]
    return drawing
