"""What W&B shows of a study as a whole: the run of the study, and the views of all of its runs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from sweeps.comparison import Comparison, best_of_front, smallest_near
from sweeps.growth import growth
from sweeps.outputs import columns_of, pareto_table
from sweeps.records import StudyRecord, TrialRecord
from sweeps.tracking.views import (
    STUDY,
    TIME,
    Histogram,
    Row,
    RunState,
    RunView,
    Standing,
    Table,
    contender_view,
    dense_view,
    histogram_of,
    mark_of,
    run_id,
    tags_of,
    trial_view,
)

_ROWS = "2"  # another where the rows mean something else, as those of earlier versions stay on the server


def study_views(study: StudyRecord) -> list[RunView]:
    """The views of a study's runs: the dense network, all trials, controls and repeats, and the study."""
    stands = standings(study)
    return [
        dense_view(study),
        *(trial_view(study, trial, stands.get(trial.number, "")) for trial in study.trials),
        *(contender_view(study, contender) for contender in study.contenders),
        study_view(study),
    ]


def standings(study: StudyRecord) -> dict[int, Standing]:
    """How the trials of the front stand, by number, once the study has ended."""
    if not study.ended:
        return {}
    best = best_of_front(study, Comparison(study))
    return {number: "best" if best and number == best.number else "front" for number in study.front}


def study_view(study: StudyRecord) -> RunView:
    """The run of the study itself.

    Its rows are numbers, one row per complete trial. They follow from the trials in their order alone, so
    that they are the same however the study was tracked. The tables and the chart change with every trial,
    and are in the summary.
    """
    complete = [trial.number for trial in study.complete]
    failed = [trial for trial in study.trials if trial.state == "failed"]
    ended = len(complete) + len(study.stopped) + len(failed)
    state: RunState = "complete" if ended >= study.goal and study.ended else "running" if ended else "waiting"
    comparison = Comparison(study)
    numbers = {
        "state": state,
        "goal": study.goal,
        "complete": len(complete),
        "stopped": len(study.stopped),
        "failed": len(failed),
        "epochs_saved": study.epochs_saved,
        **_headlines(study, comparison),
    }
    shown = [(one.name, one.stages[-1].key, one.state) for one in study.contenders]
    return RunView(
        id=run_id(study, "study"),
        name=f"study {study.name}",
        project=study.config.wandb.project,
        entity=study.config.wandb.entity,
        group=study.name,
        job_type="study",
        tags=tags_of(study, "study"),
        notes=f"The study {study.name}: all of its trials, its front and its controls.",
        epoch_axes=(),
        state=state,
        mark=mark_of(
            study.uid,
            study.config.wandb.model_dump(exclude={"mode"}),
            numbers,
            study.front,
            complete,
            [trial.measured for trial in study.complete],
            shown,
            [trial.reason for trial in study.trials],
        ),
        chain=_ROWS,
        count_rows=partial(_count_rows, study),
        make_seconds=lambda: 0.0,
        make_config=lambda: {STUDY: study.uid, **study.config.model_dump(mode="json", by_alias=True)},
        make_summary=lambda: numbers | _tables(study, comparison),
        rows=partial(_rows, study),
    )


def _told(study: StudyRecord) -> list[TrialRecord]:
    """The trials that reached a network or were stopped, in order, before the first that still runs.

    None before the baseline ends.
    """
    told: list[TrialRecord] = []
    if study.dense.state not in ("done", "failed"):
        return told
    for trial in study.trials:
        if trial.state == "running":
            break
        if trial.state != "failed":
            told.append(trial)
    return told


def _count_rows(study: StudyRecord, before: int | None) -> int:
    """How many rows `_rows` yields before a step."""
    complete = [trial.number for trial in _told(study) if trial.state == "complete"]
    return sum(before is None or number < before for number in complete)


def _rows(study: StudyRecord, start: int) -> Iterator[tuple[int, Row]]:
    """How the front has grown, trial by trial: over the trials, and over the epochs that they have cost.

    A stage that trials share counts with the first of them.
    """
    best = 0.0
    for step in growth(study, _told(study)):
        trial = step.trial
        if trial.state != "complete":
            continue
        best = max(best, trial.metrics["val_accuracy"])
        if trial.number < start:
            continue
        found: Row = {
            "trial": trial.number,
            "epochs": step.epochs,
            "front_size": step.front_size,
            "best_val_accuracy": best,
            "val_accuracy": trial.metrics["val_accuracy"],
            "params": trial.metrics["params"],
        }
        if step.volume is not None:
            found["hypervolume"] = step.volume
        if ended := (trial.stages[-1].result or {}).get("ended"):
            found[TIME] = ended
        yield trial.number, found


def _tables(study: StudyRecord, comparison: Comparison) -> dict[str, Any]:
    """The tables and the chart of the study as it is now."""
    trials = [{**trial.row(), **trial.measured} for trial in study.complete]
    found = pareto_table(study, comparison)
    front = sorted(_flat(found["front"]), key=lambda row: row["params"])
    controls = _flat(found["controls"])
    unfinished = [
        [trial.number, trial.state, trial.reason]
        for trial in study.trials
        if trial.state in ("failed", "stopped")
    ]
    return _gammas(study) | {
        "trials": _table(trials),
        "front": _table(front),
        "controls": _table(controls),
        "not_complete": Table(["trial", "state", "reason"], unfinished),
        "front_chart": _front_chart(study, trials, front, controls),
    }


def _gammas(study: StudyRecord) -> dict[str, Histogram]:
    """The scaling factors at the end of sparse training, for the least, the middle and the largest λ."""
    sparse = {
        (trial.config.sparse.target or trial.config.sparse.lambda_): trial.first("sparse")
        for trial in study.complete
    }
    strengths = sorted(sparse)
    shown = {strengths[place] for place in (0, len(strengths) // 2, -1)} if strengths else set()
    ends = {
        strength: histogram_of(rows[-1].get("gamma"))
        for strength in sorted(shown)
        if (rows := sparse[strength].history)
    }
    return {f"gamma/{strength:g}": end for strength, end in ends.items() if end}


def _flat(rows: list[Row]) -> list[Row]:
    """Rows whose values all fit into a cell: the number of seeds instead of their list."""
    return [{**row, "seeds": len(row["seeds"])} for row in rows]


def _table(rows: list[Row]) -> Table:
    columns = columns_of(rows)
    return Table(columns, [[row.get(name) for name in columns] for row in rows])


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

    def over_seeds(rows: list[Row], name: str, *, symbol: str) -> Any:
        means, errors = ([row[f"val_accuracy_{what}"] for row in rows] for what in ("mean", "se"))
        return go.Scatter(
            x=[row["params"] for row in rows],
            y=means,
            error_y={"array": errors},
            name=name,
            mode="lines+markers",
            marker_symbol=symbol,
        )

    figure = go.Figure()
    figure.add_trace(points(trials, "trials", mode="markers"))
    figure.add_trace(points(front, "front", mode="lines+markers"))
    repeated = [row for row in front if row["seeds"] > 1]
    if repeated:
        figure.add_trace(over_seeds(repeated, "front, mean over seeds", symbol="circle-open"))
    for kind in dict.fromkeys(row["kind"] for row in controls):
        of_kind = [row for row in controls if row["kind"] == kind]
        figure.add_trace(over_seeds(of_kind, f"{kind} control", symbol="square"))
    if metrics := study.dense.metrics:
        dense = {"x": [metrics["params"]], "y": [metrics["val_accuracy"]]}
        figure.add_trace(go.Scatter(**dense, name="dense", mode="markers", marker_symbol="star"))
    figure.update_xaxes(title="parameters", type="log")
    figure.update_yaxes(title="validation accuracy", tickformat=".1%")
    return figure
