"""The figure of how much each searched field matters."""

from __future__ import annotations

from sweeps.report.drawing import Figure, Plot, axes, axis, escaped
from sweeps.report.shading import NEUTRAL, RAMP
from sweeps.report.view import StudyView, path_name
from sweeps.report.wording import METRICS, count

FEWEST = 10  # complete trials
_TICKS = {"tickvals": [0, 0.5, 1], "ticktext": ["0", "50 %", "100 %"]}
ENOUGH = 50  # so that five of them are among the best tenth


def importance(view: StudyView) -> Figure | None:
    """Bars for every field that varies; None if there are too few trials or fields."""
    search = view.study.config.search
    complete = view.complete
    varying = [path for path in search.space if len({str(trial.params.get(path)) for trial in complete}) > 1]
    if len(complete) < FEWEST or len(varying) < 2:
        return None
    from sweeps.study.importance import importances  # Optuna takes a while to import

    rows = [(trial.params, [float(trial.metrics[name]) for name in search.objectives]) for trial in complete]
    found = importances(search.space, search.objectives, rows)
    columns = []
    for name, values in found.items():
        ordered = sorted((path for path in values if path in varying), key=lambda path: values[path])
        drawing = axes(
            axis("", range=[0, 1.02], tickangle=0, **_TICKS),
            axis("", showgrid=False),
            height=90 + 34 * len(ordered),
        )
        drawing["data"] = [
            {
                "type": "bar",
                "orientation": "h",
                "x": [round(values[path], 4) for path in ordered],
                "y": [escaped(path_name(path)) for path in ordered],
                "width": 0.6,
                "marker": {"color": RAMP[0] if name is None else NEUTRAL},
                "hovertemplate": "%{y}: %{x:.0%}<extra></extra>",
                "name": name or "front",
            }
        ]
        what = "for the front" if name is None else f"for {METRICS.get(name, name)}"
        columns.append((Plot(what, f"Bars of the importance of each searched field {what}", drawing),))
    few = (
        f" With {count(len(complete))} trials these are hints; from {ENOUGH} on, five are among the best."
        if len(complete) < ENOUGH
        else ""
    )
    return Figure(
        "importance",
        "How much each searched field decides whether a trial is among the best tenth: first of the front, "
        f"without preference for an objective, then in each objective alone (PED-ANOVA, from Optuna).{few}",
        tuple(columns),
    )
