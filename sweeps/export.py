"""Networks of a study for use elsewhere: their files, and a model card with what the study knows of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from slimnet.export.artifact import Artifact
from slimnet.export.card import card, table
from slimnet.export.deployed import Pixels
from slimnet.export.files import CARD, Exported, TestSplit
from slimnet.preprocessing import attach, preprocessing_of
from slimnet.wording import file_size, plural
from sweeps.comparison import Comparison, Measured
from sweeps.config import dump_config
from sweeps.jobs import Job
from sweeps.records import StudyRecord, TrialRecord
from sweeps.report.summary import headline
from sweeps.report.verdicts import against, control_names, seeds_and_epochs, with_error
from sweeps.report.wording import count, milliseconds, times
from sweeps.stages import Stage, Store, parse_spec
from sweeps.worker import load_network, load_splits


def open_trial(
    study: StudyRecord,
    trial: TrialRecord,
    store: Store,
    data_dir: Path | None,
    *,
    pixels: Pixels,
    check: bool,
) -> tuple[Artifact, TestSplit | None]:
    """The network of a complete trial, and the test split that its files are checked on.

    Args:
        study, trial: whose network is exported.
        store: the folders of its stages.
        data_dir: the folder of the data sets; the user's cache if not given.
        pixels: what ONNX and torch.export files take.
        check: whether the files are checked; without, the data are read only if an older checkpoint does not
            say how its images were normalised.

    Raises:
        SlimnetError: the checkpoint or the data cannot be read, or fetched.
    """
    last = trial.stages[-1]
    job = Job.of(Stage(parse_spec(last.spec)), store, trial.config, data_dir)
    folder = store.folder(last)
    folder.fetch_network()
    network = load_network(job, folder)
    known = preprocessing_of(network) is not None
    splits = load_splits(job, "cpu") if check or not known else None
    if splits is not None and not known:
        attach(network, splits.preprocessing)
    source = {
        "study": study.name,
        "trial": trial.number,
        "stage": f"{last.kind}/{last.key}",
        "lambda": trial.strength,
        "ratio": trial.ratio,
    }
    artifact = Artifact(network, trial.metrics, last.spec, source, pixels)
    if not check or splits is None:
        return artifact, None
    return artifact, TestSplit.of(splits.test, artifact, trial.metrics["test_accuracy"])


def card_of(
    study: StudyRecord, comparison: Comparison, trial: TrialRecord
) -> Callable[[Artifact, Sequence[Exported]], str]:
    """What writes the model card of a trial, given its artifact and files."""
    sections = (
        _accuracy(comparison, comparison.of_trial(trial)),
        _latency(study, trial),
        _front(study, comparison, trial, lambda other: f"{other.number}"),
        f"## How it was made\n\n{_made(study, trial)}\n\n```yaml\n{dump_config(trial.config)}```",
    )
    data = trial.config.data
    name = data.path.name if data.path else data.source
    images = trial.metrics.get("val_images")  # not known of an older study's networks
    selected = plural(images, "validation image") if images else "validation images"
    told = f"Trained on {name}; selected on {selected}."
    return partial(card, f"{study.name}, trial {trial.number}", data=told, sections=sections)


def front_card(study: StudyRecord, comparison: Comparison) -> str:
    """The text above the folders of a whole front."""
    told = headline(study, comparison)
    rows = _front(study, comparison, None, lambda other: f"[{other.number}]({folder_of(other)}/{CARD})")
    return f"# {study.name}\n\n{told}\n\n{rows}\n"


def folder_of(trial: TrialRecord) -> str:
    """The name of a trial's folder in that of a front."""
    return f"trial-{trial.number}"


def _accuracy(comparison: Comparison, chosen: Measured) -> str:
    """The network beside the dense one and its controls."""
    beside = [*([comparison.dense] if comparison.dense else []), chosen]
    beside += [one for (_, trial), one in comparison.controls.items() if trial == chosen.trial]
    names = {"dense": "dense network", "trial": "**this network**", **control_names(comparison.from_trained)}
    rows = [
        (
            names[one.kind],
            *_sizes(one),
            seeds_and_epochs(one),
            with_error(one, "val_accuracy"),
            with_error(one, "test_accuracy"),
            "" if one.kind in ("dense", "trial") else against(comparison, one),
        )
        for one in beside
    ]
    headings = ("network", "parameters", "MACs", "trained", "validation", "test", "this one beside it")
    spread = (
        "± is the standard error of a mean over seeds and images. The files hold the network of the first "
        "seed. Selection used the validation split alone."
    )
    return f"## Accuracy\n\n{table(headings, rows)}\n\n{spread}"


def _latency(study: StudyRecord, trial: TrialRecord) -> str:
    """The latency of the network beside that of the dense one; nothing where it was not measured."""
    measurement = study.latencies.get(trial.stages[-1].key)
    if measurement is None or not measurement.metrics:
        return ""
    networks = (("dense network", study.dense.metrics), ("**this network**", trial.metrics))
    rows = [
        (
            name,
            milliseconds(metrics["latency_ms"]),
            milliseconds(metrics["latency_ms_64"]),
            file_size(metrics["file_bytes"]),
        )
        for name, metrics in networks
        if "file_bytes" in metrics
    ]
    found = table(("network", "1 image", "64 images", "tensors"), rows)
    return f"## Latency\n\nPyTorch on {measurement.metrics['machine']}, one thread if a processor.\n\n{found}"


def _sizes(one: Measured) -> tuple[str, str]:
    return count(one.size("params")), count(one.size("macs"))


def _front(
    study: StudyRecord,
    comparison: Comparison,
    chosen: TrialRecord | None,
    name: Callable[[TrialRecord], str],
) -> str:
    """The points of the front by size; the chosen one in bold."""
    rows = []
    for point in comparison.points:
        trial = study.trials[point.trial or 0]
        smaller = times(comparison.dense.size("params") / point.size("params")) if comparison.dense else ""
        cells = (
            name(trial),
            f"{trial.strength:.3g}",
            f"{trial.ratio:.3g}",
            *_sizes(point),
            smaller,
            with_error(point, "val_accuracy"),
            with_error(point, "test_accuracy"),
        )
        this = chosen is not None and trial.number == chosen.number
        rows.append(tuple(f"**{cell}**" if this and cell else cell for cell in cells))
    headings = ("trial", "λ", "ratio", "parameters", "MACs", "smaller", "validation", "test")
    off = chosen is not None and chosen.number not in study.front
    note = "\n\nThis network is not on the front: others are better in every objective." if off else ""
    return f"## Pareto front of {study.name}\n\n{table(headings, rows)}{note}"


def _made(study: StudyRecord, trial: TrialRecord) -> str:
    environment = (trial.stages[-1].result or {}).get("environment", {})
    versions = ", ".join(
        f"{name} {environment[name]}" for name in ("slimnet", "torch") if name in environment
    )
    steps = ", ".join(f"{stage.name} {stage.key}" for stage in trial.stages)
    return (
        f"Trial {trial.number} of the sweep {study.name}: λ {trial.strength:.3g}, ratio {trial.ratio:.3g}; "
        f"stages {steps}; {versions}. With this config it is made again:"
    )
