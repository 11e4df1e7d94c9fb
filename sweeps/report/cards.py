"""A card for each trial: all that is known of it, layer by layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from slimnet.wording import file_size, plural
from sweeps.records import StageRecord, TrialRecord
from sweeps.report.blocks import Card, Cards, Section
from sweeps.report.figures.marks import HELD_OUT, trial_id
from sweeps.report.shading import Shading
from sweeps.report.verdicts import against, beside_dense, points, with_error
from sweeps.report.view import StudyView
from sweeps.report.wording import count, hours_minutes_seconds, milliseconds, percent, times
from sweeps.stages import KINDS

Facts = list[tuple[str, str]]


def trial_cards(
    view: StudyView, shading: Shading, offered: Mapping[int, str], runs: Mapping[int, str]
) -> Section:
    """Every trial on a card of its own, of which the page shows one at a time.

    Args:
        view: the study.
        shading: its colours.
        offered: the address of the networks that lie beside the report, by trial.
        runs: the address of the runs on W&B, by trial.
    """
    uses = Counter(stage.key for trial in view.study.trials for stage in trial.stages)
    cards = tuple(
        Card(
            trial_id(trial),
            f"Trial {view.trial_name(trial)}",
            _state(view, trial),
            (*_network(view, trial), *_comparisons(view, trial), *_course(trial, uses)),
            _layers(trial),
            offered.get(trial.number, ""),
            runs.get(trial.number, ""),
            shading.colour(trial),
        )
        for trial in view.study.trials
    )
    first = trial_id(view.best) if view.best else ""
    return Section("trial", "One trial at a time", (Cards(cards, first),) if cards else ())


def _state(view: StudyView, trial: TrialRecord) -> str:
    if trial.state != "complete":
        return f"{trial.state}: {trial.reason}" if trial.reason else trial.state
    return "on the front" if trial.number in view.front else "complete; another trial is better"


def _network(view: StudyView, trial: TrialRecord) -> Facts:
    """Size and accuracy, as far as they are known."""
    pruned, tuned, dense = trial.last("prune").metrics, trial.metrics, view.study.dense.metrics
    size = tuned or pruned
    facts: Facts = []
    if size:
        smaller = f", {times(dense['params'] / size['params'])} smaller" if dense else ""
        facts.append(("parameters", f"{count(size['params'])}{smaller}"))
        fewer = f", {times(dense['macs'] / size['macs'])} fewer" if dense else ""
        facts.append(("MACs", f"{count(size['macs'])}{fewer}"))
    for name, metrics in (("right after pruning", pruned), ("after fine-tuning", tuned)):
        if metrics:
            split = ", ".join(f"{split} {percent(metrics[metric])}" for split, metric in HELD_OUT.items())
            facts.append((name, split))
    if pruned:
        facts.append(("channels kept", f"{count(pruned['kept'])} of {count(pruned['prunable'])}"))
        if pruned.get("threshold") is not None:
            facts.append(("threshold", f"{pruned['threshold']:.3g}"))
    if tuned.get("file_bytes") is not None:
        one, many = (milliseconds(tuned[name]) for name in ("latency_ms", "latency_ms_64"))
        facts += [("latency", f"{one} for 1 image, {many} for 64"), ("file", file_size(tuned["file_bytes"]))]
    return facts


def _comparisons(view: StudyView, trial: TrialRecord) -> Facts:
    """The trial over seeds, beside the dense network and beside its controls."""
    comparison = view.comparison
    if trial.state != "complete":
        return []
    one = comparison.of_trial(trial)
    facts: Facts = []
    if len(one.runs) > 1:
        split = ", ".join(f"{split} {with_error(one, metric)}" for split, metric in HELD_OUT.items())
        facts.append((f"mean of {len(one.runs)} seeds", split))
    if comparison.dense and (difference := comparison.difference(one, comparison.dense)):
        said = beside_dense(difference) if difference.sure else points(difference)
        facts.append(("beside the dense network", said))
    facts += [
        (f"beside its {kind} control", against(comparison, control))
        for (kind, number), control in comparison.controls.items()
        if number == trial.number
    ]
    return facts


def _course(trial: TrialRecord, uses: Mapping[str, int]) -> Facts:
    """The stages: how long each took, and who else needed it."""
    return [(_name(stage), _told(stage, uses[stage.key] - 1)) for stage in trial.stages]


def _name(stage: StageRecord) -> str:
    return f"{KINDS[stage.kind].title}{f' {stage.pass_number}' if stage.pass_number > 1 else ''}"


def _told(stage: StageRecord, others: int) -> str:
    epochs = (stage.spec.get("recipe") or {}).get("epochs")
    shared = f", shared with {plural(others, 'other trial')}" if others else ""
    if stage.result:
        trained = f"{plural(epochs, 'epoch')}, " if epochs else ""
        return f"{trained}{hours_minutes_seconds(stage.result['seconds'])}{shared}"
    if stage.failure:
        return f"failed: {stage.failure['reason']}"
    return f"epoch {stage.epochs_done} of {epochs}{shared}" if stage.epochs_done else f"not begun{shared}"


def _layers(trial: TrialRecord) -> Mapping[str, tuple[int, int]]:
    """The output channels of each layer, before the first pruning and after the last."""
    found = [stage.metrics.get("layers") or {} for stage in trial.stages if stage.kind == "prune"]
    first: Mapping[str, tuple[int, int]] = found[0]
    last: Mapping[str, tuple[int, int]] = next((layers for layers in reversed(found) if layers), {})
    return {name: (first[name][0], after) for name, (_, after) in last.items() if name in first}
