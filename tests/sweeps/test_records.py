"""What tables and fronts are told of a trial."""

from __future__ import annotations

from typing import Any

from sweeps.config import load_config, resolve
from sweeps.results import StageRecord, TrialRecord

METRICS = {"params": 5, "macs": 7, "val_accuracy": 0.5, "test_accuracy": 0.4}


def trial(params: dict[str, Any], history: list[dict[str, Any]]) -> TrialRecord:
    settings = load_config("smoke", ["search.space={sparse.target: [0.5, 0.9], prune.ratio: [0.3, 0.5]}"])
    sparse = StageRecord("sparse", "a", {}, "done", history, {"metrics": METRICS}, None)
    later = [
        StageRecord(kind, "b", {}, "done", [], {"metrics": METRICS}, None) for kind in ("prune", "finetune")
    ]
    settings = settings if "sparse.target" in params else load_config("smoke")
    return TrialRecord(3, params, resolve(settings, params), "complete", None, (sparse, *later))


def test_a_row_tells_the_lambda_that_steering_reached() -> None:
    asked = {"sparse.target": 0.9, "prune.ratio": 0.5}
    row = trial(asked, [{"lambda": 0.01}, {"lambda": 0.02}]).row()
    assert row == {"trial": 3, "lambda": 0.02, "ratio": 0.5, "sparse.target": 0.9, **METRICS}
    assert trial(asked, []).strength == 0.0


def test_a_row_tells_the_lambda_asked_for_whatever_its_schedule_ends_with() -> None:
    assert trial({"sparse.lambda": 0.02}, [{"lambda": 0.0}]).row()["lambda"] == 0.02
