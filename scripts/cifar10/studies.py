"""Studies: the dense baseline, the front and its controls of each, with seeds and standard errors."""

from __future__ import annotations

import math
from pathlib import Path

from cifar10.markdown import millions, table, with_error
from sweeps.comparison import Comparison, Measured
from sweeps.records import StudyRecord
from sweeps.report.summary import headline, how_far
from sweeps.report.verdicts import against, control_names, points
from sweeps.report.view import StudyView
from sweeps.report.wording import UNKNOWN, count
from sweeps.state import read_study
from sweeps.study import kept_config

HEADER = ("network", "from", "beside it", "seeds", "epochs", "parameters", "MACs", "validation", "test")


def read(folder: Path) -> StudyRecord:
    """The study in RUNS/STUDY, from its record and the stages that it names.

    Raises:
        SlimnetError: a file is missing or damaged, naming it.
    """
    return read_study(folder.resolve().parent, kept_config(folder))


def without_study() -> str:
    """The section while no study has been given."""
    return (
        "No study has been given yet. Each of `sweeps/configs/cifar10-*.yaml` is one command, and the page "
        "is made from the folders that they leave, any number of them:\n\n    make sweep "
        "CONFIG=cifar10-resnet20\n    python scripts/cifar10_page.py runs/cifar10-resnet50 "
        "runs/cifar10-resnet20 --out docs/cifar10.md"
    )


def explanation() -> str:
    """What the columns of the tables are."""
    kinds = "; ".join(f"{kind}: {words}" for kind, words in control_names().items())
    return (
        "Accuracies are in percent, means over the seeds with their standard errors, in which the number of "
        "images is counted too; with one seed it is all there is. Trials are chosen on the validation "
        "split, and every seed has one of its own. Epochs are all that a network has had, those of sparse "
        "training and fine-tuning together. Points of the front that have controls are followed by them "
        f"({kinds}). Differences are of validation accuracy, in points, seed by seed, with a 95 % interval."
    )


def section(study: StudyRecord) -> str:
    """One study: how it was run, what it found in words, and the table."""
    return "\n\n".join([f"### `{study.name}`", _how(study), headline(study), _table(study)])


def _how(study: StudyRecord) -> str:
    config = study.config
    environment = (study.dense.result or {}).get("environment", {})
    device = environment.get("device_name") or environment.get("device")
    on = f", on {device}" if device else ""
    return (
        f"{config.model.name}, data `{config.data.name}`, {config.sparse.epochs} epochs of sparse training "
        f"and {config.finetune.epochs} of fine-tuning for each trial{on}. {how_far(study)}."
    )


def _table(study: StudyRecord) -> str:
    view = StudyView(study)
    comparison = view.comparison
    rows = [_row("dense", "", UNKNOWN, comparison.dense)] if comparison.dense else []
    for point in comparison.points:
        trial = study.trials[point.trial or 0]
        rows.append(
            _row(f"trial {trial.number}", view.trial_label(trial), _beside_dense(comparison, point), point)
        )
        rows += [
            _row(one.kind, f"trial {trial.number}", against(comparison, one), one)
            for one in comparison.controls.values()
            if one.trial == trial.number
        ]
    return table(HEADER, rows, text=3)


def _row(name: str, origin: str, verdict: str, one: Measured) -> list[str]:
    return [
        name,
        origin,
        verdict,
        str(len(one.runs)),
        str(one.epochs),
        count(one.size("params")),
        millions(one.size("macs")),
        with_error(one, "val_accuracy"),
        with_error(one, "test_accuracy"),
    ]


def _beside_dense(comparison: Comparison, point: Measured) -> str:
    difference = comparison.difference(point, comparison.dense) if comparison.dense else None
    if difference is None:
        return UNKNOWN
    if math.isinf(difference.margin):
        return f"dense: {100 * difference.mean:+.1f}"
    return f"dense: {points(difference)}"
