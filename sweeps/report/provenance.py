"""How a study was run: its seed, its machines and versions, the time of its stages, its config."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sweeps.config import dump_config
from sweeps.records import StageRecord, StudyRecord
from sweeps.report.blocks import Cell, Code, Column, Facts, Paragraph, Row, Section, Table
from sweeps.report.wording import count, hours_minutes_seconds, times
from sweeps.stages import KINDS


def how_it_was_run(study: StudyRecord) -> Section:
    """What is needed to judge the numbers and to reproduce them."""
    chains = [trial.stages for trial in study.trials] + [one.stages for one in study.contenders]
    uses = [study.dense, *(stage for stages in chains for stage in stages), *study.curves.values()]
    distinct = list({stage.key: stage for stage in uses}.values())
    return Section(
        "how",
        "How it was run",
        (
            Facts(
                (
                    ("seed", f"{study.config.seed}"),
                    ("study", study.uid),
                    *_environment(distinct),
                    *_memory(distinct),
                )
            ),
            Paragraph(_in_all(uses, distinct)),
            _times(uses, distinct),
            Code(dump_config(study.config), summary="The config, as YAML"),
            Paragraph(f"To run it again, save the config as {study.name}.yaml:"),
            Code(f"python -m sweeps run {study.name}.yaml"),
        ),
    )


def _environment(stages: Iterable[StageRecord]) -> list[tuple[str, str]]:
    """What the stages ran on; several values if the study was continued on another machine."""
    found: dict[str, dict[str, None]] = {}
    for stage in stages:
        for name, value in ((stage.result or {}).get("environment") or {}).items():
            found.setdefault(name, {})[f"{value}"] = None
    return [(name.replace("_", " "), ", ".join(values)) for name, values in found.items()]


def _memory(stages: Iterable[StageRecord]) -> list[tuple[str, str]]:
    """The most that a stage took, where that was counted."""
    peaks = [
        stage.result["peak_bytes"] for stage in stages if stage.result and stage.result.get("peak_bytes")
    ]
    return [("peak memory of a stage", f"{max(peaks) / 1e6:,.0f} MB")] if peaks else []


def _in_all(uses: Sequence[StageRecord], distinct: Sequence[StageRecord]) -> str:
    """What the study took, and what the sharing of stages saved."""
    spent, alone = _seconds(distinct), _seconds(uses)
    if not spent:
        return "Nothing has been computed yet."
    shared = (
        f" Equal stages were computed once: without that it would have taken {hours_minutes_seconds(alone)}, "
        f"{times(alone / spent)} as long."
        if alone > spent
        else ""
    )
    return f"All computing together took {hours_minutes_seconds(spent)}.{shared}"


def _times(uses: Sequence[StageRecord], distinct: Sequence[StageRecord]) -> Table:
    """Stages by kind: how many are needed, and how many are computed."""
    rows = [
        _time_row(spec.title, of_kind, [s for s in distinct if s.kind == kind])
        for kind, spec in KINDS.items()
        if (of_kind := [s for s in uses if s.kind == kind])
    ]
    caption = (
        "Stages that the dense baseline, the trials, their controls and repeats and the curves over the "
        "ratio need, and how many were computed: equal stages are computed once and shared. Time is the sum "
        "over the stages, whether or not they ran in parallel."
    )
    columns = tuple(map(Column, ("stage", "needed", "computed", "shared", "time", "saved")))
    return Table(caption, columns, (*rows, _time_row("all", uses, distinct)))


def _time_row(name: str, uses: Sequence[StageRecord], distinct: Sequence[StageRecord]) -> Row:
    spent = _seconds(distinct)
    cells = (
        name,
        count(len(uses)),
        count(sum(stage.state == "done" for stage in distinct)),
        count(len(uses) - len(distinct)),
        hours_minutes_seconds(spent),
        hours_minutes_seconds(_seconds(uses) - spent),
    )
    return Row(tuple(map(Cell, cells)))


def _seconds(stages: Iterable[StageRecord]) -> float:
    return sum(float(stage.result["seconds"]) for stage in stages if stage.result)
