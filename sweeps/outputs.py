"""What a study leaves for people and programs: pareto.json, pareto.csv, the report."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from sweeps.files import write_json, write_text
from sweeps.pareto import hypervolume
from sweeps.records import StudyRecord


def pareto_table(study: StudyRecord) -> dict[str, Any]:
    """The front as pareto.json has it: facts that the same sweep gives again, and nothing else."""
    rows = {trial.number: trial.row() for trial in study.complete}
    table: dict[str, Any] = {
        "study": study.name,
        "objectives": dict(study.config.search.objectives),
        "trials": len(rows),
        "dense": dense_row(study),
        "front": [rows[number] for number in study.front],
    }
    if table["dense"] is not None:
        # The volume between a network of no accuracy at the dense network's size, and the front.
        worst = {
            str(metric): 0.0 if direction == "maximize" else float(table["dense"][metric])
            for metric, direction in study.config.search.objectives.items()
        }
        table["hypervolume"] = hypervolume(table["front"], study.config.search.objectives, worst)
    return table


def dense_row(study: StudyRecord) -> dict[str, Any] | None:
    """Size and accuracy of the unpruned baseline; None until it is trained."""
    if not study.dense.metrics:
        return None
    return {name: study.dense.metrics[name] for name in ("params", "macs", "val_accuracy", "test_accuracy")}


def write_outputs(folder: Path, study: StudyRecord) -> Path:
    """Write the front and the report; returns the page's path."""
    from sweeps.report import write_report  # plotly takes a while to import

    table = pareto_table(study)
    write_json(folder / "pareto.json", table)
    write_text(folder / "pareto.csv", _csv(table["front"]))
    return write_report(study, folder / "report")


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue()
