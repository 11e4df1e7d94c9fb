"""What a study has found so far, read from its folders: the one view that every output is made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from sweeps.config import Config

StageState = Literal["missing", "partial", "done", "failed"]
TrialState = Literal["running", "complete", "failed"]


@dataclass(frozen=True)
class StageRecord:
    """One stage folder.

    `history` has a row per finished epoch: epoch (from 1), epochs, lr, lambda, loss, train_accuracy,
    val_accuracy and test_accuracy where they were measured, near_zero (share of prunable |γ| < 0.01) and
    gamma, a histogram {"counts": [n], "edges": [n + 1]}. `result` is the content of result.json: metrics
    (params, macs, val_accuracy, test_accuracy and what the kind adds), seconds, environment. `failure` has
    reason and detail.
    """

    kind: Literal["sparse", "prune", "finetune"]
    key: str
    spec: dict[str, Any]
    state: StageState
    history: list[dict[str, Any]]
    result: dict[str, Any] | None
    failure: dict[str, Any] | None

    @property
    def metrics(self) -> dict[str, Any]:
        """The metrics of a finished stage; empty before that."""
        return self.result["metrics"] if self.result else {}


@dataclass(frozen=True)
class TrialRecord:
    """One trial: what it was asked to try and how far its chain of stages has come.

    `params` maps the dotted paths of the search space to this trial's values; `config` is the study's
    config with them filled in. `stages` is the chain sparse, prune, finetune.
    """

    number: int
    params: dict[str, Any]
    config: Config
    state: TrialState
    reason: str | None
    stages: tuple[StageRecord, StageRecord, StageRecord]

    @property
    def metrics(self) -> dict[str, Any]:
        """The metrics of the fine-tuned network; empty until it is there."""
        return self.stages[-1].metrics

    @property
    def strength(self) -> float:
        """λ; where it is steered to a target, the one that it has reached, 0 before the first epoch."""
        history = self.stages[0].history
        steered = self.config.sparse.target is not None and history
        return float(history[-1]["lambda"]) if steered else self.config.sparse.lambda_

    def row(self) -> dict[str, Any]:
        """The facts of a finished trial that tables, files and fronts show."""
        return {
            "trial": self.number,
            "lambda": self.strength,
            "ratio": self.config.prune.ratio,
            **{
                path: value
                for path, value in self.params.items()
                if path not in ("sparse.lambda", "prune.ratio")
            },
            "params": self.metrics["params"],
            "macs": self.metrics["macs"],
            "val_accuracy": self.metrics["val_accuracy"],
            "test_accuracy": self.metrics["test_accuracy"],
        }


@dataclass(frozen=True)
class StudyRecord:
    """A whole study.

    `dense` is the unpruned baseline: the sparse stage at λ = 0. `front` lists trial numbers. `uid` is made
    with the study and tells it from an earlier one of the same name.
    """

    name: str
    uid: str
    config: Config
    goal: int
    dense: StageRecord
    trials: list[TrialRecord]
    front: list[int]

    @property
    def complete(self) -> list[TrialRecord]:
        """The trials that reached the end of their chain, by number."""
        return [trial for trial in self.trials if trial.state == "complete"]
