"""The figure of how the front grew: its hypervolume over the trials, and over the epochs trained for them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sweeps.pareto import Front, hypervolume, reference
from sweeps.records import StudyRecord
from sweeps.report.drawing import Drawing, Figure, Plot, axes, axis, whole_axis
from sweeps.report.figures.marks import trial_id
from sweeps.report.figures.sparse import MOST_MARKERS
from sweeps.report.shading import RAMP
from sweeps.report.view import StudyView


@dataclass(frozen=True)
class Growth:
    """The front after each complete trial, in the order of their numbers.

    Attributes:
        trials: their numbers.
        epochs: trained so far, those of the dense network too; stages that trials share count once.
        volumes: the hypervolume, as a fraction of that of a perfect network without any cost.
    """

    trials: list[int]
    epochs: list[int]
    volumes: list[float]


def growth(study: StudyRecord) -> Growth | None:
    """How the front grew; None as long as there is no dense network to compare with, or no trial."""
    search = study.config.search
    objectives = {str(name): direction for name, direction in search.objectives.items()}
    bound = reference(study.dense.metrics, objectives)
    allowed = [trial for trial in study.trials if trial.state != "running"]
    if bound is None or not study.complete:
        return None
    whole = math.prod(
        1.0 if direction == "maximize" else bound[name] for name, direction in objectives.items()
    )
    front, counted, found, volume = Front(objectives), {study.dense.key}, Growth([], [], []), 0.0
    epochs = study.dense.epochs_done
    for trial in allowed:
        epochs += sum(stage.epochs_done for stage in trial.stages if stage.key not in counted)
        counted |= {stage.key for stage in trial.stages}
        counts = trial.state == "complete" and search.allows(trial.metrics)
        if counts and front.add(trial.number, trial.metrics):
            rows = [study.trials[number].metrics for number in front.numbers()]
            volume = hypervolume(rows, objectives, bound) / whole
        found.trials.append(trial.number)
        found.epochs.append(epochs)
        found.volumes.append(round(volume, 5))
    return found


def hypervolume_grows(view: StudyView) -> Figure | None:
    """Two lines: over trials and over epochs."""
    found = growth(view.study)
    if found is None or len(found.trials) < 2:
        return None
    ids = [trial_id(view.study.trials[number]) for number in found.trials]
    over = (
        ("over trials", [number + 1 for number in found.trials], "trials"),
        ("over epochs of training", found.epochs, "epochs trained so far"),
    )
    return Figure(
        "hypervolume",
        "The hypervolume says how much the front covers: the fraction of what a network of accuracy 1 and no "
        "cost would cover, counted from accuracy 0 at the dense network's cost. Where the line has long been "
        "level, more trials of this kind would bring little.",
        tuple(
            (Plot(title, f"Line of the hypervolume {title}", _line(xs, found, ids, name)),)
            for title, xs, name in over
        ),
    )


def _line(xs: list[int], found: Growth, ids: list[str], name: str) -> Drawing:
    drawing = axes(
        whole_axis(name, xs[-1], range=[0, 1.03 * xs[-1]]),
        axis("hypervolume", rangemode="tozero"),
        height=300,
    )
    drawing["data"] = [
        {
            "type": "scatter",
            "x": xs,
            "y": found.volumes,
            "ids": ids,
            "mode": "lines" if len(xs) > MOST_MARKERS else "lines+markers",
            "line": {"shape": "hv", "color": RAMP[0], "width": 2},
            "marker": {"size": 4},
            "text": [f"trial {number}" for number in found.trials],
            "hovertemplate": "after %{text}: %{y:.4f}<extra></extra>",
            "name": "hypervolume",
        }
    ]
    return drawing
