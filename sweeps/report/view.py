"""A study as all parts of the report use it: the names of its trials, and the λ of each, read once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sweeps.comparison import Comparison, recommended
from sweeps.config import Config
from sweeps.records import StageRecord, StudyRecord, TrialRecord
from sweeps.report.wording import searched_value

LAMBDA = "sparse.lambda"
RATIO = "prune.ratio"
_NAMES = {LAMBDA: "λ", RATIO: "ratio"}


def path_name(path: str) -> str:
    """The name of a searched field in the report: "λ", "ratio", or its dotted path."""
    return _NAMES.get(path, path)


class StudyView:
    """A study, and what would otherwise be computed again for every figure.

    Attributes:
        study: what is shown.
        complete: the trials that reached the end of their chain, by number.
        distinct: the trials by number, without those with the same stages as an earlier one.
        front: numbers of the trials that no other trial dominates.
        comparison: the dense network, the front's points and their controls, over seeds.
        best: the trial that the headline names, if it names one.
        measured: whether latency and file size are known of any trial.
        paths: λ, ratio, and the other fields that the study searches.
        passes: of multi-pass slimming, in the trial with the most.
    """

    def __init__(self, study: StudyRecord, comparison: Comparison | None = None) -> None:
        self.study = study
        self.complete = study.complete
        self.distinct = list({trial.stages[-1].key: trial for trial in reversed(study.trials)}.values())[::-1]
        self.front = frozenset(study.front)
        self.comparison = comparison or Comparison(study)
        self.measured = any(trial.metrics.get("file_bytes") is not None for trial in self.complete)
        self.best = recommended(study, self.comparison)
        self.paths = [LAMBDA, RATIO, *(path for path in study.config.search.space if path not in _NAMES)]
        self.passes = max((trial.stages[-1].pass_number for trial in study.trials), default=1)
        self._lambdas = _lambdas(study.trials)

    def value(self, trial: TrialRecord, path: str) -> Any:
        """A trial's value at a searched path; λ and ratio even if they are not searched."""
        if path == LAMBDA:
            return self._lambdas[trial.first("sparse").key]
        if path == RATIO:
            return trial.ratio
        value = trial.params[path] if path in trial.params else _kept(trial.config, path)
        if isinstance(value, dict):
            return ", ".join(f"{name} {inner}" for name, inner in value.items()) or "none"
        return tuple(value) if isinstance(value, list) else value

    def trial_label(self, trial: TrialRecord) -> str:
        """What distinguishes a trial: "λ 0.012 · ratio 0.7 · model.width 16"."""
        return self._label(trial, self._paths_of(trial))

    def sparse_label(self, trial: TrialRecord) -> str:
        """What distinguishes a trial's first sparse training run, which other trials may share."""
        later = ("prune", "finetune")
        return self._label(
            trial, [path for path in self._paths_of(trial) if path.partition(".")[0] not in later]
        )

    def trial_name(self, trial: TrialRecord) -> str:
        """Number and label: "3: λ 0.012 · ratio 0.7"."""
        return f"{trial.number}: {self.trial_label(trial)}"

    def _label(self, trial: TrialRecord, paths: Iterable[str]) -> str:
        return " · ".join(f"{path_name(path)} {searched_value(self.value(trial, path))}" for path in paths)

    def _paths_of(self, trial: TrialRecord) -> list[str]:
        return [LAMBDA, RATIO, *(path for path in trial.params if path not in _NAMES)]


def _kept(config: Config, path: str) -> Any:
    """The config's value of a field that the trial's part of the space does not search."""
    value: Any = config.model_dump(mode="json", by_alias=True)
    for key in path.split("."):
        value = value[key]
    return value


def stage_of_pass(trial: TrialRecord, kind: str, pass_number: int) -> StageRecord | None:
    """A trial's stage of a kind in a pass; None if it has no such pass."""
    return next((s for s in trial.stages if s.kind == kind and s.pass_number == pass_number), None)


def _lambdas(trials: Iterable[TrialRecord]) -> dict[str, float]:
    """λ by the key of the sparse stage; read once, as an adjusted λ is in a file."""
    lambdas: dict[str, float] = {}
    for trial in trials:
        key = trial.first("sparse").key
        if key not in lambdas:
            lambdas[key] = trial.strength
    return lambdas
