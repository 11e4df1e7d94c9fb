"""What every part of the report agrees on: the name and the colour of a trial and of a sparse training.

Trials are coloured by λ. A study that does not search λ is coloured by the first thing that it does vary.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sweeps.report.wording import plain
from sweeps.results import StageRecord, StudyRecord, TrialRecord

LAMBDA = "sparse.lambda"
RATIO = "prune.ratio"
_NAMES = {LAMBDA: "λ", RATIO: "ratio"}

# From blue over purple to orange: told apart with any colour vision, and each at least 3:1 against the white
# and against the near-black page.
RAMP = ("#2f6fd0", "#7f63c4", "#b8569b", "#d75f5c", "#d5832a")
NEUTRAL = "#7b828c"  # the dense network and λ = 0

MOST_KEYS = 8  # with more values than these a legend is a scale instead of a list


def path_name(path: str) -> str:
    """How the report calls a searched field: "λ", "ratio", or its dotted path."""
    return _NAMES.get(path, path)


def value_at(trial: TrialRecord, path: str) -> Any:
    """What a trial has at a searched path; λ and ratio also where they are not searched."""
    if path == LAMBDA:
        return trial.strength
    if path == RATIO:
        return trial.config.prune.ratio
    value = trial.params[path]
    return tuple(value) if isinstance(value, list) else value


def paths(study: StudyRecord) -> list[str]:
    """λ, ratio, and whatever else the study searches."""
    return [LAMBDA, RATIO, *(path for path in study.config.search.space if path not in _NAMES)]


def describe(trial: TrialRecord, *, stages: Iterable[str] = ("sparse", "prune", "finetune")) -> str:
    """What sets a trial apart: "λ 0.012 · ratio 0.7 · model.width 16".

    With `stages=("sparse",)` only what matters for the sparse training that it shares with other trials.
    """
    later = {"prune", "finetune"}.difference(stages)
    shown = [LAMBDA, RATIO, *(path for path in trial.params if path not in _NAMES)]
    return " · ".join(
        f"{path_name(path)} {plain(value_at(trial, path))}"
        for path in shown
        if path.partition(".")[0] not in later
    )


def ramp(position: float) -> str:
    """The colour at a position from 0 to 1 along the ramp, as #rrggbb."""
    index = min(int(position * (len(RAMP) - 1)), len(RAMP) - 2)
    part = position * (len(RAMP) - 1) - index
    mixed = (a + (b - a) * part for a, b in zip(rgb(RAMP[index]), rgb(RAMP[index + 1]), strict=True))
    return "#" + "".join(f"{round(channel):02x}" for channel in mixed)


def rgb(colour: str) -> tuple[int, int, int]:
    """#rrggbb as numbers from 0 to 255."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


@dataclass(frozen=True)
class Shading:
    """One colour per value of the field at `path`, in ascending order of the values."""

    path: str
    colours: dict[Any, str]

    @classmethod
    def of(cls, study: StudyRecord) -> Shading:
        """Along the logarithm of λ; by rank for fields that have no logarithm."""
        searched = [LAMBDA, *(path for path in paths(study) if path != LAMBDA)]
        values = {path: {value_at(trial, path) for trial in study.trials} for path in searched}
        path = next((path for path in searched if len(values[path]) > 1), LAMBDA)
        ordered = sorted(
            values[path], key=lambda v: (0, v, "") if isinstance(v, int | float) else (1, 0, str(v))
        )
        return cls(
            path, dict(zip(ordered, map(ramp, _positions(ordered)), strict=True)) | _zero(path, ordered)
        )

    def colour(self, trial: TrialRecord) -> str:
        return self.colours[value_at(trial, self.path)]

    def label(self, value: Any) -> str:
        return f"{path_name(self.path)} {plain(value)}"

    @property
    def is_scale(self) -> bool:
        """Whether there are too many values to list them one by one."""
        return len(self.colours) > MOST_KEYS


def _positions(values: Sequence[Any]) -> list[float]:
    """Where ascending values lie between the lowest (0) and the highest (1)."""
    numbers = [value for value in values if isinstance(value, int | float) and value > 0]
    if len(numbers) < len([value for value in values if value != 0]):
        return [index / max(len(values) - 1, 1) for index in range(len(values))]
    span = math.log(numbers[-1] / numbers[0]) if numbers else 0
    return [math.log(value / numbers[0]) / span if value and span else 0.0 for value in values]


def _zero(path: str, values: Sequence[Any]) -> dict[Any, str]:
    return {0: NEUTRAL} if path == LAMBDA and 0 in values else {}


@dataclass(frozen=True)
class SparseRun:
    """One sparse training, whatever the number of trials that go on from it."""

    stage: StageRecord
    lambda_: float
    label: str
    colour: str
    searched: bool  # False for a dense baseline that no trial goes on from


def sparse_runs(study: StudyRecord, shading: Shading) -> list[SparseRun]:
    """The distinct sparse trainings of a study by λ, the dense baseline among them."""
    runs: dict[str, SparseRun] = {}
    order = list(shading.colours)
    for trial in sorted(study.trials, key=lambda trial: order.index(value_at(trial, shading.path))):
        stage = trial.stages[0]
        runs.setdefault(
            stage.key,
            SparseRun(
                stage,
                trial.strength,
                describe(trial, stages=("sparse",)),
                shading.colour(trial)
                if shading.path.partition(".")[0] not in ("prune", "finetune")
                else RAMP[0],
                searched=True,
            ),
        )
    runs.setdefault(study.dense.key, SparseRun(study.dense, 0.0, "dense, λ 0", NEUTRAL, searched=False))
    return sorted(runs.values(), key=lambda run: (run.lambda_, run.searched))


def three_lambdas(runs: Sequence[SparseRun]) -> list[SparseRun]:
    """The lowest, a middle and the highest λ of the searched trainings that have a histogram of γ."""
    seen = [run for run in runs if run.searched and histograms(run.stage)]
    by_lambda = {run.lambda_: run for run in reversed(seen)}
    chosen = sorted(by_lambda.values(), key=lambda run: run.lambda_) if len(by_lambda) > 1 else seen
    return chosen if len(chosen) <= 3 else [chosen[0], chosen[len(chosen) // 2], chosen[-1]]


def curve(stage: StageRecord, metric: str) -> list[tuple[int, float]]:
    """(epoch, value) wherever a stage's history has the metric: accuracies are not measured every epoch."""
    return [(row["epoch"], row[metric]) for row in stage.history if metric in row]


def histograms(stage: StageRecord) -> list[dict[str, Any]]:
    """The rows of a stage's history that hold a histogram of γ."""
    return [row for row in stage.history if row.get("gamma")]


def distinct_trials(study: StudyRecord) -> list[TrialRecord]:
    """The trials by number, without those that repeat what an earlier one computed."""
    first: dict[str, TrialRecord] = {}
    for trial in study.trials:
        first.setdefault(trial.stages[-1].key, trial)
    return list(first.values())
