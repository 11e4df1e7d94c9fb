"""The table of points of the front and their controls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sweeps.comparison import Comparison, Measured
from sweeps.report.blocks import Cell, Column, Paragraph, Row, Section, Table
from sweeps.report.verdicts import SAME, against, control_names, points, with_error
from sweeps.report.view import StudyView
from sweeps.report.wording import UNKNOWN, count, metric_value

_MEASURED = {"1 image": "latency_ms", "file": "file_bytes"}


def simpler_ways(view: StudyView) -> Section:
    """The dense network, the points with controls or repeats, and the controls of each."""
    comparison = view.comparison
    measured = _MEASURED if view.measured else {}
    rows = []
    if comparison.dense:
        rows.append(_row("dense", comparison.dense, measured, UNKNOWN, pinned=True))
    for point in comparison.points:
        controls = [one for one in comparison.controls.values() if one.trial == point.trial]
        if controls or len(point.runs) > 1:
            said = _beside_dense(comparison, point)
            rows.append(_row(f"trial {point.trial}", point, measured, said, pinned=False))
            rows += [
                _row(one.kind, one, measured, against(comparison, one), pinned=False) for one in controls
            ]
    if len(rows) < 2:
        return Section("beside", "Compared with simpler ways", ())
    table = _table(comparison, measured, rows)
    return Section("beside", "Compared with simpler ways", (_explanation(comparison), table))


def _explanation(comparison: Comparison) -> Paragraph:
    names = control_names(comparison.from_trained)
    what = "; ".join(f"{kind}: {words}" for kind, words in names.items() if comparison.of_kind(kind))
    named = (
        f"Points of the front compared with simpler ways to networks of their size ({what}). " if what else ""
    )
    return Paragraph(
        f"{named}Accuracies are means over seeds with their standard errors, which include the sampling of "
        "the split; each seed has another validation split. Differences are taken seed by seed and have a "
        f"95 % interval: where it contains zero, the two {SAME}. The points were chosen with the first seed, "
        "which favours them a little. Parameters and MACs are means; epochs are all that a network was "
        "trained for, including sparse training."
    )


def _table(comparison: Comparison, measured: Iterable[str], rows: list[Row]) -> Table:
    columns = (
        Column("network", text=True),
        *map(Column, ("parameters", "MACs", *measured, "epochs", "seeds", "validation", "test")),
        Column("comparison", text=True),
    )
    seeds = "one seed" if comparison.seeds < 2 else f"up to {comparison.seeds} seeds"
    return Table(f"The dense network, points of the front and their controls; {seeds}.", columns, tuple(rows))


def _row(name: str, one: Measured, measured: Mapping[str, str], verdict: str, *, pinned: bool) -> Row:
    cells = (
        Cell(name),
        *(Cell(count(one.size(metric)), one.size(metric)) for metric in ("params", "macs")),
        *(_measured_cell(metric, one.known(metric)) for metric in measured.values()),
        Cell(str(one.epochs), one.epochs),
        Cell(str(len(one.runs)), len(one.runs)),
        *(Cell(with_error(one, metric), one.mean(metric)) for metric in ("val_accuracy", "test_accuracy")),
        Cell(verdict),
    )
    return Row(cells, "a point of the front" if one.kind == "trial" else "", pinned=pinned)


def _measured_cell(metric: str, value: float | None) -> Cell:
    return Cell(UNKNOWN if value is None else metric_value(metric, value), value)


def _beside_dense(comparison: Comparison, point: Measured) -> str:
    difference = comparison.difference(point, comparison.dense) if comparison.dense else None
    return UNKNOWN if difference is None else f"against dense: {points(difference)}"
