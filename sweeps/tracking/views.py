"""What W&B shows of a study: one view per run, made from the stage folders alone, without wandb.

A run's rows are numbered by their position in the chain and not by when they were computed, so that a
resumed projection knows which rows are there: sparse epochs 1..E are the steps 0..E-1, pruning is step E,
then come the fine-tuning epochs, then the same for every later pass.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from sweeps.comparison import Comparison, smallest_near
from sweeps.outputs import pareto_table
from sweeps.records import (
    FACTS,
    ContenderRecord,
    StageRecord,
    StudyRecord,
    TrialRecord,
    epochs_trained,
)

Row = dict[str, Any]
RunState = Literal["waiting", "running", "complete", "failed"]


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
    """One W&B run as it should be now; its config, summary and rows are made on demand.

    Attributes:
        id: the run's id, different from that in any other study of the same name.
        name: the run's name on the page.
        group: the name of the study.
        job_type: what the run shows.
        tags: the data set and the network.
        epoch_axes: names of the stages that have epochs, whose metrics are plotted over `<name>/epoch`.
        state: how far it is.
        mark: changes when anything in the run has changed.
        chain: the same as long as the rows are those of the same stages, however many there are so far.
        make_config: makes the config.
        make_summary: makes the summary.
        rows: yields (step, row) from a step on; values are numbers, Histograms, Tables and plotly figures.
    """

    id: str
    name: str
    group: str
    job_type: Literal["dense", "trial", "control", "repeat", "study"]
    tags: tuple[str, ...]
    epoch_axes: tuple[str, ...]
    state: RunState
    mark: str
    chain: str
    make_config: Callable[[], dict[str, Any]]
    make_summary: Callable[[], dict[str, Any]]
    rows: Callable[[int], Iterator[tuple[int, Row]]]

    @property
    def config(self) -> dict[str, Any]:
        """The run's config."""
        return self.make_config()

    @property
    def summary(self) -> dict[str, Any]:
        """The run's summary."""
        return self.make_summary()

    @property
    def ended(self) -> bool:
        """Whether nothing more will be added to the run."""
        return self.state in ("complete", "failed")


def run_id(study: StudyRecord, name: int | str) -> str:
    """The id of a run, different from that in any other study of the same name."""
    return f"{study.name}-{name}-{study.uid[:6]}"


def study_views(study: StudyRecord) -> list[RunView]:
    """The views of a study's runs: the dense network, all trials, controls and repeats, and the study."""
    return [
        dense_view(study),
        *(trial_view(study, trial) for trial in study.trials),
        *(contender_view(study, contender) for contender in study.contenders),
        study_view(study),
    ]


def trial_view(study: StudyRecord, trial: TrialRecord) -> RunView:
    """The run of a trial."""
    state: RunState = trial.state
    if state == "running" and not any(stage.epochs_done for stage in trial.stages):
        state = "waiting"
    sparse, prune = trial.config.sparse, trial.config.prune
    cut = f"ratio {prune.ratio:g}"
    if prune.budget is not None:
        most = getattr(prune, prune.budget)
        cut = f"{most if isinstance(most, str) else format(most, ',')} {prune.budget}"
    strength = f"λ {sparse.lambda_:g}" if sparse.target is None else f"target {sparse.target:g}"
    return RunView(
        id=run_id(study, trial.number),
        name=f"trial {trial.number} · {strength} · {cut}",
        group=study.name,
        job_type="trial",
        tags=_tags(study),
        epoch_axes=_epoch_axes(trial.stages),
        state=state,
        mark=_mark(state, trial.reason, *map(_progress, trial.stages)),
        chain=_chain(trial.stages),
        make_config=partial(_trial_config, trial),
        make_summary=partial(_trial_summary, trial, state),
        rows=partial(_chain_rows, trial.stages),
    )


def _trial_config(trial: TrialRecord) -> dict[str, Any]:
    config = trial.config.model_dump(mode="json", by_alias=True)
    return {"trial": trial.number, "params": trial.params, **config}


def _trial_summary(trial: TrialRecord, state: RunState) -> dict[str, Any]:
    outcome = {**trial.row(), "epochs": epochs_trained(trial.stages)} if state == "complete" else {}
    return {"state": state, "reason": trial.reason, **outcome}


def contender_view(study: StudyRecord, contender: ContenderRecord) -> RunView:
    """The run of a control, or of a repeat with another seed."""
    state: RunState = contender.state
    if state == "running" and not any(stage.epochs_done for stage in contender.stages):
        state = "waiting"
    about = f"{contender.kind}-{'all' if contender.trial is None else contender.trial}-{contender.seed}"
    facts = {key: contender.metrics[key] for key in FACTS} if state == "complete" else {}
    summary = {
        "state": state,
        "reason": contender.reason,
        "epochs": contender.epochs,
        **facts,
    }
    return RunView(
        id=run_id(study, about),
        name=contender.name,
        group=study.name,
        job_type="repeat" if contender.kind in ("dense", "trial") else "control",
        tags=_tags(study),
        epoch_axes=_epoch_axes(contender.stages),
        state=state,
        mark=_mark(state, contender.reason, *map(_progress, contender.stages)),
        chain=_chain(contender.stages),
        make_config=partial(_contender_config, study, contender),
        make_summary=lambda: summary,
        rows=partial(_chain_rows, contender.stages),
    )


def _contender_config(study: StudyRecord, contender: ContenderRecord) -> dict[str, Any]:
    of = study.config if contender.trial is None else study.trials[contender.trial].config
    config = of.model_dump(mode="json", by_alias=True)
    return {**config, "kind": contender.kind, "trial": contender.trial, "seed": contender.seed}


def dense_view(study: StudyRecord) -> RunView:
    """The run of the unpruned baseline."""
    dense = study.dense
    state: RunState = "waiting"
    if dense.state == "done":
        state = "complete"
    elif dense.state == "failed":
        state = "failed"
    elif dense.epochs_done:
        state = "running"
    reason = dense.failure["reason"] if dense.failure else None
    facts = {key: dense.metrics[key] for key in FACTS} if dense.metrics else {}
    facts["epochs"] = epochs_trained([dense])
    return RunView(
        id=run_id(study, "dense"),
        name="dense",
        group=study.name,
        job_type="dense",
        tags=_tags(study),
        epoch_axes=_epoch_axes([dense]),
        state=state,
        mark=_mark(state, reason, _progress(dense)),
        chain=_chain([dense]),
        make_config=partial(_dense_config, study),
        make_summary=lambda: {"state": state, "reason": reason, **facts},
        rows=partial(_dense_rows, dense),
    )


def _dense_config(study: StudyRecord) -> dict[str, Any]:
    config = study.config.model_dump(mode="json", by_alias=True)
    return {**config, "sparse": {**config["sparse"], "lambda": 0.0, "target": None}}


def study_view(study: StudyRecord) -> RunView:
    """The run of the study itself, which shows all of its trials, so that its size grows with them."""
    complete = [trial.number for trial in study.complete]
    failed = sum(trial.state == "failed" for trial in study.trials)
    ended = len(complete) + failed
    state: RunState = "complete" if ended >= study.goal and study.ended else "running" if ended else "waiting"
    comparison = Comparison(study)
    summary = {
        "state": state,
        "goal": study.goal,
        "complete": len(complete),
        "failed": failed,
        **_headlines(study, comparison),
    }
    return RunView(
        id=run_id(study, "study"),
        name=f"study {study.name}",
        group=study.name,
        job_type="study",
        tags=_tags(study),
        epoch_axes=(),
        state=state,
        mark=_mark(summary, study.front, complete, [_shown(one) for one in study.contenders]),
        chain="",
        make_config=lambda: study.config.model_dump(mode="json", by_alias=True),
        make_summary=lambda: summary,
        rows=partial(_study_rows, study, comparison),
    )


def _tags(study: StudyRecord) -> tuple[str, ...]:
    return (study.config.data.name, study.config.model.label)


def _epoch_axes(stages: Sequence[StageRecord]) -> tuple[str, ...]:
    return tuple(stage.name for stage in stages if stage.kind != "prune")


def _progress(stage: StageRecord) -> list[Any]:
    return [stage.key, stage.state, stage.epochs_done]


def _shown(contender: ContenderRecord) -> list[Any]:
    return [contender.name, contender.stages[-1].key, contender.state]


def _chain(stages: Sequence[StageRecord]) -> str:
    return _mark([stage.key for stage in stages])


def _mark(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _chain_rows(stages: Sequence[StageRecord], start: int) -> Iterator[tuple[int, Row]]:
    """A row per epoch and one per pruning, as far as the chain is computed."""
    step = 0
    trained: StageRecord | None = None
    for stage in stages:
        if stage.kind == "prune":
            if stage.state == "done" and step >= start:
                yield step, _prune_row(stage, trained)
            step += 1
        else:
            yield from _epoch_rows(stage, first_step=step, start=start)
            step += stage.epochs_done
            trained = trained if stage.kind == "early" else stage
        if stage.state != "done":
            return


def _prune_row(prune: StageRecord, trained: StageRecord | None) -> Row:
    """The metrics of the pruned network, and the scaling factors before pruning."""
    metrics = {f"{prune.name}/{name}": prune.metrics[name] for name in FACTS}
    return metrics | (_layer_histograms(trained) if trained else {})


def _dense_rows(dense: StageRecord, start: int) -> Iterator[tuple[int, Row]]:
    yield from _epoch_rows(dense, first_step=0, start=start)
    step = dense.epochs_done
    if dense.state == "done" and step >= start:
        yield step, _layer_histograms(dense)


def _epoch_rows(stage: StageRecord, *, first_step: int, start: int) -> Iterator[tuple[int, Row]]:
    if start >= first_step + stage.epochs_done:
        return  # without reading the file
    for step, epoch in enumerate(stage.history[max(0, start - first_step) :], max(first_step, start)):
        numbers = {name: value for name, value in epoch.items() if name not in ("epochs", "gamma")}
        row: Row = {f"{stage.name}/{name}": value for name, value in numbers.items()}
        if histogram := _histogram(epoch.get("gamma")):
            row[f"{stage.name}/gamma"] = histogram
        yield step, row


def _layer_histograms(stage: StageRecord) -> Row:
    layers = {name: _histogram(raw) for name, raw in stage.gamma_layers.items()}
    return {f"gamma_layers/{name}": histogram for name, histogram in layers.items() if histogram}


def _histogram(raw: dict[str, Any] | None) -> Histogram | None:
    """None if there is none to show: W&B refuses edges that are not finite, from a diverged network."""
    if raw is None or not all(map(math.isfinite, raw["edges"])):
        return None
    return Histogram(raw["counts"], raw["edges"])


def _study_rows(study: StudyRecord, comparison: Comparison, start: int) -> Iterator[tuple[int, Row]]:
    """One row: the tables and the chart as they are now, at a step that only grows.

    The step is 1,000 for each complete trial plus 1 for each control and repeat. These may be removed or
    replaced: if the row before had some, this one comes after it and says so.
    """
    contenders = sum(contender.state == "complete" for contender in study.contenders)
    step = 1000 * len(study.complete) + min(contenders, 999)
    had_some = start > 0 and (start - 1) % 1000 > 0
    if not study.complete or (step < start and not had_some):
        return
    trials = [trial.row() for trial in study.complete]
    found = pareto_table(study, comparison)
    front = sorted(found["front"], key=lambda row: row["params"])
    chart = _front_chart(study, trials, front, found["controls"])
    row: Row = {"trials": _table(trials), "front": _table(_flat(front)), "front_chart": chart}
    if found["controls"] or had_some:
        row["controls"] = _table(_flat(found["controls"]))
    yield max(step, start), row


def _flat(rows: list[Row]) -> list[Row]:
    """Rows whose values all fit into a cell: the number of seeds instead of their list."""
    return [{**row, "seeds": len(row["seeds"])} for row in rows]


def _table(rows: list[Row]) -> Table:
    columns = list(rows[0]) if rows else []
    return Table(columns, [[row[name] for name in columns] for row in rows])


def _headlines(study: StudyRecord, comparison: Comparison) -> dict[str, Any]:
    """The few numbers that summarise the study."""
    headlines: dict[str, Any] = {}
    if complete := study.complete:
        headlines["best_val_accuracy"] = max(trial.metrics["val_accuracy"] for trial in complete)
    if dense := study.dense.metrics:
        near = smallest_near(study, comparison)
        headlines["dense_val_accuracy"] = dense["val_accuracy"]
        headlines["dense_params"] = dense["params"]
        headlines["smallest_params_near_dense"] = comparison.of_trial(near).size("params") if near else None
    return headlines


def _front_chart(study: StudyRecord, trials: list[Row], front: list[Row], controls: list[Row]) -> Any:
    """Validation accuracy over parameters, as a plotly figure, which needs no chart preset on the server."""
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
    for kind in dict.fromkeys(row["kind"] for row in controls):
        of_kind = [row for row in controls if row["kind"] == kind]
        means, errors = ([row[f"val_accuracy_{name}"] for row in of_kind] for name in ("mean", "se"))
        figure.add_trace(
            go.Scatter(
                x=[row["params"] for row in of_kind],
                y=means,
                error_y={"array": errors},
                name=f"{kind} control",
                mode="lines+markers",
                marker_symbol="square",
            )
        )
    if metrics := study.dense.metrics:
        dense = {"x": [metrics["params"]], "y": [metrics["val_accuracy"]]}
        figure.add_trace(go.Scatter(**dense, name="dense", mode="markers", marker_symbol="star"))
    figure.update_xaxes(title="parameters", type="log")
    figure.update_yaxes(title="validation accuracy", tickformat=".1%")
    return figure
