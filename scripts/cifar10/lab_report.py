"""The lab report that slimnet grew from, item by item, beside a study of the same network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from cifar10.markdown import millions, percent, table
from sweeps.records import Histogram, Row, StageRecord, StudyRecord, TrialRecord, epochs_trained
from sweeps.report.figures.sparse import read_pass
from sweeps.report.runs import SparseRun, a_few_lambdas, with_histograms
from sweeps.report.shading import Shading
from sweeps.report.summary import how_far
from sweeps.report.view import LAMBDA, StudyView
from sweeps.report.wording import UNKNOWN, count, searched_value

MOST_EPOCHS = 9  # of a course that are shown
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)


@dataclass(frozen=True)
class Reported:
    """A row of the lab report's table.

    Attributes:
        pruned: test accuracy right after pruning, before fine-tuning.
        accuracy: test accuracy in the end.
    """

    params: int
    accuracy: float
    pruned: float | None = None


REPORTED = {
    0.0: Reported(23_513_162, 0.91),
    0.5: Reported(9_824_205, 0.91, pruned=0.8997),
    0.9: Reported(3_665_475, 0.903, pruned=0.2945),
}
"""By the ratio, which counts all BatchNorm channels; 0 is the dense network."""


def repeats(study: StudyRecord) -> bool:
    """Whether a study has the network of the lab report, and its way to count a ratio."""
    model, prune = study.config.model, study.config.prune
    network = (model.family, model.blocks, model.width, model.stem)
    return network == ("resnet", (3, 4, 6, 3), 64, "cifar-maxpool") and prune.threshold_over == "all"


def without_study() -> str:
    """The section while there is no study to put beside the report."""
    rows = [
        [
            "dense" if not ratio else f"ratio {ratio:g}",
            count(one.params),
            percent(one.pruned),
            percent(one.accuracy),
        ]
        for ratio, one in REPORTED.items()
    ]
    header = ["network", "parameters", "right after pruning", "in the end"]
    return (
        "No study of this network has been given yet. This makes one, goes on with it where it was stopped, "
        "and then writes this section from its files:\n\n    make sweep CONFIG=cifar10-resnet50\n    python "
        "scripts/cifar10_page.py runs/cifar10-resnet50 --out docs/cifar10.md\n\nThe report's own numbers, "
        "accuracy in percent of the test split:\n\n" + table(header, rows)
    )


def beside(study: StudyRecord) -> str:
    """The five items of the report, each with what the study has."""
    view = StudyView(study)
    items = (
        ("Accuracy over sparse training", _sparse_training(view)),
        ("Scaling factors for three λ", _scaling_factors(view)),
        ("Right after pruning", _right_after_pruning(view)),
        ("Fine-tuning", _fine_tuning(view)),
        ("Sizes and accuracies", _sizes(view)),
    )
    head = (
        f"Study `{study.name}`: {how_far(study)}. Everything here is of its first seed; means over seeds "
        "follow below."
    )
    parts = [f"### {number}. {title}\n\n{text}" for number, (title, text) in enumerate(items, start=1)]
    return "\n\n".join([head, *parts])


def _sparse_training(view: StudyView) -> str:
    courses = read_pass(view, Shading.of(view), 1).courses
    columns = {course.run.label: course.run.stage.history for course in courses}
    return (
        "The report plots train and test accuracy over the epochs at λ 1e-4. Accuracies are in percent; "
        "those of the train split are of its augmented images, as they were trained "
        "on.\n\n" + _courses(columns)
    )


def _scaling_factors(view: StudyView) -> str:
    chosen = a_few_lambdas(read_pass(view, Shading.of(view), 1).courses)
    header = ["sparse training", "epoch", "below 0.01", *(f"{100 * q:g} % below" for q in QUANTILES)]
    return (
        "The report plots the distribution of γ for three λ. Here |γ| of all prunable channels at the end, "
        "its quantiles read off a histogram of 64 bins.\n\n" + table(header, map(_gamma_row, chosen))
    )


def _gamma_row(run: SparseRun) -> list[str]:
    last = with_histograms(run.stage.history)[-1]
    values = [f"{quantile(last['gamma'], q):.3f}" for q in QUANTILES]
    return [run.label, str(last["epoch"]), f"{percent(last['near_zero'])} %", *values]


def quantile(histogram: Histogram, fraction: float) -> float:
    """The value that a fraction of a histogram's counts lies below."""
    below = [0, *accumulate(histogram["counts"])]
    return float(np.interp(fraction * below[-1], below, histogram["edges"]))


def _right_after_pruning(view: StudyView) -> str:
    header = ["ratio", "λ", "before pruning", "right after", "report, right after"]
    rows = []
    for trial in _by_ratio(view, view.distinct):
        after = trial.last("prune").metrics
        if after:
            before, theirs = trial.last("sparse").metrics, REPORTED.get(trial.ratio)
            rows.append(
                [
                    f"{trial.ratio:g}",
                    _strength(view, trial),
                    percent(before["test_accuracy"]),
                    percent(after["test_accuracy"]),
                    percent(theirs.pruned if theirs else None),
                ]
            )
    return (
        "Test accuracy before any fine-tuning, in percent. The report does not say which λ its pruned "
        "networks are from.\n\n" + table(header, rows, text=0)
    )


def _fine_tuning(view: StudyView) -> str:
    begun = [trial for trial in view.distinct if trial.last("finetune").epochs_done]
    most = max((trial.ratio for trial in begun), default=0.9)
    columns = {
        f"λ {_strength(view, trial)}": trial.last("finetune").history
        for trial in _by_ratio(view, begun)
        if trial.ratio == most
    }
    return (
        f"The report plots the course of its 90 % network. Here that of each network of ratio {most:g}, in "
        "percent.\n\n" + _courses(columns)
    )


def _sizes(view: StudyView) -> str:
    header = ["network", "λ", "epochs", "parameters", "report", "MACs", "test accuracy", "report"]
    rows = [
        _size_row(name, "0", [stage], REPORTED[0.0])
        for name, stage in (("dense", view.study.dense), ("dense, before fine-tuning", _unpenalised(view)))
        if stage and stage.metrics
    ]
    rows += [
        _size_row(f"ratio {trial.ratio:g}", _strength(view, trial), trial.stages, REPORTED.get(trial.ratio))
        for trial in _by_ratio(view, view.distinct)
        if trial.metrics
    ]
    return (
        "Test accuracy in the end, in percent. The dense network of the study has as many epochs as a "
        "trial, those of sparse training and of fine-tuning; the report's had those of sparse training "
        "alone, as the one before fine-tuning has. The report chose by test accuracy; the study chooses on "
        "a validation split and only measures on the test split.\n\n" + table(header, rows, text=2)
    )


def _unpenalised(view: StudyView) -> StageRecord | None:
    """The sparse training of λ 0, where there is one."""
    return next((t.first("sparse") for t in view.distinct if view.value(t, LAMBDA) == 0), None)


def _size_row(name: str, strength: str, stages: Sequence[StageRecord], theirs: Reported | None) -> list[str]:
    metrics = stages[-1].metrics
    return [
        name,
        strength,
        str(epochs_trained(stages)),
        count(metrics["params"]),
        count(theirs.params if theirs else None),
        millions(metrics["macs"]),
        percent(metrics["test_accuracy"]),
        percent(theirs.accuracy if theirs else None),
    ]


def _courses(columns: Mapping[str, Sequence[Row]]) -> str:
    """Train and test accuracy of several trainings over some of their epochs."""
    by_epoch = {label: {row["epoch"]: row for row in history} for label, history in columns.items()}
    measured = sorted({row["epoch"] for rows in columns.values() for row in rows if "test_accuracy" in row})
    header = ["epoch", *(f"{label}: {split}" for label in columns for split in ("train", "test"))]
    rows = [
        [
            str(epoch),
            *(
                _accuracy(by_epoch[label].get(epoch), split)
                for label in columns
                for split in ("train", "test")
            ),
        ]
        for epoch in some(measured)
    ]
    return table(header, rows, text=0)


def some(epochs: Sequence[int]) -> list[int]:
    """The first epoch, the last, and some evenly between them."""
    if len(epochs) <= MOST_EPOCHS:
        return list(epochs)
    return [epochs[round(place * (len(epochs) - 1) / (MOST_EPOCHS - 1))] for place in range(MOST_EPOCHS)]


def _accuracy(row: Row | None, split: str) -> str:
    return percent(row.get(f"{split}_accuracy")) if row else UNKNOWN


def _by_ratio(view: StudyView, trials: Iterable[TrialRecord]) -> list[TrialRecord]:
    return sorted(trials, key=lambda trial: (trial.ratio, view.value(trial, LAMBDA)))


def _strength(view: StudyView, trial: TrialRecord) -> str:
    return searched_value(view.value(trial, LAMBDA))
