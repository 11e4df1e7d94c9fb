"""Study records built by hand, as a driver would read them from its folders."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from sweeps.config import Config, load_config
from sweeps.results import StageRecord, StudyRecord, TrialRecord

UID = "0123456789abcdef"
EPOCHS = {"sparse": 3, "finetune": 2}
GAMMA = {"counts": [3, 2, 1], "edges": [0.0, 0.1, 0.2, 0.3]}


def epoch(number: int, epochs: int) -> dict[str, Any]:
    accuracy = 0.5 + 0.1 * number
    return {
        "epoch": number,
        "epochs": epochs,
        "lr": 0.1 / number,
        "loss": 1.0 / number,
        "train_accuracy": accuracy,
        "val_accuracy": accuracy,
        "test_accuracy": accuracy,
        "near_zero": 0.1 * number,
        "gamma": GAMMA,
    }


def stage(kind: Literal["sparse", "prune", "finetune"], done: int | bool, **metrics: Any) -> StageRecord:
    """A stage with `done` finished epochs, all of them and its result for True."""
    epochs = EPOCHS.get(kind, 0)
    finished = done is True
    facts = {"params": 1000, "macs": 5000, "val_accuracy": 0.8, "test_accuracy": 0.79, **metrics}
    if kind == "sparse":
        facts["gamma_layers"] = {"stem.bn": GAMMA, "layers.0.bn1": GAMMA}
    return StageRecord(
        kind=kind,
        key=f"{kind}-{metrics.get('params', 0)}",
        spec={},
        state="done" if finished else "partial" if done else "missing",
        history=[epoch(number, epochs) for number in range(1, (epochs if finished else done) + 1)],
        result={"metrics": facts, "seconds": 1.0, "environment": {}} if finished else None,
        failure=None,
    )


def trial(
    number: int, sparse: int | bool = True, prune: bool = True, finetune: int | bool = True
) -> TrialRecord:
    """A trial as far as the given stages have come; complete by default."""
    config = base_config()
    params = {"sparse.lambda": 0.01 * (number + 1), "prune.ratio": 0.7}
    size = 900 - 100 * number
    return TrialRecord(
        number=number,
        params=params,
        config=config.model_copy(
            update={
                "sparse": config.sparse.model_copy(update={"lambda_": params["sparse.lambda"]}),
                "prune": config.prune.model_copy(update={"ratio": params["prune.ratio"]}),
            }
        ),
        state="complete" if finetune is True else "running",
        reason=None,
        stages=(
            stage("sparse", sparse),
            stage("prune", prune, params=size, val_accuracy=0.4),
            stage("finetune", finetune, params=size, val_accuracy=0.8 - 0.01 * number),
        ),
    )


def failed(record: TrialRecord, reason: str) -> TrialRecord:
    return replace(record, state="failed", reason=reason)


def study(*trials: TrialRecord, goal: int = 3, dense: int | bool = True) -> StudyRecord:
    return StudyRecord(
        name="smoke",
        uid=UID,
        config=base_config(),
        goal=goal,
        dense=stage("sparse", dense, params=2000),
        trials=list(trials),
        front=[record.number for record in trials if record.state == "complete"],
    )


def base_config() -> Config:
    return load_config("smoke")


def run_id(name: int | str) -> str:
    return f"smoke-{name}-{UID[:6]}"
