"""Commands that show a study and change nothing: plan, status, pareto."""

from __future__ import annotations

import json
from typing import Any

from slimnet.wording import file_size
from sweeps.cli import studies
from sweeps.cli.options import (
    RUNS,
    ConfigArgument,
    DataOption,
    JsonOption,
    RunsOption,
    SetOption,
    TrialsOption,
)
from sweeps.comparison import Comparison, Measured
from sweeps.config import MEASURED, load_config
from sweeps.config.space import count_points
from sweeps.console import Console
from sweeps.outputs import CONTROLS, pareto_table
from sweeps.records import FACTS, ContenderRecord, StageRecord, StudyRecord, TrialRecord
from sweeps.report.summary import constraints_unmet, how_far
from sweeps.report.verdicts import against, with_error
from sweeps.report.wording import plural
from sweeps.state import count_states, read_study
from sweeps.study import check_config, is_held


def plan_command(
    config: ConfigArgument,
    trials: TrialsOption = None,
    overrides: SetOption = [],  # noqa: B006 - typer reads it as the default and copies it
    runs: RunsOption = RUNS,
    data_dir: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what `run` would do: trials, stages, what is already computed, epochs left.

    Writes nothing but data it downloads, which it needs where a network is not slimnet's own.
    """
    extra = [f"search.trials={trials}"] if trials is not None else []
    settings = load_config(config, [*overrides, *extra])
    studies.check_search(settings)
    settings = check_config(runs / settings.study, settings)
    state = studies.state_of(settings, runs, data_dir=data_dir)
    counts, left = count_states(state.stages()), state.epochs_ahead()
    points = count_points(settings.search.space)
    if as_json:
        print_json(
            {
                "study": settings.study,
                "goal": state.goal,
                "asked": state.asked,
                "points": points,
                "stages": counts,
                "epochs_left": {kind: int(epochs) for kind, epochs in left.items()},
            }
        )
        return
    console = Console()
    size = "infinitely many points" if points is None else plural(points, "point")
    console.say(f"study {settings.study}: {state.asked} of {plural(state.goal, 'trial')} sampled")
    console.say(f"search space: {size}, sampler {settings.search.sampler}")
    told = ", ".join(f"{count} {name}" for name, count in counts.items())
    console.say(f"stages of these trials, the baseline, the curves and the controls known so far: {told}")
    sparse, tuned = left["sparse"] + left["early"], left["finetune"]
    console.say(f"epochs left: at most {sparse:.0f} of sparse training, {tuned:.0f} of fine-tuning")


def status_command(config: ConfigArgument, runs: RunsOption = RUNS, as_json: JsonOption = False) -> None:
    """Show the trials of a study and how far their stages are."""
    record = read_study(runs, studies.last_config(config, runs))
    for damage in record.damage:
        Console().error(damage)
    works = is_held(runs / record.name)
    rows = [
        {
            "trial": trial.number,
            **trial.params,
            "state": _state(trial, works),
            **{stage.name: _stage_state(stage) for stage in trial.stages},
            **_reached(trial.metrics),
            **(trial.measured if as_json else {}),
            "reason": trial.reason,
        }
        for trial in record.trials
    ]
    beside = [
        {"network": one.name, "state": _state(one, works), **_reached(one.metrics), "reason": one.reason}
        for one in record.contenders
    ]
    if as_json:
        print_json({"study": record.name, "goal": record.goal, "trials": rows, "beside": beside})
        return
    console = Console()
    console.say(f"study {record.name}: {how_far(record)}")
    console.table(_without_empty_reasons(_filled(rows)))
    if beside:
        console.table(_without_empty_reasons(beside), "Controls and repeats")


def _state(one: TrialRecord | ContenderRecord, works: bool) -> str:
    """How far a trial or what stands beside one is, given whether the study is being run."""
    if one.state != "running":
        return one.state
    if all(stage.state == "missing" for stage in one.stages):
        return "waiting"
    return "running" if works else "interrupted"


def _reached(metrics: dict[str, Any]) -> dict[str, Any]:
    return {"val_accuracy": metrics.get("val_accuracy")}


def _filled(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows that all have the same columns, as trials may have different stages; each keeps its order."""
    names: list[str] = []
    for row in rows:
        place = 0
        for name in row:
            if name not in names:
                names.insert(place, name)
            place = names.index(name) + 1
    return [{name: row.get(name) for name in names} for row in rows]


def _without_empty_reasons(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if any(row["reason"] for row in rows):
        return rows
    return [{key: value for key, value in row.items() if key != "reason"} for row in rows]


def pareto_command(config: ConfigArgument, runs: RunsOption = RUNS, as_json: JsonOption = False) -> None:
    """Print the Pareto front: the trials that no other trial dominates."""
    record = studies.read(config, runs)
    if as_json:
        print_json(pareto_table(record))
    else:
        print_front(Console(), record, Comparison(record))


def print_front(console: Console, record: StudyRecord, comparison: Comparison) -> None:
    """Print the front as a table, with the dense network below it, and the controls as another."""
    if not record.front:
        unmet = constraints_unmet(record)
        console.say(f"study {record.name}{f': {unmet}' if unmet else ' has no finished trial yet'}")
        return
    rows = [_front_row(record, comparison, point) for point in comparison.points]
    if dense := comparison.dense:
        rows.append({"trial": "dense", **_measured_cells(dense)})
    rows = _filled(rows)
    seeds = f", mean ± standard error of {comparison.seeds} seeds" if comparison.seeds > 1 else ""
    console.table(rows, f"Pareto front of {record.name} (selected on the validation split{seeds})")
    if any(row.get("latency") for row in rows):
        console.note("latency: milliseconds for 1 and for 64 images on this study's machine, on one thread")
    controls = [
        {
            "control": one.kind,
            "of trial": one.trial,
            **_measured_cells(one),
            "comparison": against(comparison, one),
        }
        for kind in CONTROLS
        for one in comparison.of_kind(kind)
    ]
    if controls:
        console.table(controls, "Simpler ways to networks of these sizes, with as many epochs")


def _front_row(record: StudyRecord, comparison: Comparison, point: Measured) -> dict[str, Any]:
    assert point.trial is not None, "points are trials"
    row = record.trials[point.trial].row()
    asked = {name: value for name, value in row.items() if name not in ("trial", *FACTS, *MEASURED)}
    smaller = ""
    if comparison.dense:
        smaller = f"{comparison.dense.size('params') / point.size('params'):.1f}x"
    return {"trial": point.trial, **asked, **_measured_cells(point), "smaller": smaller}


def _measured_cells(one: Measured) -> dict[str, Any]:
    """Size, epochs and accuracies of a network, as the terminal's tables show them."""
    return {
        "params": one.size("params"),
        "macs": one.size("macs"),
        "epochs": one.epochs,
        **{metric: with_error(one, metric) for metric in ("val_accuracy", "test_accuracy")},
        **_deployment_cells(one),
    }


def _deployment_cells(one: Measured) -> dict[str, str]:
    """Latency and file size; nothing in a study that does not measure them."""
    latencies = [one.known(name) for name in ("latency_ms", "latency_ms_64")]
    size = one.known("file_bytes")
    if size is None:
        return {}
    return {
        "latency": " / ".join(f"{value:.3g}" for value in latencies if value is not None),
        "file": file_size(round(size)),
    }


def print_json(facts: Any) -> None:
    """Print a result for a program to read."""
    print(json.dumps(facts, indent=2, ensure_ascii=False))


def _stage_state(stage: StageRecord) -> str:
    if stage.state == "partial":
        epochs = stage.spec.get("until") or stage.spec["recipe"]["epochs"]
        return f"epoch {stage.epochs_done} of {epochs}"
    return stage.state
