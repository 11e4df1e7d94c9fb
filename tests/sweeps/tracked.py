"""Study records built by hand, as a driver would read them from its folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from in_memory import InMemory

from sweeps.config import Config, load_config
from sweeps.records import (
    ContenderKind,
    ContenderRecord,
    Histogram,
    StageRecord,
    StudyRecord,
    TrialRecord,
    TrialState,
)

UID = "0123456789abcdef"
EPOCHS = {"sparse": 3, "finetune": 2}
GAMMA: Histogram = {"counts": [3, 2, 1], "edges": [0.0, 0.1, 0.2, 0.3]}
LAYERS = {"stem.bn": GAMMA, "layers.0.bn1": GAMMA}


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


def stage(kind: str, done: int | bool, *, pass_number: int = 1, **metrics: Any) -> StageRecord:
    """A stage with `done` finished epochs, all of them and its result for True."""
    epochs = EPOCHS.get(kind, 0)
    finished = done is True
    facts = {"params": 1000, "macs": 5000, "val_accuracy": 0.8, "test_accuracy": 0.79, **metrics}
    history = [epoch(number, epochs) for number in range(1, (epochs if finished else done) + 1)]
    later = f"-{pass_number}" if pass_number > 1 else ""
    return StageRecord(
        name=f"{kind}{later}",
        kind=kind,
        key=f"{kind}-{metrics.get('params', 0)}{later}",
        spec={"recipe": {"epochs": epochs}, **({"pass_number": pass_number} if later else {})},
        state="done" if finished else "partial" if done else "missing",
        epochs_done=len(history),
        result={"metrics": facts, "seconds": 1.0, "environment": {}} if finished else None,
        failure=None,
        source=InMemory(history, LAYERS if kind == "sparse" and finished else {}),
    )


def chain(number: int, *done: int | bool, pass_number: int = 1) -> tuple[StageRecord, ...]:
    """Sparse training, pruning and fine-tuning of one pass, as far as they are said to be."""
    size = 900 - 100 * number - 10 * (pass_number - 1)
    sparse, prune, finetune = done
    return (
        stage("sparse", sparse, pass_number=pass_number),
        stage("prune", prune, pass_number=pass_number, params=size, val_accuracy=0.4),
        stage("finetune", finetune, pass_number=pass_number, params=size, val_accuracy=0.8 - 0.01 * number),
    )


def trial(
    number: int,
    sparse: int | bool = True,
    prune: bool = True,
    finetune: int | bool = True,
    second_pass: tuple[int | bool, bool, int | bool] | None = None,
) -> TrialRecord:
    """A trial as far as the given stages are; complete by default."""
    config = base_config()
    params = {"sparse.lambda": 0.01 * (number + 1), "prune.ratio": 0.7}
    stages = chain(number, sparse, prune, finetune)
    if second_pass:
        stages += chain(number, *second_pass, pass_number=2)
    return TrialRecord(
        number=number,
        params=params,
        config=config.model_copy(
            update={
                "sparse": config.sparse.model_copy(update={"lambda_": params["sparse.lambda"]}),
                "prune": config.prune.model_copy(update={"ratio": params["prune.ratio"]}),
            }
        ),
        state="complete" if stages[-1].state == "done" else "running",
        reason=None,
        stages=stages,
    )


def content(key: str) -> bytes:
    """What stands in for the file of a stage's network."""
    return f"the network of {key} ".encode() * 100


def with_networks(record: TrialRecord, folder: Path) -> TrialRecord:
    """A trial whose stages have files."""
    stages = []
    for one in record.stages:
        path = folder / "stages" / one.key / "checkpoint.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(one.key))
        assert isinstance(one.source, InMemory)
        stages.append(replace(one, source=replace(one.source, checkpoint=path)))
    return replace(record, stages=tuple(stages))


def failed(record: TrialRecord, reason: str) -> TrialRecord:
    return replace(record, state="failed", reason=reason)


def contender(
    kind: ContenderKind, number: int | None, seed: int, done: int | bool = True, *, failure: str | None = None
) -> ContenderRecord:
    """A control or repeat of one stage, sparse training alone, with `done` finished epochs."""
    own = stage("sparse", done, params=700, val_accuracy=0.7 + 0.01 * seed)
    state: TrialState = "failed" if failure else "complete" if done is True else "running"
    return ContenderRecord(kind, number, seed, state, failure, (own,))


def study(
    *trials: TrialRecord,
    goal: int = 3,
    dense: int | bool = True,
    contenders: Sequence[ContenderRecord] = (),
) -> StudyRecord:
    return StudyRecord(
        name="smoke",
        uid=UID,
        config=base_config(),
        goal=goal,
        dense=stage("sparse", dense, params=2000),
        trials=list(trials),
        front=[record.number for record in trials if record.state == "complete"],
        contenders=list(contenders),
    )


def base_config() -> Config:
    return load_config("smoke")


def run_id(name: int | str) -> str:
    return f"smoke-{name}-{UID[:6]}"
