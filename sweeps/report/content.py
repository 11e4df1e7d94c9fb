"""What the report says, from a study's records: one content, whatever it is shown with.

A report is a headline and sections; a section is a title and blocks. All texts are plain, without markup.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from sweeps.config import dump_config
from sweeps.report import figures, gamma, view, wording
from sweeps.report.drawing import Figure
from sweeps.report.view import NEUTRAL, Shading
from sweeps.report.wording import count, duration, percent, plural, times
from sweeps.results import StageRecord, StudyRecord, TrialRecord

POINT = 0.01
_ROUNDING = 1e-9  # an accuracy of exactly one point less counts as within one point
STAGES_FROM_REPORT = PurePath("../../stages")
SPLITS = ("validation", "test")
_KINDS = {"sparse": "sparse training", "prune": "pruning", "finetune": "fine-tuning"}


@dataclass(frozen=True)
class Paragraph:
    text: str


@dataclass(frozen=True)
class Code:
    """Text to copy, shown as it is; folded behind `summary` if there is one."""

    text: str
    summary: str = ""


@dataclass(frozen=True)
class Facts:
    """Pairs of a name and what it is."""

    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Cell:
    """What a table shows, what it is sorted by (None: always last), and where it leads."""

    text: str
    value: float | str | None = None
    link: str = ""


@dataclass(frozen=True)
class Row:
    """`mark` sets a row apart and says why; a `pinned` row stays on top however the table is sorted."""

    cells: tuple[Cell, ...]
    mark: str = ""
    pinned: bool = False
    colour: str = ""


@dataclass(frozen=True)
class Column:
    """A column of a table; neighbours of the same `group` stand under its name."""

    name: str
    group: str = ""
    text: bool = False  # otherwise numbers, which line up on the right


@dataclass(frozen=True)
class Table:
    """The first column names the rows."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    sortable: bool = False


Block = Paragraph | Code | Facts | Table | Figure


@dataclass(frozen=True)
class Section:
    anchor: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Report:
    title: str
    headline: str
    state: str
    sections: tuple[Section, ...]


def report(study: StudyRecord, stages: PurePath) -> Report:
    """The whole content. `stages` is the folder of the stages as a reader's program would name it."""
    shading = Shading.of(study)
    sections = (
        _front(study, shading),
        _sparse_training(study, shading),
        _scaling_factors(study, shading),
        _before_and_after(study, shading),
        _fine_tuning(study, shading),
        _all_trials(study, shading),
        _networks(study, shading, stages),
        _how(study),
        _failures(study),
    )
    return Report(study.name, headline(study), state(study), tuple(part for part in sections if part.blocks))


def headline(study: StudyRecord) -> str:
    """The study's result in plain words: the smallest network about as good as the dense one."""
    dense = study.dense.metrics
    if not study.complete:
        return "No trial has finished yet, so there is nothing to choose from."
    if not dense:
        best = max(study.complete, key=lambda trial: float(trial.metrics["val_accuracy"]))
        return (
            "The dense network is not trained yet, so there is nothing to compare with. "
            f"The most accurate trial so far has {_size_and_accuracy(best.metrics)} on the validation split."
        )
    trial = best_trial(study)
    if trial is None:
        return f"No trial is smaller than the dense network with its {count(dense['params'])} parameters."
    found = (
        "the smallest network within one point of the dense one"
        if _within_a_point(trial, dense)
        else "the most accurate of the smaller networks; none is within one point of the dense one"
    )
    return (
        f"From {_size_and_accuracy(dense)} to {_size_and_accuracy(trial.metrics, dense)}: {found} on the "
        f"validation split. On the test split, which had no part in the choice: "
        f"{percent(dense['test_accuracy'])} before, {percent(trial.metrics['test_accuracy'])} after."
    )


def best_trial(study: StudyRecord) -> TrialRecord | None:
    """The smallest network within one point of the dense one; without any, the most accurate smaller one."""
    dense = study.dense.metrics
    smaller = [trial for trial in study.complete if dense and trial.metrics["params"] < dense["params"]]
    near = [trial for trial in smaller if _within_a_point(trial, dense)]
    if near:
        return min(near, key=lambda trial: (trial.metrics["params"], -trial.metrics["val_accuracy"]))
    return max(smaller, key=lambda trial: float(trial.metrics["val_accuracy"]), default=None)


def _within_a_point(trial: TrialRecord, dense: dict[str, Any]) -> bool:
    loss: float = dense["val_accuracy"] - trial.metrics["val_accuracy"]
    return loss <= POINT + _ROUNDING


def _size_and_accuracy(metrics: dict[str, Any], dense: dict[str, Any] | None = None) -> str:
    factor = dense["params"] / metrics["params"] if dense else 1
    smaller = f" ({times(factor)} smaller)" if factor > 1 else ""
    unit = "" if dense else " parameters"
    return f"{count(metrics['params'])}{unit}{smaller} at {percent(metrics['val_accuracy'])}"


def state(study: StudyRecord) -> str:
    """How far the study is: "11 of 12 trials complete, 1 failed"."""
    parts = [f"{len(study.complete)} of {plural(study.goal, 'trial')} complete"]
    for word in ("failed", "running"):
        number = sum(trial.state == word for trial in study.trials)
        parts += [f"{number} {word}"] if number else []
    return ", ".join(parts)


def _front(study: StudyRecord, shading: Shading) -> Section:
    objectives = " and ".join(
        f"{direction} {_metric_name(name)}" for name, direction in study.config.search.objectives.items()
    )
    choice = Paragraph(
        f"The sweep was asked to {objectives}. Selection is on the validation split alone; accuracy on the "
        "test split is measured and reported, and took no part in any choice."
    )
    if not study.complete:
        return Section("front", "Pareto front", (choice, Paragraph("No trial has finished yet.")))
    return Section("front", "Pareto front", (choice, figures.pareto(study, shading)))


def _metric_name(name: str) -> str:
    return {
        "val_accuracy": "validation accuracy",
        "test_accuracy": "test accuracy",
        "params": "parameters",
        "macs": "MACs",
    }.get(name, name)


def _sparse_training(study: StudyRecord, shading: Shading) -> Section:
    title = "Accuracy over sparse training"
    if not any(run.stage.history for run in view.sparse_runs(study, shading)):
        return Section("sparse", title, ())
    steered = figures.steered_runs(study, shading)
    steering = (figures.steering(study, shading),) if steered else ()
    return Section("sparse", title, (figures.sparse_training(study, shading), *steering))


def _scaling_factors(study: StudyRecord, shading: Shading) -> Section:
    title = "Scaling factors"
    if not view.three_lambdas(view.sparse_runs(study, shading)):
        return Section("gamma", title, ())
    return Section("gamma", title, (gamma.scaling_factors(study, shading),))


def _before_and_after(study: StudyRecord, shading: Shading) -> Section:
    title = "Right after pruning, and after fine-tuning"
    if not any(trial.stages[1].metrics for trial in study.trials):
        return Section("pruned", title, ())
    return Section("pruned", title, (figures.before_and_after(study, shading),))


def _fine_tuning(study: StudyRecord, shading: Shading) -> Section:
    title = "Fine-tuning"
    if not any(trial.stages[2].history for trial in study.trials):
        return Section("finetune", title, ())
    return Section("finetune", title, (figures.fine_tuning(study, shading),))


def _all_trials(study: StudyRecord, shading: Shading) -> Section:
    searched = view.paths(study)
    columns = (
        Column("trial"),
        *(Column(view.path_name(path)) for path in searched),
        *map(Column, ("parameters", "smaller", "MACs")),
        *(Column(split, group) for group in ("right after pruning", "after fine-tuning") for split in SPLITS),
    )
    rows = (_dense_row(study, len(searched)), *(_trial_row(study, trial, shading) for trial in study.trials))
    caption = "Accuracy and size of the dense network and of every trial; ● marks the Pareto front."
    return Section("trials", "All trials", (Table(caption, columns, rows, sortable=True),))


def _dense_row(study: StudyRecord, searched: int) -> Row:
    metrics = study.dense.metrics
    cells = (
        Cell("dense"),
        Cell("0"),
        *[Cell(wording.UNKNOWN)] * (searched - 1),
        *_size_cells(metrics, metrics),
        *_accuracy_cells({}),
        *_accuracy_cells(metrics),
    )
    return Row(cells, pinned=True, colour=NEUTRAL)


def _trial_row(study: StudyRecord, trial: TrialRecord, shading: Shading) -> Row:
    pruned, tuned = trial.stages[1].metrics, trial.stages[2].metrics
    name = f"{trial.number}" if trial.state == "complete" else f"{trial.number} ({trial.state})"
    values = [view.value_at(trial, path) for path in view.paths(study)]
    cells = (
        Cell(name, trial.number),
        *(Cell(wording.plain(value), value) for value in values),
        *_size_cells(tuned or pruned, study.dense.metrics),
        *_accuracy_cells(pruned),
        *_accuracy_cells(tuned),
    )
    mark = "on the front" if trial.number in study.front else ""
    return Row(cells, mark, colour=shading.colour(trial))


def _size_cells(metrics: dict[str, Any], dense: dict[str, Any]) -> tuple[Cell, Cell, Cell]:
    factor = dense["params"] / metrics["params"] if metrics and dense else None
    params, macs = metrics.get("params"), metrics.get("macs")
    return (
        Cell(count(params), params),
        Cell(times(factor) if factor else wording.UNKNOWN, factor),
        Cell(count(macs), macs),
    )


def _accuracy_cells(metrics: dict[str, Any]) -> tuple[Cell, Cell]:
    val, test = metrics.get("val_accuracy"), metrics.get("test_accuracy")
    return Cell(percent(val), val), Cell(percent(test), test)


def _networks(study: StudyRecord, shading: Shading, stages: PurePath) -> Section:
    """Where the networks of the front are, and how to take one up in a program."""
    front = sorted(
        (trial for trial in study.complete if trial.number in study.front),
        key=lambda trial: float(trial.metrics["params"]),
    )
    if not front:
        return Section("networks", "The networks", ())
    chosen = best_trial(study) or front[0]
    rows = tuple(
        Row(
            (
                Cell(f"{trial.number}"),
                Cell(view.describe(trial)),
                Cell(count(trial.metrics["params"])),
                Cell(percent(trial.metrics["val_accuracy"])),
                Cell(checkpoint.as_posix(), link=checkpoint.as_posix()),
            ),
            colour=shading.colour(trial),
        )
        for trial, checkpoint in ((trial, STAGES_FROM_REPORT / _checkpoint(trial)) for trial in front)
    )
    columns = (
        Column("trial"),
        Column("from", text=True),
        Column("parameters"),
        Column("validation"),
        Column("checkpoint", text=True),
    )
    load = f'import slimnet\nmodel = slimnet.load("{(stages / _checkpoint(chosen)).as_posix()}")'
    return Section(
        "networks",
        "The networks",
        (
            Table(
                "The networks of the Pareto front, by size; paths are relative to this page.", columns, rows
            ),
            Paragraph(f"To use one in a program, here trial {chosen.number}:"),
            Code(load),
        ),
    )


def _checkpoint(trial: TrialRecord) -> PurePath:
    return PurePath("finetune", trial.stages[2].key, "checkpoint.pt")


def _how(study: StudyRecord) -> Section:
    return Section(
        "how",
        "How it was run",
        (
            Facts((("seed", f"{study.config.seed}"), ("study", study.uid), *_environment(study))),
            _times(study),
            Code(dump_config(study.config), summary="The config, as YAML"),
        ),
    )


def _environment(study: StudyRecord) -> list[tuple[str, str]]:
    """What the stages ran on; more than one value where a study went on elsewhere."""
    found: dict[str, list[str]] = {}
    for stage in _distinct(study).values():
        for name, value in ((stage.result or {}).get("environment") or {}).items():
            seen = found.setdefault(name, [])
            seen += [f"{value}"] if f"{value}" not in seen else []
    return [(name.replace("_", " "), ", ".join(values)) for name, values in found.items()]


def _uses(study: StudyRecord) -> list[StageRecord]:
    """Every stage as often as something asks for it: the dense baseline, and the chains of the trials."""
    return [study.dense, *(stage for trial in study.trials for stage in trial.stages)]


def _distinct(study: StudyRecord) -> dict[str, StageRecord]:
    return {stage.key: stage for stage in _uses(study)}


def _times(study: StudyRecord) -> Table:
    uses, distinct = _uses(study), list(_distinct(study).values())
    rows = [
        _time_row(name, [s for s in uses if s.kind == kind], [s for s in distinct if s.kind == kind])
        for kind, name in _KINDS.items()
    ]
    caption = (
        "Stages asked for by the dense baseline and the trials, and how many were computed: equal stages are "
        "computed once and shared. Time is the sum over the stages, whether they ran one after another or "
        "side by side."
    )
    columns = tuple(map(Column, ("stage", "asked for", "computed", "shared", "time", "saved")))
    return Table(caption, columns, (*rows, _time_row("all", uses, distinct)))


def _time_row(name: str, uses: Sequence[StageRecord], distinct: Sequence[StageRecord]) -> Row:
    spent = _seconds(distinct)
    numbers = (
        count(len(uses)),
        count(sum(s.state == "done" for s in distinct)),
        count(len(uses) - len(distinct)),
    )
    return Row(tuple(map(Cell, (name, *numbers, duration(spent), duration(_seconds(uses) - spent)))))


def _seconds(stages: Iterable[StageRecord]) -> float:
    return sum(float(stage.result["seconds"]) for stage in stages if stage.result)


def _failures(study: StudyRecord) -> Section:
    blocks: list[Block] = []
    for trial in study.trials:
        if trial.state == "failed":
            broken = next((stage for stage in trial.stages if stage.failure), None)
            where = f" in {_KINDS[broken.kind]}" if broken else ""
            reason = trial.reason or "no reason was kept"
            blocks.append(Paragraph(f"Trial {trial.number} ({view.describe(trial)}) failed{where}: {reason}"))
            detail = broken.failure.get("detail") if broken and broken.failure else None
            if detail:
                text = detail if isinstance(detail, str) else json.dumps(detail, indent=2, default=str)
                blocks.append(Code(text, summary=f"Details of trial {trial.number}"))
    return Section("failures", "Failed trials", tuple(blocks))
