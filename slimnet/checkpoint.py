"""Networks on disk: written aside and renamed, verified when read, and never a pickled object.

A file is a torch zip of tensors and primitives. Networks of `slimnet.models` carry their architecture and
load from the file alone; for a user's own class the shapes in the file are enough to fit a fresh instance.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from slimnet import models
from slimnet.errors import SlimnetError
from slimnet.surgery import fit_shapes

FORMAT = "slimnet"
VERSION = 1


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds.

    Attributes:
        architecture: how to build the network again; None for a class that is not slimnet's.
        state: the state_dict, on the CPU.
        metrics: whatever was measured of it.
        config: whatever it was made from.
        training: optimiser state and history of a training in progress; empty once it is done.
    """

    architecture: dict[str, Any] | None
    state: dict[str, Tensor]
    metrics: dict[str, Any]
    config: dict[str, Any]
    training: dict[str, Any]


def save(
    path: str | Path,
    model: nn.Module,
    *,
    metrics: dict[str, Any] | None = None,
    config: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
) -> None:
    """Write a network and what is known of it; an interrupted save leaves the file that was there.

    Args:
        path: the file; its folder is made.
        model: its state_dict is written, and its `architecture` where it has one.
        metrics, config, training: primitives and tensors, nested in dicts and lists.

    Raises:
        SlimnetError: the file cannot be written (a full disk, a missing permission).
    """
    content = {
        "format": FORMAT,
        "version": VERSION,
        "architecture": getattr(model, "architecture", None),
        "state": dict(model.state_dict()),
        "metrics": metrics or {},
        "config": config or {},
        "training": training or {},
    }
    content["sha256"] = _digest(content)
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                torch.save(content, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
        except BaseException:
            Path(aside).unlink(missing_ok=True)
            raise
    except (OSError, RuntimeError) as error:
        raise SlimnetError(f"cannot write {path}: {error}; make room or choose another folder") from error


def read(path: str | Path) -> Checkpoint:
    """Read and verify a file without building anything.

    Raises:
        SlimnetError: no such file, or it is truncated, changed, from another program, of a newer version,
            or holds pickled code; each says which.
    """
    path = Path(path)
    if not path.is_file():
        raise SlimnetError(f"{path}: no such file")
    if not zipfile.is_zipfile(path):
        raise SlimnetError(f"{path} is truncated or no slimnet file; take another copy of it")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise SlimnetError(f"{path} holds pickled objects, which could run code when loaded; refused") from error
    except Exception as error:
        raise SlimnetError(f"{path} is damaged ({error}); take another copy of it") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise SlimnetError(f"{path} was not written by slimnet; slimnet.save writes files that can be loaded")
    if content["version"] > VERSION:
        raise SlimnetError(
            f"{path} has format version {content['version']}, this slimnet reads up to {VERSION}; upgrade slimnet"
        )
    digest = content.pop("sha256", None)
    if digest != _digest(content):
        raise SlimnetError(f"{path} has been changed or damaged: its checksum does not match its content")
    return Checkpoint(*(content[key] for key in ("architecture", "state", "metrics", "config", "training")))


def load(path: str | Path, model: nn.Module | None = None) -> nn.Module:
    """Load a network, ready to evaluate.

    Args:
        path: a file written by `save`, or a stage's checkpoint.pt.
        model: a fresh instance of your own class, at its original widths; it is fitted to the shapes in the
            file and filled. Not needed for slimnet's own networks.

    Raises:
        SlimnetError: as `read`, or the file needs `model`, or `model` does not fit, naming the layer.
    """
    return build(read(path), model, source=str(path))


def build(checkpoint: Checkpoint, model: nn.Module | None = None, *, source: str = "the checkpoint") -> nn.Module:
    """The network that a `Checkpoint` holds; see `load`."""
    if model is None:
        if checkpoint.architecture is None:
            raise SlimnetError(f"{source} holds a network of your own; load it with model=YourNetwork()")
        kwargs = dict(checkpoint.architecture)
        name = kwargs.pop("name", None)
        if name != "resnet":
            raise SlimnetError(f"{source} holds a {name!r}, which this slimnet does not know; upgrade slimnet")
        model = models.resnet(kwargs.pop("blocks"), **kwargs)
    fit_shapes(model, checkpoint.state)
    try:
        model.load_state_dict(checkpoint.state)
    except RuntimeError as error:
        raise SlimnetError(f"{source} does not fit {type(model).__name__}: {error}") from error
    return model.eval()


def _digest(content: dict[str, Any]) -> str:
    sha = hashlib.sha256()
    _feed(sha, content)
    return sha.hexdigest()


def _feed(sha: Any, value: Any) -> None:
    """Hash nested content, order and types included."""
    if isinstance(value, dict):
        sha.update(f"dict{len(value)}".encode())
        for key, item in value.items():
            sha.update(repr(key).encode())
            _feed(sha, item)
    elif isinstance(value, list | tuple):
        sha.update(f"list{len(value)}".encode())
        for item in value:
            _feed(sha, item)
    elif isinstance(value, Tensor):
        dense = value.detach().cpu().contiguous()
        sha.update(f"{dense.dtype}{tuple(dense.shape)}".encode())
        sha.update(dense.reshape(-1).view(torch.uint8).numpy().data if dense.numel() else b"")
    else:
        sha.update(json.dumps(value).encode())
