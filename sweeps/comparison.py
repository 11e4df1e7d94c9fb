"""Means and standard errors over seeds, and which differences between networks they support.

Each seed has its own validation split, on which all networks of that seed are measured. Two networks are
therefore compared seed by seed: what they share, such as the split, cancels out of the difference. The
variance of these differences is pooled over all comparisons of the study, as each has few seeds.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sweeps.records import (
    POINT,
    ContenderKind,
    StageRecord,
    StudyRecord,
    TrialRecord,
    best_trial,
    epochs_trained,
    smallest_near_dense,
)

# Two-sided 95 % of Student's t for 1, 2, ... degrees of freedom; after them it is 1.96 + 2.5 / degrees.
_T95 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)
_MORE = 1 + 1e-9  # equal variances differ by their rounding
IMAGES = {"val_accuracy": "val_images", "test_accuracy": "test_images"}


@dataclass(frozen=True)
class Measured:
    """One network, trained with one seed or several.

    Attributes:
        kind: "dense", "trial" or the kind of control.
        trial: the trial that it is or is the control of; None for the dense network.
        epochs: training epochs of each run, including those in stages that trials share; for "scratch", only
            those of its new weights.
        runs: the metrics by seed.
    """

    kind: ContenderKind
    trial: int | None
    epochs: int
    runs: Mapping[int, Mapping[str, Any]]

    @property
    def seeds(self) -> list[int]:
        """The seeds that have finished."""
        return sorted(self.runs)

    def mean(self, metric: str) -> float:
        """The mean of a metric over the seeds."""
        return statistics.fmean(float(run[metric]) for run in self.runs.values())

    def known(self, metric: str) -> float | None:
        """The mean of a metric over the seeds that have it; None if none has."""
        values = [float(run[metric]) for run in self.runs.values() if run.get(metric) is not None]
        return statistics.fmean(values) if values else None

    def size(self, metric: str) -> int:
        """The mean parameters or MACs, rounded; seeds differ where pruning chooses the widths."""
        return round(self.mean(metric))

    def standard_error(self, metric: str) -> float | None:
        """The standard error of a mean accuracy, over seeds and images; None if neither is known.

        The validation images differ between seeds, so the variance over seeds includes their sampling
        variance, which is its lower bound. The test images are the same for every seed, so their sampling
        variance is added.
        """
        values = [float(run[metric]) for run in self.runs.values()]
        images = next((run[IMAGES[metric]] for run in self.runs.values() if IMAGES[metric] in run), None)
        if images is None and len(values) < 2:
            return None
        mean = statistics.fmean(values)
        split = mean * (1 - mean) / images if images else 0.0
        spread = statistics.variance(values) if len(values) > 1 else 0.0
        if metric == "val_accuracy":
            return math.sqrt(max(spread, split) / len(values))
        return math.sqrt(spread / len(values) + split)


@dataclass(frozen=True)
class Difference:
    """The validation accuracy of one network minus that of another.

    Attributes:
        mean: over the seeds that both have.
        margin: the half-width of its 95 % interval.
    """

    mean: float
    margin: float

    @property
    def sure(self) -> bool:
        """Whether the margin is finite: without comparisons over several seeds it is not."""
        return math.isfinite(self.margin)

    @property
    def better(self) -> bool:
        """Whether the whole interval is above zero."""
        return self.mean - self.margin > 0

    @property
    def worse(self) -> bool:
        """Whether the whole interval is below zero."""
        return self.mean + self.margin < 0

    @property
    def within_a_point(self) -> bool:
        """Whether the interval excludes a loss of more than one point."""
        return self.mean - self.margin >= -POINT


class Comparison:
    """The dense network, the points of the front, and the controls of some of them.

    Attributes:
        dense: the baseline; None until it is trained.
        points: the trials of the front by size; some of them have controls and further seeds.
        controls: by kind and trial.
        from_trained: whether the study starts from trained weights, as its uniform controls then do.
    """

    def __init__(self, study: StudyRecord) -> None:
        runs: dict[tuple[ContenderKind, int | None], dict[int, tuple[StageRecord, ...]]] = {}
        if study.dense.metrics:
            runs["dense", None] = {study.config.seed: (study.dense,)}
        for trial in (study.trials[number] for number in study.front):
            runs["trial", trial.number] = {trial.config.seed: trial.stages}
        for contender in study.contenders:
            known = contender.kind != "dense" or study.dense.metrics
            if contender.state == "complete" and known:
                of_kind = runs.setdefault((contender.kind, contender.trial), {})
                of_kind[contender.seed] = contender.stages
        found = {key: _measured(*key, chains) for key, chains in runs.items()}
        self.from_trained = study.config.model.init is not None
        self.dense = found.get(("dense", None))
        points = [one for (kind, _), one in found.items() if kind == "trial"]
        self.points = sorted(points, key=lambda one: (one.size("params"), one.trial))
        self.controls = {
            (kind, trial): one for (kind, trial), one in found.items() if kind not in ("dense", "trial")
        }

    @property
    def seeds(self) -> int:
        """How many seeds the point with the most seeds has."""
        return max((len(point.runs) for point in self.points), default=0)

    def of_trial(self, trial: TrialRecord) -> Measured:
        """A complete trial, with all of its seeds if it is on the front."""
        found = (point for point in self.points if point.trial == trial.number)
        return next(found, None) or _measured("trial", trial.number, {trial.config.seed: trial.stages})

    def of_kind(self, kind: str) -> list[Measured]:
        """The controls of a kind, by size."""
        found = [one for (its, _), one in self.controls.items() if its == kind]
        return sorted(found, key=lambda one: one.size("params"))

    def difference(self, one: Measured, other: Measured) -> Difference | None:
        """How much more accurate one network is than another; None if they share no seed.

        The interval is Student's t. Its variance is pooled over the study, whose comparisons have few seeds,
        or the pair's own where that is larger: small networks vary more than large ones. Each comes with its
        own degrees of freedom, so that a variance of two seeds has one, however many the study has.
        """
        pairs = _paired(one, other)
        if not pairs:
            return None
        mean = statistics.fmean(pairs)
        if not self._degrees:
            return Difference(mean, math.inf)
        variance, degrees = self._variance, self._degrees
        if len(pairs) > 1 and (own := statistics.variance(pairs)) > variance * _MORE:
            variance, degrees = own, len(pairs) - 1
        return Difference(mean, _t95(degrees) * math.sqrt(variance / len(pairs)))

    @property
    def pairs(self) -> int:
        """How many comparisons have several seeds."""
        return len(self._differences)

    @property
    def spread(self) -> float | None:
        """The standard deviation of a difference with one seed; None without several seeds."""
        return math.sqrt(self._variance) if self._degrees else None

    def told_apart(self, seeds: int) -> float:
        """From which difference on two networks with so many seeds are told apart; inf if never."""
        if not self._degrees:
            return math.inf
        return _t95(self._degrees) * math.sqrt(self._variance / seeds)

    @cached_property
    def _differences(self) -> list[list[float]]:
        """The paired differences of every comparison that has several seeds."""
        pairs = [_paired(point, self.dense) for point in self.points if self.dense]
        by_trial = {point.trial: point for point in self.points}
        pairs += [
            _paired(by_trial[trial], one) for (_, trial), one in self.controls.items() if trial in by_trial
        ]
        return [values for values in pairs if len(values) > 1]

    @property
    def _degrees(self) -> int:
        return sum(len(values) - 1 for values in self._differences)

    @property
    def _variance(self) -> float:
        """The variance of a difference with one seed, pooled over the study."""
        squares = sum((len(values) - 1) * statistics.variance(values) for values in self._differences)
        return squares / self._degrees


def recommended(study: StudyRecord, comparison: Comparison) -> TrialRecord | None:
    """The trial whose network the study recommends; None if no trial is smaller than the dense network.

    With repeats of the dense network and of trials: the smallest whose mean accuracy is within a point of the
    dense network's, else the most accurate. Without: as for `best_trial`.
    """
    lost = _lost(comparison)
    if not lost:
        return best_trial(study)
    return smallest_near(study, comparison) or study.trials[min(lost, key=lambda number: lost[number])]


def best_of_front(study: StudyRecord, comparison: Comparison) -> TrialRecord | None:
    """The trial that `export --best` and the last lines of a run take; None while no trial is complete.

    It is the one that the headline names: see `recommended`. If no trial is smaller than the dense network,
    it is the last of the front.
    """
    last = study.trials[study.front[-1]] if study.front else None
    return recommended(study, comparison) or last


def smallest_near(study: StudyRecord, comparison: Comparison) -> TrialRecord | None:
    """The trial of the smallest network within a point of the dense one's accuracy, if smaller than it.

    With repeats of the dense network and of trials, by mean accuracies of these trials; without, as for
    `smallest_near_dense`.
    """
    lost = _lost(comparison)
    if not lost:
        return smallest_near_dense(study)
    return next((study.trials[number] for number, points in lost.items() if points <= POINT + 1e-9), None)


def _lost(comparison: Comparison) -> dict[int, float]:
    """The mean accuracy lost by repeated trials smaller than the dense network, by number; by size."""
    dense = comparison.dense
    if dense is None or len(dense.runs) < 2:
        return {}
    return {
        point.trial: dense.mean("val_accuracy") - point.mean("val_accuracy")
        for point in comparison.points
        if point.trial is not None and len(point.runs) > 1 and point.size("params") < dense.size("params")
    }


def _measured(
    kind: ContenderKind, trial: int | None, chains: Mapping[int, Sequence[StageRecord]]
) -> Measured:
    return Measured(
        kind,
        trial,
        epochs_trained(next(iter(chains.values())), kind),
        {seed: stages[-1].metrics for seed, stages in chains.items()},
    )


def _paired(one: Measured, other: Measured) -> list[float]:
    return [
        one.runs[seed]["val_accuracy"] - other.runs[seed]["val_accuracy"]
        for seed in one.seeds
        if seed in other.runs
    ]


def _t95(degrees: int) -> float:
    return _T95[degrees - 1] if degrees <= len(_T95) else 1.96 + 2.5 / degrees
