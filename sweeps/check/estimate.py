"""How long a sweep will take, from the seconds of its parts: as its stages took, or as they were tried."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from slimnet.pruning.options import CURVE_BATCHES, CURVE_RATIOS
from sweeps.check.findings import Findings
from sweeps.config import Config
from sweeps.config.sections import Recipe
from sweeps.jobs import Place
from sweeps.machine import Machine
from sweeps.records import StageRecord
from sweeps.state import TRAINING_KINDS, State

PROCESS = 0.4  # seconds until a process of a stage has begun, as seen on two cores
LATENCY = 0.7  # seconds to measure that of a finished network


@dataclass(frozen=True)
class Pace:
    """Seconds of the parts of a sweep on one worker, while the others work too.

    Attributes:
        whole, narrow, tuned: of an epoch of training the whole network, a uniformly narrower one, and a
            pruned one.
        start: of a training, up to its first step.
        pruning, curve, latency: of such a stage.
        workers: how many compute stages at once.
        machine: what they run on, in words.
        stages: how many finished stages this was taken from; 0 if a few steps were tried instead.
    """

    whole: float
    narrow: float
    tuned: float
    start: float
    pruning: float
    curve: float
    latency: float
    workers: int
    machine: str
    stages: int = 0


def seconds_of(state: State, findings: Findings) -> float:
    """As `seconds_left`, by what was found when a study's config was tried."""
    return seconds_left(state, pace_as_tried(state.config, findings))


def seconds_left(state: State, pace: Pace) -> float:
    """Seconds until the sweep is done; at most, as trials share stages.

    Args:
        state: of the study, begun or not.
        pace: of its stages.
    """
    config = state.config
    left = state.epochs_ahead()
    narrow = state.narrow_epochs_ahead()
    whole, tuned = left["sparse"] + left["early"] - narrow, left["finetune"]
    training = whole * pace.whole + narrow * pace.narrow + tuned * pace.tuned
    alone, sparse = narrow / config.most_epochs, whole / max(1, *(one.sparse for one in config.lengths))
    prunings = tuned / max(one.finetune for one in config.lengths)
    starts = (alone + sparse + prunings) * (PROCESS + pace.start)
    pruning = prunings * (PROCESS + pace.pruning)
    latencies = (alone + prunings + 1) * (PROCESS + pace.latency)
    curves = config.curves * sparse * (PROCESS + pace.curve)
    return (training + starts + pruning + latencies + curves) / pace.workers


def pace_as_tried(config: Config, findings: Findings) -> Pace:
    """The pace of a study by a few steps of each kind, tried for a moment."""
    times, data = findings.times, findings.data
    long = config.sparse if config.sparse.epochs else config.finetune  # of a training in one go
    validation, measured = sum(data.validation), sum(data.validation) + sum(data.test)
    point = times.prune + CURVE_BATCHES * times.step / 3 + 3 * validation * times.image
    return Pace(
        whole=_epoch(findings, long, times.step),
        narrow=_epoch(findings, long, times.pruned_step * long.batch_size / config.finetune.batch_size),
        tuned=_epoch(findings, config.finetune, times.pruned_step),
        start=times.start,
        pruning=times.start + times.prune + measured * times.image,
        curve=len(CURVE_RATIOS) * point,
        latency=LATENCY,
        workers=findings.workers,
        machine=f"{findings.machine.kind} ({findings.machine.name})",
    )


def pace_as_taken(state: State, places: Callable[[Machine], Sequence[Place]]) -> Pace | None:
    """The pace of a study by those of its stages that are done; None before the first training is.

    A kind of stage of which none is done counts as long as what is most like it.

    Args:
        state: of the study.
        places: those of its stages on devices like the ones that the finished stages were computed on.
    """
    done = [stage for stage in (*state.stages(), *state.record().latencies.values()) if stage.result]
    trained = [stage for stage in done if stage.kind in TRAINING_KINDS and stage.epochs_done]
    if not trained:
        return None
    tuned = _per_epoch([stage for stage in trained if stage.kind == "finetune"])
    narrow = _per_epoch([stage for stage in trained if stage.spec.get("within")])
    whole = _per_epoch(
        [stage for stage in trained if stage.kind != "finetune" and not stage.spec.get("within")]
    )
    whole = whole or tuned or narrow or 0.0
    pruning = _each(done, "prune") or whole
    machine = _machine([stage.result["environment"] for stage in trained if stage.result])
    return Pace(
        whole=whole,
        narrow=narrow or whole,
        tuned=tuned or whole,
        start=0.0,  # it is part of what the stages took
        pruning=pruning,
        curve=_each(done, "curve") or len(CURVE_RATIOS) * pruning,
        latency=_each(done, "latency") or LATENCY,
        workers=len(places(machine)),
        machine=f"{machine.kind} ({machine.name})" if machine.name else machine.kind,
        stages=len(done),
    )


def _per_epoch(stages: Sequence[StageRecord]) -> float | None:
    epochs = sum(stage.epochs_done for stage in stages)
    return sum(stage.result["seconds"] for stage in stages if stage.result) / epochs if epochs else None


def _each(done: Sequence[StageRecord], kind: str) -> float | None:
    seconds = [stage.result["seconds"] for stage in done if stage.kind == kind and stage.result]
    return fmean(seconds) if seconds else None


def _machine(environments: Sequence[Mapping[str, Any]]) -> Machine:
    """The devices that finished stages were computed on."""
    devices = {environment["device"] for environment in environments}
    last = environments[-1]
    return Machine(last["device"].partition(":")[0], len(devices), last.get("device_name", ""), "float32")


def _epoch(findings: Findings, recipe: Recipe, step: float) -> float:
    data = findings.data
    measured = sum(data.validation) + sum(data.test)
    steps = math.ceil(sum(data.train) / recipe.batch_size)
    return steps * step + measured * findings.times.image / recipe.evaluate_every
