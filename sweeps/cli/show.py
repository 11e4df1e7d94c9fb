"""Commands that show a study and change nothing: status, pareto."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from slimnet.wording import file_size
from sweeps.cli import studies
from sweeps.cli.options import RUNS, ConfigArgument, JsonOption, RunsOption
from sweeps.comparison import Comparison, Measured
from sweeps.config import MEASURED
from sweeps.console import Console
from sweeps.outputs import CONTROLS, pareto_table
from sweeps.progress import ProgressFile
from sweeps.records import FACTS, ContenderRecord, StageRecord, StudyRecord, TrialRecord
from sweeps.report.summary import constraints_unmet, epochs_saved, how_far
from sweeps.report.verdicts import against, with_error
from sweeps.state import read_study
from sweeps.study import Holder

UNFINISHED = ("running", "waiting", "interrupted")


def status_command(config: ConfigArgument, runs: RunsOption = RUNS, as_json: JsonOption = False) -> None:
    """Show the trials and how far they are.

    A trial is running, waiting (for a worker or another trial), interrupted (begun, but its study is not
    being run), complete, stopped (early, as it could not reach the front), or failed.
    """
    record = read_study(runs, studies.last_config(config, runs))
    for damage in record.damage:
        Console().error(damage)
    running = _computed_now(runs / record.name)
    rows = [
        {
            "trial": trial.number,
            **trial.params,
            "state": _state(trial, trial.number, running),
            **{stage.name: _stage_state(stage) for stage in trial.stages},
            **_reached(trial.metrics),
            **(trial.measured if as_json else {}),
            "reason": trial.reason,
        }
        for trial in record.trials
    ]
    beside = [
        {
            "network": one.name,
            "state": _state(one, one.name, running),
            **_reached(one.metrics),
            "reason": one.reason,
        }
        for one in record.contenders
    ]
    if as_json:
        facts = {"study": record.name, "goal": record.goal, "epochs_saved": record.epochs_saved}
        print_json({**facts, "trials": rows, "beside": beside})
        return
    console = Console()
    unfinished = Counter(str(row["state"]) for row in rows if row["state"] in UNFINISHED)
    which = ", ".join(f"{number} {state}" for state, number in unfinished.items())
    console.say(f"study {record.name}: {how_far(record)}{f' ({which})' if which else ''}")
    if record.stopped:
        console.say(epochs_saved(record))
    console.table(_without_empty_reasons(_filled(rows)))
    if beside:
        console.table(_without_empty_reasons(beside), "Controls and repeats")


def _computed_now(study: Path) -> set[int | str] | None:
    """Numbers of trials, and names of controls and repeats, that are being computed; None if no run is."""
    since = Holder(study).since()
    if since is None:
        return None
    progress = ProgressFile(study).read(since)
    stages = progress.running if progress else []
    return {who for stage in stages for who in (*stage.trials, stage.beside) if who is not None}


def _state(one: TrialRecord | ContenderRecord, who: int | str, running: set[int | str] | None) -> str:
    """How far a trial or what stands beside one is, given what is being computed."""
    if one.state != "running":
        return one.state
    if running is not None:
        return "running" if who in running else "waiting"
    return "waiting" if all(stage.state == "missing" for stage in one.stages) else "interrupted"


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
    """Print the Pareto front of a study.

    Its trials are those that no other trial dominates.
    """
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
            "control": f"{one.kind} of trial {one.trial}",
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
