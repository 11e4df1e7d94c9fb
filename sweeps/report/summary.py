"""A study in two sentences: what it found and how far it is. Imports nothing that takes long."""

from __future__ import annotations

from typing import Any

from sweeps.records import StudyRecord, best_trial, smallest_near_dense
from sweeps.report.wording import count, percent, plural, times


def headline(study: StudyRecord) -> str:
    """The study's result in plain words: the smallest network about as good as the dense one."""
    dense = study.dense.metrics
    complete = study.complete
    if not complete:
        return "No trial has finished yet, so there is nothing to choose from."
    if not dense:
        best = max(complete, key=lambda trial: float(trial.metrics["val_accuracy"]))
        return (
            "The dense network is not trained yet, so there is nothing to compare with. "
            f"The most accurate trial so far has {_size_and_accuracy(best.metrics)} on the validation split."
        )
    trial = best_trial(study)
    if trial is None:
        return f"No trial is smaller than the dense network with its {count(dense['params'])} parameters."
    found = (
        "the smallest network within one point of the dense one"
        if smallest_near_dense(study)
        else "the most accurate of the smaller networks; none is within one point of the dense one"
    )
    return (
        f"From {_size_and_accuracy(dense)} to {_size_and_accuracy(trial.metrics, dense)}: {found} on the "
        f"validation split. On the test split, which had no part in the choice: "
        f"{percent(dense['test_accuracy'])} before, {percent(trial.metrics['test_accuracy'])} after."
    )


def how_far(study: StudyRecord) -> str:
    """How far the study is: "11 of 12 trials complete, 1 failed"."""
    parts = [f"{count(len(study.complete))} of {plural(study.goal, 'trial')} complete"]
    for word in ("failed", "running"):
        number = sum(trial.state == word for trial in study.trials)
        parts += [f"{count(number)} {word}"] if number else []
    return ", ".join(parts)


def _size_and_accuracy(metrics: dict[str, Any], dense: dict[str, Any] | None = None) -> str:
    factor = dense["params"] / metrics["params"] if dense else 1
    smaller = f" ({times(factor)} smaller)" if factor > 1 else ""
    unit = "" if dense else " parameters"
    return f"{count(metrics['params'])}{unit}{smaller} at {percent(metrics['val_accuracy'])}"
