"""What a study leaves for people and programs: config.yaml, pareto.json, pareto.csv, the report."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from sweeps.config import Config, ConfigError, dump_config, load_config
from sweeps.files import write_json, write_text
from sweeps.pareto import hypervolume
from sweeps.report import write_report
from sweeps.results import StudyRecord

FREE_TO_CHANGE = {  # what leaves finished trials as they are, or is pinned in the study itself
    "search.trials",
    "workers",
    "device",
    "wandb",
    "precision",
    "data.path",
}


def keep_config(folder: Path, config: Config) -> None:
    """Write the config beside the study."""
    write_text(folder / "config.yaml", dump_config(config))


def kept_config(folder: Path) -> Config:
    """The config that the study in `folder` was last run with.

    Raises:
        ConfigError: the file is missing or damaged.
    """
    try:
        return load_config(folder / "config.yaml")
    except ConfigError as error:
        raise ConfigError(
            f"{error}\nThe file was written by `run`; put it right, or delete it and the next `run` makes it."
        ) from error


def check_config(folder: Path, config: Config) -> None:
    """Check that a config goes on with the study in `folder`, if there is one.

    Raises:
        ConfigError: it differs from the config that the study was begun with in what changes results.
    """
    if not (folder / "config.yaml").exists():
        return
    before, now = _flat(kept_config(folder)), _flat(config)
    changes = [
        f"{key} was {before.get(key)}, is {now.get(key)}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]
    if changes:
        raise ConfigError(
            f"the study {config.study} was begun with another config: {'; '.join(changes)}. "
            f"Give this one a name of its own (--set study=NAME), or move {folder} away"
        )


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


def _flat(config: Config) -> dict[str, Any]:
    """The fields that may not change, by dotted path."""
    flat: dict[str, Any] = {}
    for section, value in config.model_dump(mode="json", by_alias=True).items():
        fields = {f"{section}.{key}": item for key, item in value.items()} if isinstance(value, dict) else {}
        flat |= fields or {section: value}
    return {key: value for key, value in flat.items() if not {key, key.split(".")[0]} & FREE_TO_CHANGE}
