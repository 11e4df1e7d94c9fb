"""What W&B is to show of a study: one view per run, made from the stage folders alone, without wandb.

A run's rows are numbered by where they stand in the chain and not by when they were computed, so that a
projection taken up again knows which rows are there: sparse epochs 1..E are the steps 0..E-1, pruning is step
E, and the fine-tuning epochs follow.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from sweeps.results import StageRecord, StudyRecord, TrialRecord

Row = dict[str, Any]
RunState = Literal["waiting", "running", "complete", "failed"]

Chain = tuple[StageRecord, StageRecord, StageRecord]

FACTS = ("params", "macs", "val_accuracy", "test_accuracy")
NEAR_DENSE = 0.01  # accuracy within one point of the dense network's counts as near


@dataclass(frozen=True)
class Histogram:
    """Counts per bin [n] and the edges of the bins [n + 1]."""

    counts: list[int]
    edges: list[float]


@dataclass(frozen=True)
class Table:
    """Rows of facts with the same keys, in order."""

    columns: list[str]
    data: list[list[Any]]


@dataclass(frozen=True)
class RunView:
    """One W&B run as it should be now.

    `mark` is the same as long as nothing has changed. `rows(start)` yields (step, row) from step `start` on;
    the values are numbers, Histograms, Tables and plotly figures.
    """

    id: str
    name: str
    group: str
    job_type: Literal["dense", "trial", "study"]
    tags: tuple[str, ...]
    config: dict[str, Any]
    state: RunState
    mark: str
    rows: Callable[[int], Iterator[tuple[int, Row]]]
    summary: dict[str, Any]

    @property
    def ended(self) -> bool:
        """Whether nothing will be added to the run any more."""
        return self.state in ("complete", "failed")


def run_id(study: StudyRecord, name: int | str) -> str:
    """The id of a run: for the study it belongs to and no later study of the same name."""
    return f"{study.name}-{name}-{study.uid[:6]}"


def study_views(study: StudyRecord) -> list[RunView]:
    """The views of a study's runs: the dense network, every trial, and the study itself last."""
    return [_dense_view(study), *(_trial_view(study, trial) for trial in study.trials), _study_view(study)]


def _trial_view(study: StudyRecord, trial: TrialRecord) -> RunView:
    state: RunState = trial.state
    if state == "running" and not any(stage.history for stage in trial.stages):
        state = "waiting"
    sparse, ratio = trial.config.sparse, trial.config.prune.ratio
    pull = f"λ {sparse.lambda_:g}" if sparse.target is None else f"target {sparse.target:g}"
    summary = {"state": state, "reason": trial.reason}
    if state == "complete":
        summary |= trial.row()
    return RunView(
        id=run_id(study, trial.number),
        name=f"trial {trial.number} · {pull} · ratio {ratio:g}",
        group=study.name,
        job_type="trial",
        tags=_tags(study),
        config={
            "trial": trial.number,
            "params": trial.params,
            **trial.config.model_dump(mode="json", by_alias=True),
        },
        state=state,
        mark=_mark(state, trial.reason, *map(_progress, trial.stages)),
        rows=partial(_chain_rows, trial.stages),
        summary=summary,
    )


def _dense_view(study: StudyRecord) -> RunView:
    dense = study.dense
    state: RunState = "waiting"
    if dense.state == "done":
        state = "complete"
    elif dense.state == "failed":
        state = "failed"
    elif dense.history:
        state = "running"
    reason = dense.failure["reason"] if dense.failure else None
    facts = {key: dense.metrics[key] for key in FACTS} if dense.metrics else {}
    config = study.config.model_dump(mode="json", by_alias=True)
    return RunView(
        id=run_id(study, "dense"),
        name="dense",
        group=study.name,
        job_type="dense",
        tags=_tags(study),
        config={**config, "sparse": {**config["sparse"], "lambda": 0.0, "target": None}},
        state=state,
        mark=_mark(state, reason, _progress(dense)),
        rows=partial(_dense_rows, dense),
        summary={"state": state, "reason": reason, **facts},
    )


def _study_view(study: StudyRecord) -> RunView:
    failed = sum(trial.state == "failed" for trial in study.trials)
    ended = len(study.complete) + failed
    state: RunState = "complete" if ended >= study.goal else "running" if ended else "waiting"
    summary = {
        "state": state,
        "goal": study.goal,
        "complete": len(study.complete),
        "failed": failed,
        **_headlines(study),
    }
    return RunView(
        id=run_id(study, "study"),
        name=f"study {study.name}",
        group=study.name,
        job_type="study",
        tags=_tags(study),
        config=study.config.model_dump(mode="json", by_alias=True),
        state=state,
        mark=_mark(summary, study.front, [trial.number for trial in study.complete]),
        rows=partial(_study_rows, study),
        summary=summary,
    )


def _tags(study: StudyRecord) -> tuple[str, ...]:
    return (study.config.data.name, study.config.model.name)


def _progress(stage: StageRecord) -> list[Any]:
    return [stage.key, stage.state, len(stage.history)]


def _mark(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _chain_rows(stages: Chain, start: int) -> Iterator[tuple[int, Row]]:
    sparse, prune, finetune = stages
    yield from _epoch_rows(sparse, first_step=0, start=start)
    if sparse.state != "done" or prune.state != "done":
        return
    step = len(sparse.history)
    if step >= start:
        metrics = {f"prune/{name}": prune.metrics[name] for name in FACTS}
        yield step, metrics | _layer_histograms(sparse)
    yield from _epoch_rows(finetune, first_step=step + 1, start=start)


def _dense_rows(dense: StageRecord, start: int) -> Iterator[tuple[int, Row]]:
    yield from _epoch_rows(dense, first_step=0, start=start)
    step = len(dense.history)
    if dense.state == "done" and step >= start:
        yield step, _layer_histograms(dense)


def _epoch_rows(stage: StageRecord, *, first_step: int, start: int) -> Iterator[tuple[int, Row]]:
    for step, epoch in enumerate(stage.history[max(0, start - first_step) :], max(first_step, start)):
        numbers = {name: value for name, value in epoch.items() if name not in ("epochs", "gamma")}
        row: Row = {f"{stage.kind}/{name}": value for name, value in numbers.items()}
        if histogram := _histogram(epoch.get("gamma")):
            row[f"{stage.kind}/gamma"] = histogram
        yield step, row


def _layer_histograms(stage: StageRecord) -> Row:
    layers = {name: _histogram(raw) for name, raw in stage.metrics.get("gamma_layers", {}).items()}
    return {f"gamma_layers/{name}": histogram for name, histogram in layers.items() if histogram}


def _histogram(raw: dict[str, Any] | None) -> Histogram | None:
    """None where there is nothing to show: W&B refuses edges that are not numbers (a diverged network's)."""
    if raw is None or not all(map(math.isfinite, raw["edges"])):
        return None
    return Histogram(raw["counts"], raw["edges"])


def _study_rows(study: StudyRecord, start: int) -> Iterator[tuple[int, Row]]:
    """One row, whose step is the number of complete trials: the tables and the chart as they are now."""
    step = len(study.complete)
    if step == 0 or step < start:
        return
    trials = [trial.row() for trial in study.complete]
    front = sorted((row for row in trials if row["trial"] in study.front), key=lambda row: row["params"])
    chart = _front_chart(study, trials, front)
    yield step, {"trials": _table(trials), "front": _table(front), "front_chart": chart}


def _table(rows: list[Row]) -> Table:
    columns = list(rows[0]) if rows else []
    return Table(columns, [[row[name] for name in columns] for row in rows])


def _headlines(study: StudyRecord) -> dict[str, Any]:
    """The few numbers that say how the study stands."""
    rows = [trial.row() for trial in study.complete]
    headlines: dict[str, Any] = {}
    if rows:
        headlines["best_val_accuracy"] = max(row["val_accuracy"] for row in rows)
    if study.dense.metrics:
        target = study.dense.metrics["val_accuracy"] - NEAR_DENSE
        near = [row["params"] for row in rows if row["val_accuracy"] >= target]
        headlines["dense_val_accuracy"] = study.dense.metrics["val_accuracy"]
        headlines["dense_params"] = study.dense.metrics["params"]
        headlines["smallest_params_near_dense"] = min(near, default=None)
    return headlines


def _front_chart(study: StudyRecord, trials: list[Row], front: list[Row]) -> Any:
    """Validation accuracy over parameters, in plotly, which W&B draws without a preset of the server's."""
    import plotly.graph_objects as go

    def points(rows: list[Row], name: str, **style: Any) -> Any:
        return go.Scatter(
            x=[row["params"] for row in rows],
            y=[row["val_accuracy"] for row in rows],
            text=[f"trial {row['trial']} · λ {row['lambda']:g} · ratio {row['ratio']:g}" for row in rows],
            name=name,
            **style,
        )

    figure = go.Figure()
    figure.add_trace(points(trials, "trials", mode="markers"))
    figure.add_trace(points(front, "front", mode="lines+markers"))
    if metrics := study.dense.metrics:
        dense = {"x": [metrics["params"]], "y": [metrics["val_accuracy"]]}
        figure.add_trace(go.Scatter(**dense, name="dense", mode="markers", marker_symbol="star"))
    figure.update_xaxes(title="parameters", type="log")
    figure.update_yaxes(title="validation accuracy", tickformat=".1%")
    return figure
