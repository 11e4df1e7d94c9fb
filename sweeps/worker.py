"""Computes one stage: reads the networks that it starts from, and writes its folder.

The spec alone determines the result; a `Job` and a `Place` only say where it is computed.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import slimnet
from slimnet.checkpoint import DamagedFileError, build, read
from slimnet.data import Splits
from slimnet.devices import device_name, peak_memory
from slimnet.errors import SlimnetError
from slimnet.files import content_hash
from slimnet.models.building import build_network
from slimnet.models.source import source_hash
from slimnet.training.determinism import make_deterministic
from slimnet.training.recovery import previous
from sweeps.data import open_splits
from sweeps.jobs import DamagedInputError, Job, Place, Watch
from sweeps.records import Row
from sweeps.stages import StageFolder
from sweeps.stages.remote import when_reachable
from sweeps.stages.spec import Computed, Context, ModelSpec


def compute(job: Job, place: Place, watch: Watch) -> bool:
    """Compute a stage, from its last checkpoint if there is one.

    Args:
        job: the stage.
        place: the device and threads.
        watch: callbacks, and whether to stop.

    Returns:
        True if the stage is done, False if `watch.stop` ended it before.

    Raises:
        SlimnetError: the training diverged, or a file is damaged or cannot be written.
    """
    torch.set_num_threads(place.threads)
    make_deterministic(place.device)
    folder = job.store.folder(job.stage)
    folder.prepare(job.stage)
    with folder.hold(watch.stop, watch.warning) as alone:
        if not alone:
            return False
        if folder.state() == "done":
            return True
        try:
            return _has_inputs(job, watch) and _compute(job, place, folder, watch)
        except _StoppedError:
            return False


def _has_inputs(job: Job, watch: Watch) -> bool:
    """Have the networks that a stage starts from on this disk; False if `watch.stop` ended the wait."""
    folders = [job.store.folder(stage) for stage in job.stage.inputs.values()]
    return all(when_reachable(folder.fetch_network, watch.stop, watch.warning) for folder in folders)


def _compute(job: Job, place: Place, folder: StageFolder, watch: Watch) -> bool:
    before, started = folder.seconds(), time.monotonic()

    def seconds() -> float:
        return before + time.monotonic() - started

    keeper = _Keeper(folder, seconds, watch.epoch)
    context = Context(
        splits=load_splits(job, place.device, watch.warning),
        device=place.device,
        network=lambda role: _input_network(job, role, place.device, watch),
        checkpoint=folder.checkpoint,
        before_save=folder.check,
        on_resume=keeper.resume,
        on_epoch=keeper.epoch,
        on_step=watch.step,
        on_warning=watch.warning,
        stop=watch.stop,
        folder=job.model_path,
        init=job.init,
    )
    _check_network(job)
    computed = job.stage.spec.compute(context)
    if computed is None:
        return False
    if computed.model is not None:
        _save(job, folder, computed.model, computed)
    folder.commit(
        {
            "kind": job.stage.kind,
            "key": job.key,
            "metrics": computed.metrics,
            "seconds": seconds(),
            "ended": time.time(),
            "peak_bytes": peak_memory(place.device),
            "environment": _environment(job, place),
        }
    )
    return True


class _StoppedError(Exception):
    """`watch.stop` ended a wait."""


class _Keeper:
    """Keeps a folder's history equal to that of the training, which has already saved each epoch."""

    def __init__(
        self, folder: StageFolder, seconds: Callable[[], float], tell: Callable[[Row], None]
    ) -> None:
        self._folder, self._seconds, self._tell = folder, seconds, tell

    def resume(self, history: list[Row]) -> None:
        """The training resumes from a checkpoint, whose last epoch a killed worker may not have reported."""
        told = self._folder.epochs_done()
        self._folder.rewrite(history)
        if len(history) > told:
            self._note(history[-1])

    def epoch(self, history: list[Row]) -> None:
        """An epoch has been computed and saved."""
        if len(history) == 1:
            self._folder.rewrite(history)  # rows of a training whose checkpoints are lost
        else:
            self._folder.append(history[-1])
        self._note(history[-1])

    def _note(self, row: Row) -> None:
        self._folder.note_epoch(row["epoch"], self._seconds())
        self._folder.publish()
        self._tell(row)


def _save(job: Job, folder: StageFolder, model: nn.Module, computed: Computed) -> None:
    folder.check()
    slimnet.save(
        folder.checkpoint,
        model.cpu(),
        metrics=computed.metrics,
        config=job.stage.spec.dump(),
        training={"history": computed.history},
    )
    previous(folder.checkpoint).unlink(missing_ok=True)


def _input_network(job: Job, role: str, device: str, watch: Watch) -> nn.Module:
    """The network of an input of the stage."""
    folder = job.store.folder(job.stage.inputs[role])
    try:
        return _intact_network(job, folder, watch).to(device)
    except DamagedFileError as error:
        raise DamagedInputError(f"{folder.checkpoint} {error.defect}", role) from error


def _intact_network(job: Job, folder: StageFolder, watch: Watch) -> nn.Module:
    """The network of a finished stage; fetched again if this disk's copy is damaged or has been dropped.

    Raises:
        DamagedFileError: there is no other copy, or that is damaged too.
        _StoppedError: the other copy was out of reach until `watch.stop`.
    """
    _fetch(folder, watch)  # once more, as others may have dropped the copy while the data were prepared
    try:
        return load_network(job, folder)
    except SlimnetError as error:
        is_gone = not folder.checkpoint.is_file()
        if not is_gone and not (isinstance(error, DamagedFileError) and folder.drop_network()):
            raise
    _fetch(folder, watch)
    return load_network(job, folder)


def _fetch(folder: StageFolder, watch: Watch) -> None:
    """Have the network of a finished stage on this disk, for a stage that starts from it.

    Raises:
        DamagedFileError: there is none, or the stage is being computed again.
        _StoppedError: it was out of reach until `watch.stop`.
    """
    if not when_reachable(folder.fetch_network, watch.stop, watch.warning):
        raise _StoppedError
    if not folder.checkpoint.is_file() or folder.state() != "done":
        raise DamagedFileError(folder.checkpoint, "is missing")


def load_network(job: Job, folder: StageFolder) -> nn.Module:
    """The network of a finished stage, on the CPU.

    Args:
        job: of this stage or of one that starts from it.
        folder: of the stage.

    Raises:
        SlimnetError: its checkpoint is missing or damaged, or the code of the network fails.
    """
    saved = read(folder.checkpoint)
    if "optimizer" in saved.training:
        raise DamagedFileError(folder.checkpoint, "holds a training in progress, not the finished network")
    if "factory" not in (architecture := saved.architecture or {}):
        return build(saved)
    return build(saved, build_network(architecture, folder=job.model_path), source=str(folder.checkpoint))


def _check_network(job: Job) -> None:
    """Refuse a network or weights that were edited after the study began, rather than mix two of them."""
    stage = job.stage
    while "parent" in stage.inputs:
        stage = stage.inputs["parent"]
    model: ModelSpec | None = getattr(stage.spec, "model", None)
    if model is None:
        return
    undo = "undo that and use `retry`, or give the study another name"
    if model.factory is not None and model.source not in (None, source_hash(model.factory, job.model_path)):
        raise SlimnetError(f"the source of {model.factory} has been edited since the study began; {undo}")
    hashed = model.weights is not None and model.weights.startswith("sha256:")
    if hashed and stage is job.stage and model.weights != f"sha256:{content_hash(Path(str(job.init)))}":
        raise SlimnetError(f"the weights in {job.init} have changed since the study began; {undo}")


def load_splits(job: Job, device: str, on_note: Callable[[str], None] = lambda text: None) -> Splits:
    """The images of a stage, on a device.

    Args:
        job: of the stage.
        device: of the images.
        on_note: told, in a sentence, of what was decided about pictures, and of waiting for another process.

    Raises:
        SlimnetError: the data set is missing, damaged or of another kind.
    """
    spec = job.stage.spec
    return open_splits(
        spec.data,
        job.data_path,
        job.data_dir,
        seed=spec.seed,
        device=device,
        fingerprint=spec.data.fingerprint,
        on_progress=lambda what, done, total: None if total else on_note(what),
    )


def _environment(job: Job, place: Place) -> dict[str, Any]:
    return {
        "slimnet": slimnet.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": place.device,
        "device_name": device_name(place.device),
        "threads": place.threads,
        "precision": getattr(job.stage.spec, "precision", "float32"),
    }
