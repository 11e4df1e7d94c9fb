"""A study in a few sentences: what it found and how far it is. Imports nothing slow."""

from __future__ import annotations

from collections import Counter

from slimnet.wording import plural
from sweeps.comparison import Comparison, Measured, recommended
from sweeps.records import StudyRecord, smallest_near_dense
from sweeps.report.verdicts import SAME, beside_dense, points, seeds_and_epochs, uniform_start, with_error
from sweeps.report.wording import count, percent, times


def headline(study: StudyRecord, comparison: Comparison | None = None) -> str:
    """The study's result in plain words.

    It names the smallest network about as accurate as the dense one, and what simpler ways reach at its size.
    """
    complete = study.complete
    if not complete:
        return f"{none_complete(study)}, so there is nothing to choose from{_why_failed(study)}."
    if unmet := constraints_unmet(study):
        return f"{unmet[0].upper()}{unmet[1:]}, so there is nothing to choose from."
    comparison = comparison or Comparison(study)
    if comparison.dense is None:
        best = max(complete, key=lambda trial: float(trial.metrics["val_accuracy"]))
        failed = "has failed (`retry` lets it run again)" if study.dense.failure else ""
        return (
            f"The dense network {failed or 'is not trained yet (`run` trains it)'}, so there is nothing to "
            f"compare with. The most accurate trial so far has {count(best.metrics['params'])} parameters at "
            f"{percent(best.metrics['val_accuracy'])} on the validation split."
        )
    trial = recommended(study, comparison)
    if trial is None:
        dense = count(comparison.dense.size("params"))
        return f"No trial is smaller than the dense network with its {dense} parameters."
    chosen = comparison.of_trial(trial)
    sentences = [_found(study, comparison, comparison.dense, chosen), _on_test(comparison.dense, chosen)]
    sentences += [_beside_uniform(comparison, chosen), _answer(comparison, chosen)]
    return " ".join(sentence for sentence in sentences if sentence)


def none_complete(study: StudyRecord) -> str:
    """What to say where no trial is complete: none has ended, all have failed, or some were stopped."""
    ended = [trial for trial in study.trials if trial.state != "running"]
    if len(ended) < len(study.trials) or not ended:
        return "No trial has finished yet"
    so_far = " so far" if len(ended) < study.goal else ""
    failed = sum(trial.state == "failed" for trial in ended)
    if failed < len(ended):
        of_all = f"{count(failed)} of {plural(len(ended), 'trial')}{so_far} failed"
        return f"No trial is complete{f', {of_all}' if failed else ''}"
    if failed == 1:
        return f"The only trial{so_far} has failed"
    return f"All {count(failed)} trials{so_far} have failed"


def _why_failed(study: StudyRecord) -> str:
    """Why most of the failed trials failed, and what to do; "" where a trial goes on or none failed."""
    reasons = Counter(trial.reason for trial in study.trials if trial.state == "failed")
    if not reasons or any(trial.state == "running" for trial in study.trials):
        return ""
    (reason, most), others = reasons.most_common(1)[0], len(reasons) - 1
    of = f" in {count(most)} of them" if others else ""
    return f". The reason{of}: {reason or 'none was kept'}. Mend it, then `retry` lets them run again"


def subject(study: StudyRecord) -> str:
    """The network and the data: "resnet (blocks 1, 1, 1, width 16) on fashion-mini at 14 pixels, …"."""
    model, data, metrics = study.config.model, study.config.data, study.dense.metrics
    searched = {path.partition(".")[2] for path in study.config.search.space if path.startswith("model.")}
    sizes = {"blocks": ", ".join(map(str, model.blocks)), "width": model.width} if model.family else {}
    shape = ", ".join(f"{name} {value}" for name, value in sizes.items() if name not in searched)
    name = (data.factory or data.name) if data.path is None else f"{data.path.name} ({data.name})"
    side = f" at {data.image_size} pixels" if data.image_size else ""
    splits = (("validation", metrics.get("val_images")), ("test", metrics.get("test_images")))
    images = " and ".join(f"{count(number)} {split} images" for split, number in splits if number)
    start = f", from {model.init}" if model.init else ""
    shown, counted = f" ({shape})" if shape else "", f", {images}" if images else ""
    return f"{model.label}{shown}{start} on {name}{side}{counted}"


def constraints_unmet(study: StudyRecord) -> str:
    """What to say where trials are complete but none may be chosen, without a capital; else ""."""
    search = study.config.search
    if not study.complete or any(search.allows(trial.metrics) for trial in study.complete):
        return ""
    wanted = ", ".join(f"{name} {bound}" for name, bound in search.constraints.items())
    return f"no trial meets search.constraints ({wanted})"


def how_far(study: StudyRecord) -> str:
    """How far the study is: "9 of 12 trials complete, 2 stopped early, 1 failed"."""
    parts = [f"{count(len(study.complete))} of {plural(study.goal, 'trial')} complete"]
    for word, state in (("stopped early", "stopped"), ("failed", "failed"), ("unfinished", "running")):
        number = sum(trial.state == state for trial in study.trials)
        parts += [f"{count(number)} {word}"] if number else []
    if study.contenders:
        done = sum(one.state == "complete" for one in study.contenders)
        parts += [f"{count(done)} of {count(len(study.contenders))} controls and repeats complete"]
    return ", ".join(parts)


def epochs_saved(study: StudyRecord) -> str:
    """What stopping trials early has saved: "2 trials were stopped early, …"; "" where none was."""
    if not study.stopped:
        return ""
    chains = (stage for trial in study.trials for stage in trial.stages if "recipe" in stage.spec)
    stages = {stage.key: stage.spec.get("until") or stage.spec["recipe"]["epochs"] for stage in chains}
    were = "trial was" if len(study.stopped) == 1 else "trials were"
    return (
        f"{count(len(study.stopped))} {were} stopped early, which saved {count(study.epochs_saved)} of "
        f"{plural(sum(stages.values()), 'epoch')} of the trials"
    )


def _found(study: StudyRecord, comparison: Comparison, dense: Measured, chosen: Measured) -> str:
    """The sizes and accuracies of the dense network and the chosen one, and their difference."""
    factor = dense.size("params") / chosen.size("params")
    sizes = (
        f"From {count(dense.size('params'))} parameters at {with_error(dense, 'val_accuracy')} to "
        f"{count(chosen.size('params'))} ({times(factor)} smaller) at {with_error(chosen, 'val_accuracy')}"
    )
    dense_too = "" if dense.epochs == chosen.epochs else f", dense {dense.epochs}"
    how = f"on the validation split ({seeds_and_epochs(chosen)}{dense_too})"
    difference = comparison.difference(chosen, dense)
    if difference is not None and difference.sure:
        return f"{sizes} {how}: {beside_dense(difference)}."
    found = (
        "the smallest network within one point of the dense one"
        if smallest_near_dense(study)
        else "the most accurate of the smaller networks; none is within one point of the dense one"
    )
    seed = "with this one seed" if len(chosen.runs) < 2 else "by the first seed"
    return f"{sizes} {how}: {seed} {found}."


def _on_test(dense: Measured, chosen: Measured) -> str:
    before, after = (with_error(one, "test_accuracy") for one in (dense, chosen))
    return f"On the test split, which was not used for the choice: {before} before, {after} after."


def _beside_uniform(comparison: Comparison, chosen: Measured) -> str:
    """What a uniformly narrower network of the chosen one's size reaches."""
    control = comparison.controls.get(("uniform", chosen.trial))
    difference = comparison.difference(chosen, control) if control else None
    if control is None or difference is None:
        return ""
    start, epochs = uniform_start(comparison.from_trained), plural(control.epochs, "epoch")
    reaches = (
        f"A uniformly narrower network, {start} for {epochs}, "
        f"reaches {with_error(control, 'val_accuracy')} with {count(control.size('params'))} parameters"
    )
    if not difference.sure:
        return f"{reaches}: {points(difference)} for pruning."
    verdict = f"the two {SAME}"
    if difference.better or difference.worse:
        verdict = f"pruning is {'better' if difference.better else 'worse'}"
    return f"{reaches}: {verdict}, {points(difference)}."


def _answer(comparison: Comparison, chosen: Measured) -> str:
    """Name the narrower network as the answer if pruning is not better."""
    uniform = comparison.controls.get(("uniform", chosen.trial))
    difference = comparison.difference(chosen, uniform) if uniform else None
    if uniform is None or difference is None or difference.better:
        return ""
    if difference.sure:
        answer = (
            "So the answer is"
            if difference.worse
            else "Pruning is not shown to be better; the simpler answer is"
        )
    elif difference.mean > 0:
        return ""
    else:
        answer = "By this one seed the answer is"
    return (
        f"{answer} the narrower network: {count(uniform.size('params'))} parameters, "
        f"{with_error(uniform, 'test_accuracy')} on the test split."
    )
