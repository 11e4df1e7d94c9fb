"""The result files of a study: pareto.json, pareto.csv, latency.json and the report."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any, get_args

from sweeps.comparison import Comparison, Measured
from sweeps.config import MEASURED
from sweeps.config.sections import ControlKind
from sweeps.files import write_json, write_text
from sweeps.pareto import covered, reference
from sweeps.records import FACTS, StudyRecord, TrialRecord
from sweeps.report import write_report

CONTROLS: tuple[ControlKind, ...] = get_args(ControlKind)


def pareto_table(study: StudyRecord, comparison: Comparison | None = None) -> dict[str, Any]:
    """The content of pareto.json: only facts that running the same sweep again reproduces."""
    comparison = comparison or Comparison(study)
    points = {point.trial: point for point in comparison.points}
    table: dict[str, Any] = {
        "study": study.name,
        "objectives": dict(study.config.search.objectives),
        "trials": len(study.complete),
        "dense": dense_row(study, comparison),
        "front": [_front_row(study.trials[number], points[number]) for number in study.front],
        "controls": [_control_row(one) for kind in CONTROLS for one in comparison.of_kind(kind)],
    }
    objectives = study.config.search.objectives
    if (bound := reference(study.dense.metrics, objectives)) is not None:
        table["hypervolume"] = covered(table["front"], objectives, bound)
    return table


def dense_row(study: StudyRecord, comparison: Comparison) -> dict[str, Any] | None:
    """Size and accuracy of the unpruned baseline; None until it is trained."""
    if comparison.dense is None:
        return None
    metrics = study.dense.metrics
    facts = {name: metrics[name] for name in FACTS}
    judged = {str(name): metrics.get(name) for name in study.config.search.objectives}
    return {**facts, **judged, "file_bytes": metrics.get("file_bytes"), **_over_seeds(comparison.dense)}


def _front_row(trial: TrialRecord, point: Measured) -> dict[str, Any]:
    return {**trial.row(), "file_bytes": trial.metrics.get("file_bytes"), **_over_seeds(point)}


def latency_table(study: StudyRecord) -> dict[str, Any]:
    """The content of latency.json: what was measured on one machine, which another run would not reproduce.

    The networks are the dense one, the trials, and the controls and repeats.
    """
    machines = [one.metrics["machine"] for one in study.latencies.values() if one.metrics]
    networks: list[tuple[str, int | None, dict[str, Any]]] = [("dense", None, study.dense.metrics)]
    networks += [("trial", trial.number, trial.metrics) for trial in study.trials]
    networks += [(one.name, one.trial, one.metrics) for one in study.contenders]
    return {
        "machine": machines[0] if machines else None,
        "networks": [
            {"network": name, "trial": number, **{metric: metrics[metric] for metric in MEASURED}}
            for name, number, metrics in networks
            if MEASURED[0] in metrics
        ],
    }


def _control_row(one: Measured) -> dict[str, Any]:
    size = {"params": one.size("params"), "macs": one.size("macs")}
    return {"kind": one.kind, "trial": one.trial, **size, **_over_seeds(one)}


def _over_seeds(one: Measured) -> dict[str, Any]:
    """The epochs and seeds of a network, and the mean and standard error of each accuracy over them."""
    facts: dict[str, Any] = {"epochs": one.epochs, "seeds": one.seeds}
    for metric in ("val_accuracy", "test_accuracy"):
        facts[f"{metric}_mean"] = one.mean(metric)
        facts[f"{metric}_se"] = one.standard_error(metric)
    return facts


def write_outputs(folder: Path, study: StudyRecord, comparison: Comparison | None = None) -> Path:
    """Write the front and the report.

    Args:
        folder: runs/<study>.
        study: what is written.
        comparison: the study's comparison; made if not given.

    Returns:
        The path of the report's page.

    Raises:
        SlimnetError: a file cannot be written.
    """
    comparison = comparison or Comparison(study)
    table = pareto_table(study, comparison)
    write_json(folder / "pareto.json", table)
    write_json(folder / "latency.json", latency_table(study))
    write_text(folder / "pareto.csv", _csv(table["front"]))
    return write_report(study, folder / "report", comparison)


def columns_of(rows: list[dict[str, Any]]) -> list[str]:
    """The columns of a table of rows that lack some, as a trial has not every field that others search."""
    return list(dict.fromkeys(column for row in rows for column in row))


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, columns_of(rows), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue()
