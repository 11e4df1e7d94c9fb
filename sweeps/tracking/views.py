"""What W&B shows of a study's trainings: a view per run, made from the stage folders alone, without wandb.

A run's rows are numbered by their position in the chain and not by when they were computed, so that a
resumed projection knows which rows are there: sparse epochs 1..E are the steps 0..E-1, pruning is step E,
then come the fine-tuning epochs, then the same for every later pass.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from sweeps.records import (
    FACTS,
    ContenderRecord,
    StageRecord,
    StudyRecord,
    TrialRecord,
    epochs_trained,
)

Row = dict[str, Any]
RunState = Literal["waiting", "running", "complete", "stopped", "failed"]
Standing = Literal["", "front", "best"]

STUDY = "study_uid"  # in the config of every run, as another study may have the same name
CURVE = "pruned_at_every_ratio"  # the table of a trial's accuracy right after pruning, over the ratio
TIME = "_timestamp"  # W&B's name for when a row was logged, in seconds since 1970


@dataclass(frozen=True)
class Histogram:
    """Counts per bin [n] and the edges of the bins [n + 1]."""

    counts: list[int]
    edges: list[float]


@dataclass(frozen=True)
class Table:
    """Rows of facts with the same keys, in order."""

    columns: list[str]
    data: list[list[Any]]


@dataclass(frozen=True)
class Model:
    """A network of a run, which is uploaded as an artifact.

    Attributes:
        name: of the artifact, of which it is a version.
        path: its file, which also holds how images are to be prepared.
        aliases: names of this version.
        is_input: whether the run goes on from it; the others are what the run yields.
        metadata: facts of the network.
    """

    name: str
    path: Path
    aliases: tuple[str, ...]
    is_input: bool
    metadata: dict[str, Any]


@dataclass(frozen=True)
class RunView:
    """One W&B run as it should be now; its config, summary, rows and models are made on demand.

    Attributes:
        id: the run's id, different from that in any other study of the same name.
        name: the run's name on the page.
        project, entity: where it is to be kept; the user's own entity for None.
        group: the name of the study.
        job_type: what the run shows.
        tags: the data set, the network, and what the trial is.
        notes: what it is, in a sentence.
        epoch_axes: names of the stages that have epochs, whose metrics are plotted over `<name>/epoch`.
        state: how far it is.
        mark: changes when anything in the run has changed.
        chain: the same as long as the rows are those of the same stages, however many there are so far.
        count_rows: how many rows there are before a step, in all for None.
        make_seconds: reads the seconds of training that the rows show.
        make_config: makes the config.
        make_summary: makes the summary; values are what JSON has, Tables and plotly figures.
        rows: yields (step, row) from a step on; values are numbers and Histograms.
        make_models: finds the networks to be uploaded, and fetches those that are not on this disk.
    """

    id: str
    name: str
    project: str
    entity: str | None
    group: str
    job_type: Literal["dense", "trial", "control", "repeat", "study"]
    tags: tuple[str, ...]
    notes: str
    epoch_axes: tuple[str, ...]
    state: RunState
    mark: str
    chain: str
    count_rows: Callable[[int | None], int]
    make_seconds: Callable[[], float]
    make_config: Callable[[], dict[str, Any]]
    make_summary: Callable[[], dict[str, Any]]
    rows: Callable[[int], Iterator[tuple[int, Row]]]
    make_models: Callable[[], tuple[Model, ...]] = tuple

    @property
    def config(self) -> dict[str, Any]:
        """The run's config."""
        return self.make_config()

    @property
    def summary(self) -> dict[str, Any]:
        """The run's summary."""
        return self.make_summary()

    @property
    def seconds(self) -> float:
        """The seconds of training that the rows show."""
        return self.make_seconds()

    @property
    def models(self) -> tuple[Model, ...]:
        """The networks to be uploaded, on this disk."""
        return self.make_models()

    @property
    def ended(self) -> bool:
        """Whether nothing more will be added to the run."""
        return self.state in ("complete", "stopped", "failed")


def run_id(study: StudyRecord, name: int | str) -> str:
    """The id of a run, different from that in any other study of the same name."""
    return f"{study.name}-{name}-{study.uid[:6]}"


def trial_view(study: StudyRecord, trial: TrialRecord, standing: Standing = "") -> RunView:
    """The run of a trial.

    Args:
        study: the trial's.
        trial: whose run it is.
        standing: once the study has ended, whether the trial is on the front, or the best of it. Only then
            does its run show what was measured after the trial (latency, and accuracy over the ratio), so
            that few runs are opened again.
    """
    point, cut = _point_of(trial)
    stands = {"": (), "front": ("front",), "best": ("front", "best")}[standing]
    view = _view(
        study,
        trial.number,
        trial.stages,
        state=_state(trial.state, trial.stages),
        reason=trial.reason,
        name=f"trial {trial.number} · {point} · {cut}",
        job_type="trial",
        tags=(point, cut, *stands),
        notes=f"Trial {trial.number} of the study {study.name}: {point}, {cut}.",
        make_config=partial(_trial_config, trial),
        make_summary=lambda: _trial_summary(study, trial) | (_curve(study, trial) if standing else {}),
    )
    wanted = study.config.wandb.artifacts
    uploads = view.state == "complete" and (wanted == "all" or (wanted == "front" and standing))
    return replace(
        view,
        mark=f"{view.mark}+{standing}-{mark_of(trial.measured)}" if standing else view.mark,
        make_models=partial(_models, study, trial, standing) if uploads else tuple,
    )


def _models(study: StudyRecord, trial: TrialRecord, standing: Standing) -> tuple[Model, ...]:
    """The networks of a trial, from the sparse one to that which it yields."""
    stem = re.sub(r"[^\w.-]", "-", study.name)
    found: list[Model] = []
    for stage in trial.stages:
        last = stage is trial.stages[-1]
        network = stage.source.network() if stage.kind != "early" else None
        if network is None:
            continue
        own = (f"trial-{trial.number}", *(["best"] if standing == "best" else [])) if last else ()
        found.append(
            Model(
                name=stem if last else f"{stem}-{stage.name}",
                path=network,
                aliases=(stage.key, *own),
                is_input=not last,
                metadata={
                    "study": study.name,
                    "stage": stage.name,
                    "parent": f"{found[-1].name}:{found[-1].aliases[0]}" if found else None,
                    **(trial.row() if last else {name: stage.metrics[name] for name in FACTS}),
                },
            )
        )
    return tuple(found)


def _point_of(trial: TrialRecord) -> tuple[str, str]:
    """How strongly a trial is driven to sparsity, and how much is cut, in words."""
    sparse, prune = trial.config.sparse, trial.config.prune
    strength = f"λ {sparse.lambda_:g}" if sparse.target is None else f"target {sparse.target:g}"
    if prune.budget is None:
        return strength, f"ratio {prune.ratio:g}"
    most = getattr(prune, prune.budget)
    return strength, f"{most if isinstance(most, str) else format(most, ',')} {prune.budget}"


def _trial_config(trial: TrialRecord) -> dict[str, Any]:
    config = trial.config.model_dump(mode="json", by_alias=True)
    return {"trial": trial.number, "searched": trial.params, **config}


def _trial_summary(study: StudyRecord, trial: TrialRecord) -> dict[str, Any]:
    if trial.stop:
        return {"epochs_saved": trial.epochs_saved}
    if trial.state != "complete":
        return {}
    cut = trial.last("prune")
    facts: dict[str, Any] = {
        **trial.row(),
        **trial.measured,
        "epochs": epochs_trained(trial.stages),
        **_best_and_last(trial.stages),
        "pruned_val_accuracy": cut.metrics["val_accuracy"],
        **{name: cut.metrics[name] for name in ("threshold", "kept", "prunable") if name in cut.metrics},
        **_environment(trial.stages[-1]),
    }
    if dense := study.dense.metrics:
        facts["dense_val_accuracy"] = dense["val_accuracy"]
        facts["difference"] = trial.metrics["val_accuracy"] - dense["val_accuracy"]
        facts["times_smaller"] = dense["params"] / trial.metrics["params"]
    if layers := cut.metrics.get("layers"):
        facts["widths"] = Table(
            ["layer", "before", "after"], [[name, *both] for name, both in layers.items()]
        )
        facts["widths_chart"] = _widths_chart(layers)
    return facts


def _curve(study: StudyRecord, trial: TrialRecord) -> dict[str, Any]:
    """The accuracy of the trial's sparse network right after pruning, over the ratio, in three ways."""
    curve = study.curves.get(trial.first("sparse").key)
    rows = curve.metrics.get("curve", []) if curve else []
    return {CURVE: Table(list(rows[0]), [list(row.values()) for row in rows])} if rows else {}


def _best_and_last(stages: Sequence[StageRecord]) -> dict[str, Any]:
    """The best and the last validation accuracy of each training.

    As W&B would keep them itself, if it did not forget the best of a run that is resumed.
    """
    found = {}
    for stage in stages:
        measured = [row["val_accuracy"] for row in stage.history if "val_accuracy" in row]
        if measured:
            found[f"{stage.name}/val_accuracy"] = {"max": max(measured), "last": measured[-1]}
    return found


def _environment(stage: StageRecord) -> dict[str, Any]:
    """The device and the versions that a finished stage was computed with."""
    known = stage.result["environment"] if stage.result else {}
    names = {"device_name": "device", "slimnet": "slimnet", "torch": "torch", "python": "python"}
    return {name: known[key] for key, name in names.items() if key in known}


def _widths_chart(layers: dict[str, list[int]]) -> Any:
    """The channels of each layer before and after pruning, as a plotly figure."""
    import plotly.graph_objects as go

    names = list(layers)
    bars = [
        go.Bar(name=when, x=names, y=[both[place] for both in layers.values()])
        for place, when in enumerate(("before", "after"))
    ]
    figure = go.Figure(bars)
    figure.update_layout(barmode="group", yaxis_title="channels")
    return figure


def contender_view(study: StudyRecord, contender: ContenderRecord) -> RunView:
    """The run of a control, or of a repeat with another seed."""
    about = f"{contender.kind}-{'all' if contender.trial is None else contender.trial}-{contender.seed}"
    facts = {key: contender.metrics[key] for key in FACTS} if contender.state == "complete" else {}
    return _view(
        study,
        about,
        contender.stages,
        state=_state(contender.state, contender.stages),
        reason=contender.reason,
        name=contender.name,
        job_type="repeat" if contender.kind in ("dense", "trial") else "control",
        tags=(contender.kind,),
        notes=f"The {contender.name} of the study {study.name}.",
        make_config=partial(_contender_config, study, contender),
        make_summary=lambda: {"epochs": contender.epochs, **facts},
    )


def _contender_config(study: StudyRecord, contender: ContenderRecord) -> dict[str, Any]:
    of = study.config if contender.trial is None else study.trials[contender.trial].config
    config = of.model_dump(mode="json", by_alias=True)
    return {**config, "kind": contender.kind, "trial": contender.trial, "seed": contender.seed}


def dense_view(study: StudyRecord) -> RunView:
    """The run of the unpruned baseline."""
    dense = study.dense
    known: RunState = (
        "complete" if dense.state == "done" else "failed" if dense.state == "failed" else "running"
    )
    facts = {key: dense.metrics[key] for key in FACTS} if dense.metrics else {}
    return _view(
        study,
        "dense",
        [dense],
        state=_state(known, [dense]),
        reason=dense.failure["reason"] if dense.failure else None,
        name="dense",
        job_type="dense",
        tags=("dense",),
        notes=f"The unpruned network of the study {study.name}, which its trials are compared with.",
        make_config=partial(_dense_config, study),
        make_summary=lambda: {"epochs": epochs_trained([dense]), **facts},
        histograms_at_end=True,
    )


def _dense_config(study: StudyRecord) -> dict[str, Any]:
    config = study.config.model_dump(mode="json", by_alias=True)
    return {**config, "sparse": {**config["sparse"], "lambda": 0.0, "target": None}}


def _view(
    study: StudyRecord,
    about: int | str,
    stages: Sequence[StageRecord],
    *,
    state: RunState,
    reason: str | None,
    tags: tuple[str, ...],
    make_config: Callable[[], dict[str, Any]],
    make_summary: Callable[[], dict[str, Any]],
    histograms_at_end: bool = False,
    **fields: Any,
) -> RunView:
    """The view of a chain of stages. Tags, config and summary are its own, beside what every run has."""
    return RunView(
        id=run_id(study, about),
        project=study.config.wandb.project,
        entity=study.config.wandb.entity,
        group=study.name,
        tags=tags_of(study, *tags),
        epoch_axes=tuple(stage.name for stage in stages if stage.kind != "prune"),
        state=state,
        mark=mark_of(
            study.uid,
            study.config.wandb.model_dump(exclude={"mode"}),
            state,
            reason,
            study.dense.state,
            *map(_progress, stages),
        ),
        chain=mark_of([stage.key for stage in stages]),
        count_rows=partial(_count_rows, stages, histograms_at_end),
        make_seconds=partial(_seconds, stages),
        make_config=lambda: {STUDY: study.uid, **make_config()},
        make_summary=lambda: {
            "state": state,
            "reason": reason,
            "seconds": _seconds(stages),
            **make_summary(),
        },
        rows=partial(_dense_rows if histograms_at_end else _chain_rows, stages),
        **fields,
    )


def _state(state: RunState, stages: Sequence[StageRecord]) -> RunState:
    """The state of a run: one with no epoch waits."""
    return "waiting" if state == "running" and not any(stage.epochs_done for stage in stages) else state


def tags_of(study: StudyRecord, *own: str) -> tuple[str, ...]:
    """The tags of every run of a study, and its own; W&B takes 64 characters."""
    tags = (study.name, study.config.data.name, study.config.model.label, *own)
    return tuple(dict.fromkeys(tag[:64] for tag in tags))


def _progress(stage: StageRecord) -> list[Any]:
    return [stage.key, stage.state, stage.epochs_done]


def mark_of(*parts: Any) -> str:
    """A short hash of values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _seconds(stages: Sequence[StageRecord]) -> float:
    """The seconds of training of a chain, as far as it is computed."""
    return sum(stage.result["seconds"] if stage.result else stage.source.seconds() for stage in stages)


def _count_rows(stages: Sequence[StageRecord], one_at_end: bool, before: int | None) -> int:
    """How many rows a chain has; their steps are 0, 1, …"""
    count = int(one_at_end and stages[-1].state == "done")
    for stage in stages:
        count += stage.epochs_done if stage.kind != "prune" else stage.state == "done"
        if stage.state != "done":
            break
    return count if before is None else min(count, before)


def _chain_rows(stages: Sequence[StageRecord], start: int) -> Iterator[tuple[int, Row]]:
    """A row per epoch and one per pruning, as far as the chain is computed."""
    step = 0
    trained: StageRecord | None = None
    for stage in stages:
        if stage.kind == "prune":
            if stage.state == "done" and step >= start:
                yield step, _prune_row(stage, trained)
            step += 1
        else:
            yield from _epoch_rows(stage, first_step=step, start=start)
            step += stage.epochs_done
            trained = trained if stage.kind == "early" else stage
        if stage.state != "done":
            return


def _prune_row(prune: StageRecord, trained: StageRecord | None) -> Row:
    """The metrics of the pruned network, and the scaling factors before pruning."""
    metrics = {f"{prune.name}/{name}": prune.metrics[name] for name in FACTS}
    return metrics | _end_of(prune) | (_layer_histograms(trained) if trained else {})


def _dense_rows(stages: Sequence[StageRecord], start: int) -> Iterator[tuple[int, Row]]:
    """A row per epoch, and one for the scaling factors of the layers at the end."""
    (dense,) = stages
    yield from _epoch_rows(dense, first_step=0, start=start)
    step = dense.epochs_done
    if dense.state == "done" and step >= start:
        yield step, _layer_histograms(dense) | _end_of(dense)


def _end_of(stage: StageRecord) -> Row:
    """When a finished stage ended, as W&B notes the time of a row; empty for those of earlier versions."""
    ended = stage.result.get("ended") if stage.result else None
    return {} if ended is None else {TIME: ended}


def _epoch_rows(stage: StageRecord, *, first_step: int, start: int) -> Iterator[tuple[int, Row]]:
    if start >= first_step + stage.epochs_done:
        return  # without reading the file
    times = dict(enumerate(stage.times, first_step))
    for step, epoch in enumerate(stage.history[max(0, start - first_step) :], max(first_step, start)):
        numbers = {name: value for name, value in epoch.items() if name not in ("epochs", "gamma")}
        row: Row = {f"{stage.name}/{name}": value for name, value in numbers.items()}
        if histogram := histogram_of(epoch.get("gamma")):
            row[f"{stage.name}/gamma"] = histogram
        if step in times:
            row[TIME] = times[step]
        yield step, row


def _layer_histograms(stage: StageRecord) -> Row:
    layers = {name: histogram_of(raw) for name, raw in stage.gamma_layers.items()}
    return {f"gamma_layers/{name}": histogram for name, histogram in layers.items() if histogram}


def histogram_of(raw: dict[str, Any] | None) -> Histogram | None:
    """None if there is none to show: W&B refuses edges that are not finite, from a diverged network."""
    if raw is None or not all(map(math.isfinite, raw["edges"])):
        return None
    return Histogram(raw["counts"], raw["edges"])
