"""How much of what a study shows may be chance, in words."""

from __future__ import annotations

import math
from itertools import pairwise

from slimnet.wording import plural
from sweeps.report.blocks import Paragraph, Section
from sweeps.report.view import StudyView
from sweeps.report.wording import count, percent


def how_sure(view: StudyView) -> Section:
    """What the images, the seeds and the choice leave to chance; nothing is said of what is not known."""
    said = [_images(view), _seeds(view), _steps(view), _choice(view)]
    return Section("noise", "How sure this is", tuple(Paragraph(text) for text in said if text))


def _points(fraction: float) -> str:
    return f"{100 * fraction:.1f} points"


def _image_error(view: StudyView) -> float | None:
    """The standard error of an accuracy near the dense network's, from the number of validation images."""
    metrics = view.study.dense.metrics
    images, accuracy = metrics.get("val_images"), metrics.get("val_accuracy")
    return math.sqrt(accuracy * (1 - accuracy) / images) if images and accuracy is not None else None


def _images(view: StudyView) -> str:
    error = _image_error(view)
    if error is None:
        return ""
    metrics = view.study.dense.metrics
    return (
        f"Images: the validation split has {count(metrics['val_images'])}. On so many, an accuracy of "
        f"{percent(metrics['val_accuracy'])} has a standard error of {_points(error)} from the "
        "choice of images alone. All networks see the same images, so a difference between two of them is "
        "somewhat surer than either accuracy."
    )


def _seeds(view: StudyView) -> str:
    comparison = view.comparison
    spread = comparison.spread
    if spread is None:
        return (
            "Seeds: every network was trained once, so nothing is known of how much another seed would "
            "change; `confirm.seeds` in the config trains points of the front again."
        )
    told = comparison.told_apart(comparison.seeds)
    return (
        f"Seeds: the difference in accuracy between two networks varies from seed to seed by "
        f"{_points(spread)} (standard deviation, of {plural(comparison.pairs, 'comparison')}). With "
        f"{comparison.seeds} seeds each, two networks are told apart from about {_points(told)} on."
    )


def _steps(view: StudyView) -> str:
    error = _image_error(view)
    front = sorted(
        (view.study.trials[number].metrics for number in view.front), key=lambda one: float(one["params"])
    )
    if error is None or len(front) < 3:
        return ""
    steps = [abs(after["val_accuracy"] - before["val_accuracy"]) for before, after in pairwise(front)]
    small = sum(step < error for step in steps)
    if not small:
        return "The front: every step from one of its points to the next larger is at least a standard error."
    which = "1 is" if small == 1 else f"{count(small)} are"
    return (
        f"The front: of {len(steps)} steps from one of its points to the next larger, {which} smaller than "
        "one standard error; such neighbours may as well stand in the other order."
    )


def _choice(view: StudyView) -> str:
    best, dense = view.best, view.study.dense.metrics
    if best is None or not dense or len(view.complete) < 2:
        return ""
    lost = [metrics["val_accuracy"] - metrics["test_accuracy"] for metrics in (best.metrics, dense)]
    return (
        f"The choice: the best of {count(len(view.complete))} trials was chosen on the validation split, "
        f"which favours luck. From validation to test, trial {best.number} loses {_points(lost[0])} and "
        f"the dense network, which was not chosen, {_points(lost[1])}."
    )
