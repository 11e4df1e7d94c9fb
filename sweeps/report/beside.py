"""The table of the simpler ways: each closely looked at point of the front, beside its controls."""

from __future__ import annotations

from sweeps.comparison import Comparison, Measured
from sweeps.report.blocks import Cell, Column, Paragraph, Row, Section, Table
from sweeps.report.verdicts import NAMES, SAME, against, points, with_error
from sweeps.report.view import StudyView
from sweeps.report.wording import UNKNOWN, count

_COLUMNS = (
    Column("network", text=True),
    *map(Column, ("parameters", "MACs", "epochs", "seeds", "validation", "test")),
    Column("beside it", text=True),
)


def simpler_ways(view: StudyView) -> Section:
    """The dense network, the points that were looked at closely, and the controls of each."""
    comparison = view.comparison
    rows = []
    if comparison.dense:
        rows.append(_row("dense", comparison.dense, UNKNOWN, pinned=True))
    for point in comparison.points:
        controls = [one for one in comparison.controls.values() if one.trial == point.trial]
        if controls or len(point.runs) > 1:
            rows.append(_row(f"trial {point.trial}", point, _beside_dense(comparison, point), pinned=False))
            rows += [_row(one.kind, one, against(comparison, one), pinned=False) for one in controls]
    if len(rows) < 2:
        return Section("beside", "Beside the simpler ways", ())
    return Section("beside", "Beside the simpler ways", (_explanation(comparison), _table(comparison, rows)))


def _explanation(comparison: Comparison) -> Paragraph:
    kinds = [kind for kind in NAMES if comparison.of_kind(kind)]
    what = "; ".join(f"{kind}: {NAMES[kind]}" for kind in kinds)
    named = f"Points of the front beside simpler ways to networks of their size ({what}). " if what else ""
    return Paragraph(
        f"{named}Accuracies are means over seeds with their standard errors, those of the split "
        "included; every seed has a validation split of its own. Differences are taken seed by seed and "
        f"have a 95 % interval: where it holds zero, the two {SAME}. The first seed chose the points, "
        "which favours them a little. Of parameters and MACs the means are told, and epochs are all that "
        "a network has had, those of sparse training included."
    )


def _table(comparison: Comparison, rows: list[Row]) -> Table:
    seeds = "one seed" if comparison.seeds < 2 else f"up to {comparison.seeds} seeds"
    return Table(
        f"The dense network, points of the front and their controls; {seeds}.", _COLUMNS, tuple(rows)
    )


def _row(name: str, one: Measured, verdict: str, *, pinned: bool) -> Row:
    cells = (
        Cell(name),
        *(Cell(count(one.size(metric)), one.size(metric)) for metric in ("params", "macs")),
        Cell(str(one.epochs), one.epochs),
        Cell(str(len(one.runs)), len(one.runs)),
        *(Cell(with_error(one, metric), one.mean(metric)) for metric in ("val_accuracy", "test_accuracy")),
        Cell(verdict),
    )
    return Row(cells, "a point of the front" if one.kind == "trial" else "", pinned=pinned)


def _beside_dense(comparison: Comparison, point: Measured) -> str:
    difference = comparison.difference(point, comparison.dense) if comparison.dense else None
    return UNKNOWN if difference is None else f"than dense: {points(difference)}"
