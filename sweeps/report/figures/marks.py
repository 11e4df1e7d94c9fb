"""The marker and the text of a trial, the same in every figure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from slimnet.wording import file_size
from sweeps.records import TrialRecord
from sweeps.report import wording
from sweeps.report.drawing import escaped
from sweeps.report.view import StudyView

SPLITS = {"validation": "val_accuracy", "test": "test_accuracy", "training": "train_accuracy"}
HELD_OUT = {split: SPLITS[split] for split in ("validation", "test")}
SIZES = {"parameters": "params", "MACs": "macs"}
MEASURED = {
    "latency of 1 image, ms": "latency_ms",
    "latency of 64 images, ms": "latency_ms_64",
    "file size, bytes": "file_bytes",
}
"""Sizes that only finished networks on the study's machine have."""
MOST_LABELS = 40  # with more, trials are not numbered
MOST_TICKS = 12  # side by side, of one axis


def trial_id(trial: TrialRecord) -> str:
    """The anchor of a trial's part of the page; a click on what has this id leads there."""
    return f"trial-{trial.number}"


def ids_of(trials: Iterable[TrialRecord]) -> list[str]:
    """The ids of the points of some trials."""
    return [trial_id(trial) for trial in trials]


def marker(colour: str, *, filled: bool) -> dict[str, Any]:
    """A disc if filled, else a ring."""
    if filled:
        return {"color": colour, "size": 11, "symbol": "circle"}
    return {"color": colour, "size": 10, "symbol": "circle-open", "line": {"width": 2}}


def trial_text(view: StudyView, trial: TrialRecord) -> str:
    """A trial's label and result, as shown when the pointer is over its points."""
    result = result_lines(trial.metrics) if trial.metrics else []
    return "<br>".join([f"<b>trial {trial.number}</b>", escaped(view.trial_label(trial)), *result])


def result_lines(metrics: Mapping[str, Any]) -> list[str]:
    """Size and accuracy of a network."""
    val, test = (wording.percent(metrics[metric]) for metric in HELD_OUT.values())
    params, macs = wording.count(metrics["params"]), wording.count(metrics["macs"])
    lines = [f"{params} parameters, {macs} MACs", f"validation {val}, test {test}"]
    if metrics.get("file_bytes") is not None:
        one, many = (wording.milliseconds(metrics[name]) for name in ("latency_ms", "latency_ms_64"))
        lines.append(f"{one} for 1 image, {many} for 64, {file_size(metrics['file_bytes'])}")
    return lines
