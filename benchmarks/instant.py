"""Stages that take no time, in place of training: what is left is the driver's own work."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from slimnet.errors import SlimnetError
from sweeps.jobs import Job, Place, Watch
from sweeps.records import Row
from sweeps.stages import Stage
from sweeps.stages.curve import CurveSpec
from sweeps.stages.latency import LatencySpec
from sweeps.stages.prune import PruneSpec
from sweeps.stages.sparse import SparseSpec

DENSE_PARAMS = 100_000
CHANNELS = 100  # of each of three layers
BINS = 64
WAYS = {"copied": 2, "absorbed": 3, "recalibrated": 4}  # of pruning; accuracy falls the later


def compute(job: Job, place: Place, watch: Watch) -> bool:
    """A stand-in for `sweeps.worker.compute`: rows and results that follow from λ and the ratio alone."""
    return compute_by(
        job,
        place,
        watch,
        metrics_of,
        lambda stage, epoch: _row(stage, epoch, metrics_of(stage)["val_accuracy"]),
    )


def unhurried(job: Job, place: Place, watch: Watch) -> bool:
    """A stand-in whose epochs take 0.01 s and measurements 1 s, and which diverges as training does."""
    spec = job.stage.spec
    time.sleep(1.0 * isinstance(spec, LatencySpec))
    if isinstance(spec, SparseSpec) and spec.recipe and spec.recipe.lr > 1e10:
        raise SlimnetError("the loss became nan; a lower learning rate would do")

    def epoch(row: Row) -> None:
        time.sleep(0.01)
        watch.epoch(row)

    return compute(job, place, replace(watch, epoch=epoch))


def compute_by(
    job: Job,
    place: Place,
    watch: Watch,
    metrics_of: Callable[[Stage], dict[str, Any]],
    row_of: Callable[[Stage, int], Row],
) -> bool:
    """A stand-in for `sweeps.worker.compute` with given metrics of stages and rows of their epochs."""
    stage, folder = job.stage, job.store.folder(job.stage)
    with folder.hold(watch.stop, watch.warning) as alone:
        if not alone:
            return False
        if folder.state() == "done":
            return True
        metrics = metrics_of(stage)
        for epoch in range(folder.epochs_done() + 1, stage.epochs + 1):
            row = row_of(stage, epoch)
            folder.append(row)
            folder.publish()
            watch.epoch(row)
            if watch.stop() and epoch < stage.epochs:
                return False
        environment = {"device": place.device, "threads": place.threads}
        folder.commit(
            {
                "kind": stage.kind,
                "key": stage.key,
                "metrics": metrics,
                "seconds": 1.0,
                "environment": environment,
            }
        )
    return True


def metrics_of(stage: Stage) -> dict[str, Any]:
    """Size and accuracy after a stage: smaller networks are worse, and λ has a best value."""
    if isinstance(stage.spec, LatencySpec):
        params = metrics_of(stage.inputs["parent"])["params"]
        facts = {"latency_ms": params / 1e5, "latency_ms_64": params / 1e4, "file_bytes": 4 * params}
        return {**facts, "machine": stage.spec.machine}
    if isinstance(stage.spec, CurveSpec):
        return {"curve": [_curve_row(ratio) for ratio in stage.spec.ratios]}
    strength, left = 0.0, 1.0
    within: int | None = None
    step: Stage | None = stage
    while step is not None:
        match step.spec:
            case PruneSpec(prune=prune):
                left *= 1 - prune.ratio
            case SparseSpec():
                strength, within = step.spec.strength, step.spec.within
        step = step.inputs.get("parent")
    accuracy = 0.9 - 0.1 * (1 - left) ** 3 - 0.02 * abs(math.log10((strength or 1e-4) / 0.003))
    params = within or int(DENSE_PARAMS * left**2) + 100
    metrics: dict[str, Any] = {
        "params": params,
        "macs": params * 10,
        "val_accuracy": round(accuracy - (0.2 if stage.kind == "prune" else 0.0), 6),
        "test_accuracy": round(accuracy - 0.01, 6),
    }
    if stage.kind == "prune":
        kept = round(CHANNELS * left)
        metrics |= {"threshold": 0.1, "kept": 3 * kept, "prunable": 3 * CHANNELS}
        metrics["layers"] = {f"conv{layer}": [CHANNELS, kept] for layer in range(3)}
    if stage.kind == "sparse":
        metrics["gamma_layers"] = {f"bn{layer}": _histogram(stage.epochs) for layer in range(3)}
    return metrics


def _curve_row(ratio: float) -> dict[str, Any]:
    params = int(DENSE_PARAMS * (1 - ratio) ** 2) + 100
    accuracies = {way: 0.9 - ratio**power for way, power in WAYS.items()}
    return {"ratio": ratio, "params": params, "macs": params * 10, **accuracies}


def _row(stage: Stage, epoch: int, accuracy: float) -> Row:
    reached = accuracy * epoch / stage.epochs
    return {
        "epoch": epoch,
        "epochs": stage.epochs,
        "lr": 0.1 / epoch,
        "lambda": 0.0,
        "loss": 1 - reached,
        "train_accuracy": reached,
        "val_accuracy": reached,
        "test_accuracy": reached,
        "near_zero": 0.3,
        "gamma": _histogram(epoch),
    }


def _histogram(epoch: int) -> dict[str, list[Any]]:
    return {
        "counts": [(7 * index * epoch) % 23 for index in range(BINS)],
        "edges": [index / BINS for index in range(BINS + 1)],
    }
