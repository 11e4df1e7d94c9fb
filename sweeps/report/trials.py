"""The tables of all trials, and of the networks of the front with the files to load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePath
from typing import Any

from slimnet.wording import file_size
from sweeps.records import TrialRecord
from sweeps.report.blocks import Cell, Code, Column, Paragraph, Row, Section, Table
from sweeps.report.figures.marks import trial_id
from sweeps.report.shading import NEUTRAL, Shading
from sweeps.report.view import StudyView, path_name
from sweeps.report.wording import UNKNOWN, count, milliseconds, percent, searched_value, times

_MEASURED = ("1 image", "64 images", "file")
_SPLITS = ("validation", "test")


def all_trials(view: StudyView, shading: Shading, runs: Mapping[int, str]) -> Section:
    """Accuracy and size of the dense network and of every trial.

    Args:
        view: the study.
        shading: its colours.
        runs: the address of the runs on W&B, by trial.
    """
    columns = (
        Column("trial"),
        *(Column(path_name(path)) for path in view.paths),
        *map(Column, ("parameters", "smaller", "MACs", *_MEASURED[: 3 * view.measured])),
        *(
            Column(split, group)
            for group in ("right after pruning", "after fine-tuning")
            for split in _SPLITS
        ),
        *([Column("W&B", text=True)] if runs else []),
    )
    rows = [_dense_row(view), *(_trial_row(view, trial, shading) for trial in view.study.trials)]
    if runs:
        addresses = ["", *(runs.get(trial.number, "") for trial in view.study.trials)]
        rows = [_with_run(row, address) for row, address in zip(rows, addresses, strict=True)]
    last_pass = " Of several passes the last is shown." if view.passes > 1 else ""
    caption = (
        f"Accuracy and size of the dense network and of every trial; ● marks the Pareto front.{last_pass}"
    )
    return Section("trials", "All trials", (Table(caption, columns, tuple(rows), sortable=True),))


def _with_run(row: Row, address: str) -> Row:
    """A row with a link to the run on W&B, which a CSV has as its address."""
    link = Cell("run", address, address) if address else Cell(UNKNOWN)
    return replace(row, cells=(*row.cells, link))


def _dense_row(view: StudyView) -> Row:
    metrics = view.study.dense.metrics
    cells = (
        Cell("dense"),
        Cell("0"),
        *[Cell(UNKNOWN)] * (len(view.paths) - 1),
        *_size_cells(metrics, metrics),
        *_measured_cells(view, metrics),
        *_accuracy_cells({}),
        *_accuracy_cells(metrics),
    )
    return Row(cells, pinned=True, colour=NEUTRAL)


def _trial_row(view: StudyView, trial: TrialRecord, shading: Shading) -> Row:
    pruned, tuned = trial.last("prune").metrics, trial.metrics
    name = f"{trial.number}" if trial.state == "complete" else f"{trial.number} ({trial.state})"
    values = [view.value(trial, path) for path in view.paths]
    cells = (
        Cell(name, trial.number, link=f"#{trial_id(trial)}"),
        *(Cell(searched_value(value), value) for value in values),
        *_size_cells(tuned or pruned, view.study.dense.metrics),
        *_measured_cells(view, tuned),
        *_accuracy_cells(pruned),
        *_accuracy_cells(tuned),
    )
    mark = "on the front" if trial.number in view.front else ""
    return Row(cells, mark, colour=shading.colour(trial))


def _size_cells(metrics: dict[str, Any], dense: dict[str, Any]) -> tuple[Cell, Cell, Cell]:
    factor = dense["params"] / metrics["params"] if metrics and dense else None
    params, macs = metrics.get("params"), metrics.get("macs")
    return (
        Cell(count(params), params),
        Cell(times(factor) if factor else UNKNOWN, factor),
        Cell(count(macs), macs),
    )


def _measured_cells(view: StudyView, metrics: dict[str, Any]) -> tuple[Cell, ...]:
    """Latencies and file size of a network; no cells in a study that measures none."""
    if not view.measured:
        return ()
    one, many, size = (metrics.get(name) for name in ("latency_ms", "latency_ms_64", "file_bytes"))
    return (
        Cell(milliseconds(one), one),
        Cell(milliseconds(many), many),
        Cell(UNKNOWN if size is None else file_size(size), size),
    )


def _accuracy_cells(metrics: dict[str, Any]) -> tuple[Cell, Cell]:
    val, test = metrics.get("val_accuracy"), metrics.get("test_accuracy")
    return Cell(percent(val), val), Cell(percent(test), test)


def networks(view: StudyView, shading: Shading, offered: Mapping[int, str], folder: PurePath) -> Section:
    """The networks of the front as files, and how to load one in a program.

    Args:
        view: the study.
        shading: its colours.
        offered: the address of the networks that lie beside the report, by trial.
        folder: the report's, as a program that loads a network would name it.
    """
    front = sorted(
        (trial for trial in view.complete if trial.number in view.front),
        key=lambda trial: float(trial.metrics["params"]),
    )
    if not front:
        return Section("networks", "The networks", ())
    columns = (
        Column("trial"),
        Column("from", text=True),
        Column("parameters"),
        Column("validation"),
        Column("file", text=True),
    )
    table = Table(
        "The networks of the Pareto front, by size; the files lie in a folder beside this page.",
        columns,
        tuple(_network_row(view, trial, shading, offered.get(trial.number)) for trial in front),
    )
    chosen = view.best or front[0]
    if chosen.number not in offered:
        return Section("networks", "The networks", (table,))
    path = (folder / offered[chosen.number]).as_posix()
    factory = chosen.config.model.factory
    own = f", model={factory.rpartition(':')[2]}(...)" if factory else ""
    made = f", with the network that {factory} makes" if factory else ""
    use = Paragraph(f"To use one in a program, here trial {chosen.number}{made}:")
    return Section(
        "networks", "The networks", (table, use, Code(f'import slimnet\nmodel = slimnet.load("{path}"{own})'))
    )


def _network_row(view: StudyView, trial: TrialRecord, shading: Shading, address: str | None) -> Row:
    cells = (
        Cell(f"{trial.number}", link=f"#{trial_id(trial)}"),
        Cell(view.trial_label(trial)),
        Cell(count(trial.metrics["params"]), trial.metrics["params"]),
        Cell(percent(trial.metrics["val_accuracy"]), trial.metrics["val_accuracy"]),
        Cell(PurePath(address).name, link=address) if address else Cell("not on this disk"),
    )
    return Row(cells, colour=shading.colour(trial))
