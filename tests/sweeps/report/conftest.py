"""Studies as a sweep would leave them, without training anything."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from in_memory import InMemory

from sweeps.config import Config, load_config, resolve
from sweeps.pareto import front
from sweeps.records import Histogram, Row, StageRecord, StageState, StudyRecord, TrialRecord, TrialState

CONFIG = """
study: {name}
seed: 3
data:     {{name: fashion-mini, image_size: 14, validation: 0.1}}
model:    {{name: resnet, blocks: [1, 1, 1], width: 16}}
sparse:   {{epochs: 12, lr: 0.1, penalty: l1, evaluate_every: 4}}
prune:    {{ratio: 0.5}}
finetune: {{epochs: 4, lr: 0.02, evaluate_every: 2}}
search:
  sampler: random
  trials: {trials}
  space: {space}
"""
GRID = "{sparse.lambda: [0.003, 0.00711, 0.0169, 0.04], prune.ratio: {range: [0.3, 0.9], step: 0.1}}"
LAMBDAS = (0.003, 0.00711, 0.0169, 0.04)
TWELVE = [
    {"sparse.lambda": LAMBDAS[i % 4], "prune.ratio": ratio}
    for i, ratio in enumerate((0.3, 0.5, 0.7, 0.8, 0.6, 0.9, 0.9, 0.9, 0.4, 0.7, 0.8, 0.6))
]
ENVIRONMENT = {
    "torch": "2.15.0",
    "python": "3.11.2",
    "device": "cpu",
    "device_name": "a processor",
    "threads": 1,
    "precision": "bfloat16",
}
MakeStudy = Callable[..., StudyRecord]


DENSE_PARAMS, DENSE_MACS, DENSE_ACCURACY = 126_330, 4_812_544, 0.869


@pytest.fixture(scope="session")
def make_study(tmp_path_factory: pytest.TempPathFactory) -> MakeStudy:
    """A study of the given trials. `states` tells of those that are not complete: running or failed.

    With `passes` every trial is pruned so many times, each time with its own ratio.
    """
    folder = tmp_path_factory.mktemp("studies")

    def make(
        params: Sequence[dict[str, Any]] = TWELVE,
        *,
        space: str = GRID,
        name: str = "fashion-mini",
        states: dict[int, TrialState] | None = None,
        reason: str = "the loss is NaN in epoch 3",
        dense: bool = True,
        goal: int | None = None,
        passes: int = 1,
        curves: bool = False,
    ) -> StudyRecord:
        path = folder / "study.yaml"
        path.write_text(CONFIG.format(name=name, trials=max(len(params), 1), space=space))
        config = load_config(path)
        states = states or {}
        trials = [
            _trial(config, number, values, states.get(number, "complete"), reason, passes)
            for number, values in enumerate(params)
        ]
        complete = [trial for trial in trials if trial.state == "complete"]
        on_front = front([trial.row() for trial in complete], config.search.objectives)
        return StudyRecord(
            name=name,
            uid=f"{name}-1a2b3c4d",
            config=config,
            goal=goal or len(params),
            dense=_sparse(config, 0.0, "done" if dense else "missing", epochs=config.most_epochs),
            trials=trials,
            front=[complete[index].number for index in on_front],
            curves=_curves(trials) if curves else {},
        )

    return make


@pytest.fixture(scope="session")
def study(make_study: MakeStudy) -> StudyRecord:
    """Twelve trials over four λ, eleven complete and one failed."""
    return make_study(states={10: "failed"}, curves=True)


def _curves(trials: Sequence[TrialRecord]) -> dict[str, StageRecord]:
    """Accuracy over the ratio of every sparse network: the stronger λ, the later it falls."""
    strengths = {trial.first("sparse").key: trial.config.sparse.lambda_ for trial in trials}
    curves = {}
    for key, strength in strengths.items():
        rows = []
        for ratio in (0.0, 0.3, 0.6, 0.9):
            lost = ratio ** (2 + 100 * strength)
            accuracies = {"copied": 0.86 - lost, "absorbed": 0.86 - lost / 2, "recalibrated": 0.86 - lost / 4}
            size = {"params": round(DENSE_PARAMS * (1 - ratio)), "macs": round(DENSE_MACS * (1 - ratio))}
            rows.append({"ratio": ratio, **size, **accuracies})
        curves[key] = _stage("curve", _key("curve", key), "done", [], {"curve": rows}, 4.5)
    return curves


def _trial(
    config: Config, number: int, params: dict[str, Any], state: TrialState, reason: str, passes: int
) -> TrialRecord:
    """A trial whose last stage is done, in hand or failed; those before it are done."""
    resolved = resolve(config, params)
    ends: dict[TrialState, StageState] = {"complete": "done", "running": "partial", "failed": "failed"}
    stages: list[StageRecord] = []
    for pass_number in range(1, passes + 1):
        sparse = _sparse(resolved, resolved.sparse.lambda_, "done", parent=stages[-1] if stages else None)
        prune = _prune(resolved, sparse)
        end = ends[state] if pass_number == passes else "done"
        stages += [sparse, prune, _finetune(resolved, prune, end, reason)]
    return TrialRecord(number, params, resolved, state, reason if state == "failed" else None, tuple(stages))


def _stage(
    kind: str,
    key: str,
    state: StageState,
    history: list[Row],
    metrics: dict[str, Any],
    seconds: float,
    *,
    epochs: int = 0,
    pass_number: int = 1,
    failure: dict[str, Any] | None = None,
    layers: dict[str, Histogram] | None = None,
) -> StageRecord:
    result = {"kind": kind, "key": key, "metrics": metrics, "seconds": seconds, "environment": ENVIRONMENT}
    result["peak_bytes"] = 512_000_000
    return StageRecord(
        name=kind if pass_number == 1 else f"{kind}-{pass_number}",
        kind=kind,
        key=key,
        spec={"recipe": {"epochs": epochs}, "pass_number": pass_number},
        state=state,
        epochs_done=len(history),
        result=result if state == "done" else None,
        failure=failure,
        source=InMemory(history, layers or {}),
    )


def _key(*parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _size(config: Config) -> float:
    """Size relative to width 16."""
    return (config.model.width / 16) ** 2


def _sparse(
    config: Config,
    strength: float,
    state: StageState,
    parent: StageRecord | None = None,
    *,
    epochs: int | None = None,
) -> StageRecord:
    pass_number = parent.pass_number + 1 if parent else 1
    epochs = epochs or config.sparse.epochs
    key = _key("sparse", strength, config.model.width, epochs, *([parent.key] if parent else []))
    if state == "missing":
        return _stage("sparse", key, "missing", [], {}, 0, epochs=epochs)
    peak = DENSE_ACCURACY + 0.004 - 0.9 * strength + 0.03 * math.log(_size(config))
    history = [_epoch(e, epochs, peak, strength) for e in range(1, epochs + 1)]
    metrics = {
        "params": parent.metrics["params"] if parent else round(DENSE_PARAMS * _size(config)),
        "macs": parent.metrics["macs"] if parent else round(DENSE_MACS * _size(config)),
        **{name: history[-1][name] for name in ("loss", "train_accuracy", "val_accuracy", "test_accuracy")},
        "near_zero": history[-1]["near_zero"],
    }
    if strength == 0:
        metrics |= {"val_accuracy": DENSE_ACCURACY, "test_accuracy": 0.861}
    layers = {"stem.bn": history[-1]["gamma"]}
    history = _as_measured(history, config.sparse.evaluate_every)
    return _stage(
        "sparse", key, "done", history, metrics, 24.6, epochs=epochs, pass_number=pass_number, layers=layers
    )


def _epoch(epoch: int, epochs: int, peak: float, strength: float) -> dict[str, Any]:
    progress = 1 - math.exp(-4 * epoch / epochs)
    rng = np.random.default_rng([epoch, round(1e6 * strength)])
    wobble = float(rng.normal(0, 0.008)) * (1 - epoch / epochs)
    near_zero = min(0.95, 22 * strength) * (epoch / epochs) ** 2
    small = np.abs(rng.normal(0, 0.004, round(976 * near_zero)))
    large = np.abs(rng.normal(1 - 0.7 * min(1, 14 * strength) * epoch / epochs, 0.16, 976 - len(small)))
    gamma = np.concatenate([small, large])
    counts, edges = np.histogram(gamma, bins=64, range=(0, 2))
    accuracy = peak - 0.35 * (1 - progress) + wobble
    return {
        "epoch": epoch,
        "epochs": epochs,
        "lr": 0.1 * (1 - epoch / epochs),
        "loss": 2.3 * (1 - progress) + 0.2,
        "train_accuracy": min(0.99, accuracy + 0.05 * progress),
        "val_accuracy": accuracy,
        "test_accuracy": accuracy - 0.008,
        "near_zero": float((gamma < 0.01).mean()),
        "gamma": {"counts": counts.tolist(), "edges": edges.tolist()},
    }


def _as_measured(history: list[dict[str, Any]], every: int) -> list[dict[str, Any]]:
    """Without validation and test accuracy in between; all of these trainings end on a measured epoch."""
    between = ("val_accuracy", "test_accuracy")
    return [
        {name: value for name, value in row.items() if row["epoch"] % every == 0 or name not in between}
        for row in history
    ]


def _prune(config: Config, sparse: StageRecord) -> StageRecord:
    ratio, strength = config.prune.ratio, config.sparse.lambda_
    key = _key("prune", sparse.key, ratio)
    loss = 0.8 * max(0.0, ratio - min(0.9, 20 * strength)) ** 1.2 + 0.02 * ratio
    metrics = {
        "params": round(sparse.metrics["params"] * (1 - ratio) ** 0.9 * (1 - 0.2 * min(1, 10 * strength))),
        "macs": round(sparse.metrics["macs"] * (1 - ratio) ** 0.7),
        "val_accuracy": max(0.1, sparse.metrics["val_accuracy"] - loss),
        "test_accuracy": max(0.1, sparse.metrics["test_accuracy"] - loss - 0.004),
        "threshold": 0.2 * ratio,
        "kept": round(976 * (1 - ratio)),
        "prunable": 976,
        "widths": None,
        "layers": {"conv": [_kept(sparse, 64), _kept(sparse, 64, 1 - ratio)], "fc": [10, 10]},
    }
    return _stage("prune", key, "done", [], metrics, 0.8, pass_number=sparse.pass_number)


def _kept(network: StageRecord, width: int, fraction: float = 1.0) -> int:
    """The channels of a layer, narrower from pass to pass."""
    return round(width * fraction * float(network.metrics["params"]) / DENSE_PARAMS)


def _finetune(config: Config, prune: StageRecord, state: StageState, reason: str) -> StageRecord:
    key = _key("finetune", prune.key)
    ratio, strength = config.prune.ratio, config.sparse.lambda_
    end = DENSE_ACCURACY + 0.006 - 0.45 * strength - 0.05 * ratio**4 + 0.03 * math.log(_size(config))
    start = prune.metrics["val_accuracy"]
    epochs = config.finetune.epochs
    history = []
    for epoch in range(1, epochs + 1):
        accuracy = start + (end - start) * (1 - math.exp(-6 * epoch / epochs))
        row = _epoch(epoch, epochs, accuracy, 0.0)
        history.append(
            row
            | {"train_accuracy": accuracy + 0.03, "val_accuracy": accuracy, "test_accuracy": accuracy - 0.007}
        )
    history = _as_measured(history, config.finetune.evaluate_every)
    if state != "done":
        failure = {"reason": reason, "detail": f"Traceback: {reason}"} if state == "failed" else None
        cut_short = history[:2]
        return _stage(
            "finetune",
            key,
            state,
            cut_short,
            {},
            0,
            epochs=epochs,
            pass_number=prune.pass_number,
            failure=failure,
        )
    names = ("loss", "train_accuracy", "val_accuracy", "test_accuracy", "near_zero")
    sizes = {"params": prune.metrics["params"], "macs": prune.metrics["macs"]}
    metrics = sizes | {name: history[-1][name] for name in names}
    return _stage(
        "finetune", key, "done", history, metrics, 6.3, epochs=epochs, pass_number=prune.pass_number
    )
