"""The figure of accuracy over the epochs of fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sweeps.records import TrialRecord
from sweeps.report.drawing import (
    MOST_CURVES,
    Choice,
    Drawing,
    Figure,
    Key,
    Plot,
    Trace,
    accuracy_axis,
    add_label,
    axes,
    by_choice,
    escaped,
    in_percent,
    spread,
    whole_axis,
)
from sweeps.report.figures.marks import MOST_LABELS, SPLITS, trial_id
from sweeps.report.runs import Points, curve
from sweeps.report.shading import Shading
from sweeps.report.view import StudyView
from sweeps.report.wording import count

_ACCURACY = 0  # the figure's choice


@dataclass(frozen=True)
class _Tuning:
    """A trial's fine-tuning: accuracy by split, from epoch 0, right after pruning."""

    trial: TrialRecord
    curves: dict[str, Points]
    epochs: int


def fine_tuning(view: StudyView, shading: Shading) -> Figure:
    """A line per trial, from right after pruning on; at first only those of the front are shown."""
    begun = [trial for trial in view.distinct if trial.last("finetune").epochs_done]
    drawn = _drawn(begun, view)
    fronted = [trial for trial in drawn if trial.number in view.front]
    shown = {trial.number for trial in fronted or drawn}
    last_pass = " Of several passes the last is drawn." if view.passes > 1 else ""
    drawn_of_begun = f" {len(drawn)} of {count(len(begun))} trials are drawn: {_which(fronted)}."
    some = drawn_of_begun if len(drawn) < len(begun) else ""
    tunings = [_read(trial) for trial in drawn]
    drawing = _drawing(view, shading, tunings, numbered=len(shown) <= MOST_LABELS)
    alt = "Line plot of accuracy over the epochs of fine-tuning, a line per trial"
    return Figure(
        "finetune",
        "Epoch 0 is the network right after pruning. The trials of the front are shown, the others can be "
        f"switched on in the legend.{some} On the training split, accuracy is known from the first epoch "
        f"on.{last_pass}",
        ((Plot("", alt, drawing),),),
        (Choice("Accuracy", tuple(SPLITS)),),
        tuple(Key(view.trial_name(trial), shading.colour(trial), trial.number in shown) for trial in drawn),
    )


def _drawn(begun: Sequence[TrialRecord], view: StudyView) -> list[TrialRecord]:
    """All trials by number, or the front first and then as many of the others as a figure can hold."""
    if len(begun) <= MOST_CURVES:
        return list(begun)
    front = spread([trial for trial in begun if trial.number in view.front], MOST_CURVES)
    others = [trial for trial in begun if trial.number not in view.front]
    return front + spread(others, MOST_CURVES - len(front))


def _which(fronted: Sequence[TrialRecord]) -> str:
    """Which trials were chosen, of too many."""
    if len(fronted) == MOST_CURVES:
        return "some of the front"
    return "the front and some of the others" if fronted else "some, spread over all"


def _read(trial: TrialRecord) -> _Tuning:
    history = trial.last("finetune").history
    pruned = trial.last("prune").metrics
    return _Tuning(
        trial,
        {
            split: ([(0, pruned[metric])] if metric in pruned else []) + curve(history, metric)
            for split, metric in SPLITS.items()
        },
        max((row["epochs"] for row in history), default=1),
    )


def _drawing(view: StudyView, shading: Shading, tunings: Sequence[_Tuning], *, numbered: bool) -> Drawing:
    last = max((tuning.epochs for tuning in tunings), default=1)
    titles = {split: f"{split} accuracy" for split in SPLITS}
    drawing = axes(
        whole_axis("epoch of fine-tuning", last, range=[-0.1 * last, 1.02 * last]),  # room for numbers
        accuracy_axis(by_choice(_ACCURACY, titles)),
        height=400,
    )
    drawing["data"] = [_line(view, shading, tuning) for tuning in tunings]
    for tuning in tunings if numbered else ():
        starts = {split: points[0] if points else (0, None) for split, points in tuning.curves.items()}
        add_label(
            drawing,
            f"{tuning.trial.number}",
            by_choice(_ACCURACY, {split: epoch for split, (epoch, _) in starts.items()}),
            by_choice(_ACCURACY, {split: y and in_percent(y) for split, (_, y) in starts.items()}),
            group=view.trial_name(tuning.trial),
        )
    return drawing


def _line(view: StudyView, shading: Shading, tuning: _Tuning) -> Trace:
    name = view.trial_name(tuning.trial)
    curves = tuning.curves.items()
    return {
        "type": "scatter",
        "x": by_choice(_ACCURACY, {split: [epoch for epoch, _ in points] for split, points in curves}),
        "y": by_choice(_ACCURACY, {split: [in_percent(y) for _, y in points] for split, points in curves}),
        "mode": "lines+markers",
        "line": {"color": shading.colour(tuning.trial), "width": 2},
        "marker": {"size": 5},
        "hovertemplate": f"{escaped(name)}<br>epoch %{{x}}: %{{y:.1f}} %<extra></extra>",
        "name": escaped(name),
        "legendgroup": name,
        "meta": trial_id(tuning.trial),
    }
