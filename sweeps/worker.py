"""Computes one stage and nothing else: reads its parent's network, writes its own folder.

Everything a stage does follows from its spec; what a `Job` adds (folders, device, threads) only says where.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import nn

import slimnet
from slimnet.calibrate import recalibrate_on
from slimnet.checkpoint import build, read
from slimnet.data import Splits, load_dataset, split
from slimnet.determinism import make_deterministic
from slimnet.errors import SlimnetError
from slimnet.evaluation import measure
from slimnet.plan import scaling_factors
from slimnet.recovery import previous, recover
from slimnet.seeds import derive_seed
from slimnet.sparsity import PLAIN_L1, Sparsity, histogram, near_zero
from slimnet.training import Recipe, Row, train
from sweeps.files import write_json, write_lines
from sweeps.machine import Slot, device_name
from sweeps.stages import Kind, Stage, Store

SPARSITY = ("penalty", "lambda_schedule", "target")  # of the spec, absent at λ = 0
TOLERANCE = 0.05  # by which a share near zero may miss its target without a word
LOCK_POLL = 0.2  # seconds between looks at `Watch.stop` while another study computes the same stage


@dataclass(frozen=True)
class Job:
    """A stage and where to compute it.

    Attributes:
        spec: of the stage.
        folder: the stage's own; `parent` is that of the stage before it, `teacher` that of the network that
            fine-tuning may learn from.
        data_path, data_dir: where the data set is; the spec holds its fingerprint.
        device: "cpu" or "cuda:<n>".
        threads: for operations on the CPU.
    """

    kind: Kind
    key: str
    spec: dict[str, Any]
    folder: Path
    parent: Path | None
    data_path: Path | None
    data_dir: Path | None
    device: str
    threads: int
    teacher: Path | None = None

    @classmethod
    def of(
        cls,
        stage: Stage,
        store: Store,
        slot: Slot,
        *,
        data_path: Path | None = None,
        data_dir: Path | None = None,
    ) -> Job:
        """The job of a stage in a slot; makes the stage's folder."""
        return cls(
            kind=stage.kind,
            key=stage.key,
            spec=stage.spec,
            folder=store.prepare(stage),
            parent=store.folder(stage.parent) if stage.parent else None,
            teacher=store.folder(stage.teacher) if stage.teacher else None,
            data_path=data_path,
            data_dir=data_dir,
            device=slot.device,
            threads=slot.threads,
        )


@dataclass(frozen=True)
class Watch:
    """How a stage reports while it runs.

    Attributes:
        epoch: called with the epochs done after each one that is computed, not for those found done.
        step: called with (epoch, steps done, steps) within one.
        warning: called with a sentence on what was damaged and how the stage goes on.
        stop: whether to end after the epoch in hand, or while waiting for another process to end.
    """

    epoch: Callable[[int], None] = lambda done: None
    step: Callable[[int, int, int], None] = lambda epoch, step, steps: None
    warning: Callable[[str], None] = lambda text: None
    stop: Callable[[], bool] = lambda: False


def compute(job: Job, watch: Watch) -> bool:
    """Compute a stage, going on from where it was left.

    Returns:
        True when `result.json` is there, False when `watch.stop` ended it before.

    Raises:
        SlimnetError: the training diverged, or a file is damaged or cannot be written.
    """
    torch.set_num_threads(job.threads)
    make_deterministic(job.device)
    with _alone_in(job.folder, watch.stop) as alone:
        if not alone:
            return False
        if (job.folder / "result.json").exists():
            return True
        _remove_halves(job.folder)
        return _compute(job, watch)


def _compute(job: Job, watch: Watch) -> bool:
    before, started = _seconds_spent(job), time.monotonic()

    def note_epoch(done: int) -> None:
        write_json(job.folder / "timing.json", {"seconds": before + time.monotonic() - started})
        watch.epoch(done)

    splits = _load_splits(job)
    run = {"sparse": _sparse, "prune": _prune, "finetune": _finetune}[job.kind]
    outcome = run(job, splits, replace(watch, epoch=note_epoch))
    if outcome is None:
        return False
    model, metrics, history = outcome
    metrics = {**measure(model, splits), **metrics}
    checkpoint = job.folder / "checkpoint.pt"
    slimnet.save(checkpoint, model.cpu(), metrics=metrics, config=job.spec, training={"history": history})
    previous(checkpoint).unlink(missing_ok=True)
    result = {
        "kind": job.kind,
        "key": job.key,
        "metrics": metrics,
        "seconds": before + time.monotonic() - started,
        "environment": _environment(job),
    }
    write_json(job.folder / "result.json", result)
    return True


@contextmanager
def _alone_in(folder: Path, stop: Callable[[], bool]) -> Iterator[bool]:
    """Hold a stage's folder, waiting while another process has it; False if told to stop before that."""
    lock = FileLock(folder / ".lock")
    while not (stop() or lock.is_locked):
        with suppress(Timeout):
            lock.acquire(timeout=LOCK_POLL)
    try:
        yield lock.is_locked
    finally:
        lock.release()


def _remove_halves(folder: Path) -> None:
    """Delete files that a killed worker was still writing aside."""
    for name in ("checkpoint.pt", "history.jsonl", "timing.json", "result.json"):
        for half in folder.glob(f".{name}.*"):
            half.unlink()


Outcome = tuple[nn.Module, dict[str, Any], list[Row]]


def _sparse(job: Job, splits: Splits, watch: Watch) -> Outcome | None:
    """Train a fresh network while λ·|γ| draws its scaling factors to zero."""
    torch.manual_seed(derive_seed(job.spec["seed"], "sparse", "weights"))
    model = _new_model(job.spec["model"], splits).to(job.device)
    gammas = _gammas(model, splits, streams=job.spec.get("streams", False))
    sparsity = Sparsity(**{name: job.spec[name] for name in SPARSITY if name in job.spec})
    history = _train(job, model, splits, watch, gammas, strength=job.spec["lambda"], sparsity=sparsity)
    if history is None:
        return None
    share, target = near_zero(list(gammas.values())), sparsity.target
    if target is not None and abs(share - target) > TOLERANCE:
        watch.warning(f"{share:.0%} of the scaling factors ended near zero, where the target is {target:.0%}")
    layers = {name: histogram([gamma]) for name, gamma in gammas.items()}
    return (
        model,
        {**_last(history), "near_zero": share, "gamma_layers": layers},
        history,
    )


def _prune(job: Job, splits: Splits, watch: Watch) -> Outcome:
    """Cut the parent's network and repair its statistics; there is no training in it."""
    model = _parent_model(job)
    options = dict(job.spec["prune"])
    absorb, recalibrate = options.pop("absorb"), options.pop("recalibrate")
    graph = slimnet.trace(model, splits.example)
    plan = slimnet.plan(graph, **options)
    smaller = slimnet.prune(model, plan, absorb=absorb)
    if recalibrate:
        seed = derive_seed(job.spec["seed"], "prune", "recalibrate")
        recalibrate_on(smaller, splits, recalibrate, seed=seed, **job.spec["calibration"])
    metrics = {
        "threshold": plan.threshold,
        "kept": plan.prunable_channels - plan.removed_channels,
        "prunable": plan.prunable_channels,
        "widths": getattr(smaller, "widths", None),
    }
    return smaller, metrics, []


def _finetune(job: Job, splits: Splits, watch: Watch) -> Outcome | None:
    """Train the pruned network without penalty, taught by the network before pruning if asked to."""
    model = _parent_model(job)
    gammas = _gammas(model, splits)
    teacher = _network_in(job.teacher, job) if job.spec["recipe"].get("distill") else None
    history = _train(job, model, splits, watch, gammas, strength=0.0, teacher=teacher)
    if history is None:
        return None
    return model, {**_last(history), "near_zero": near_zero(list(gammas.values()))}, history


def _train(
    job: Job,
    model: nn.Module,
    splits: Splits,
    watch: Watch,
    gammas: dict[str, nn.Parameter],
    strength: float,
    sparsity: Sparsity = PLAIN_L1,
    teacher: nn.Module | None = None,
) -> list[Row] | None:
    """Train by the spec's recipe; None if stopped before its last epoch."""
    recipe = Recipe(**job.spec["recipe"])
    checkpoint, path = job.folder / "checkpoint.pt", job.folder / "history.jsonl"
    found = recover(checkpoint, watch.warning)
    noted = len(path.read_bytes().splitlines()) if found and path.exists() else 0

    def note_epoch(history: list[Row]) -> None:
        nonlocal noted
        before, noted = noted, len(history)
        if noted != before:
            write_lines(path, history)
        if noted > before:
            watch.epoch(noted)

    history = train(
        model,
        splits,
        recipe,
        seed=derive_seed(job.spec["seed"], job.kind, "batches"),
        gammas=gammas,
        strength=strength,
        sparsity=sparsity,
        teacher=teacher,
        precision=job.spec["precision"],
        compiled=job.spec.get("compile", False),
        checkpoint=checkpoint,
        on_epoch=note_epoch,
        on_step=watch.step,
        stop=watch.stop,
    )
    return history if len(history) == recipe.epochs else None


def _last(history: list[Row]) -> dict[str, Any]:
    return {name: history[-1][name] for name in ("loss", "train_accuracy")}


def _new_model(spec: dict[str, Any], splits: Splits) -> nn.Module:
    channels = splits.image_shape[0]
    return slimnet.models.resnet(
        spec["blocks"], spec["width"], stem=spec["stem"], num_classes=splits.num_classes, in_channels=channels
    )


def _gammas(model: nn.Module, splits: Splits, *, streams: bool = False) -> dict[str, nn.Parameter]:
    return scaling_factors(slimnet.trace(model, splits.example), streams=streams)


def _parent_model(job: Job) -> nn.Module:
    return _network_in(job.parent, job)


def _network_in(folder: Path | None, job: Job) -> nn.Module:
    assert folder is not None, f"a {job.kind} stage has stages before it"
    try:
        return build(read(folder / "checkpoint.pt")).to(job.device)
    except SlimnetError as error:
        raise SlimnetError(f"{error}; or delete the folder {folder} and it is computed again") from error


def _load_splits(job: Job) -> Splits:
    data = job.spec["data"]
    dataset = load_dataset(
        data["name"], path=job.data_path, data_dir=job.data_dir, image_size=data["image_size"]
    )
    return split(dataset, validation=data["validation"], seed=job.spec["seed"], device=job.device)


def _seconds_spent(job: Job) -> float:
    """Time that earlier runs have put into the epochs that are kept."""
    try:
        return float(json.loads((job.folder / "timing.json").read_text())["seconds"])
    except (OSError, ValueError):
        return 0.0


def _environment(job: Job) -> dict[str, Any]:
    return {
        "slimnet": slimnet.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": job.device,
        "device_name": device_name(job.device),
        "threads": job.threads,
        "precision": job.spec.get("precision", "float32"),
    }
