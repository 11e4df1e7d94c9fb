"""Networks on disk: written aside and renamed, verified when read, and never a pickled object.

A file is a torch zip of tensors and primitives, or a safetensors file that `slimnet export` wrote. Networks
of `slimnet.models`, torchvision and timm carry their architecture and load from the file alone; for a user's
own class the shapes in the file are enough to fit a fresh instance.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import zipfile
from contextlib import nullcontext
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from slimnet.errors import SlimnetError
from slimnet.files import replacing
from slimnet.models.building import architecture_of, build_network, describe
from slimnet.modes import uncompiled
from slimnet.preprocessing import Preprocessing, attach, preprocessing_of
from slimnet.pruning.blocks import dropped_layers, restore_dropped
from slimnet.pruning.widths import fit_shapes, resize

FORMAT = "slimnet"
VERSION = 1
TENSORS_SUFFIX = ".safetensors"
OTHER_COPY = "take another copy of it"


class DamagedFileError(SlimnetError):
    """A file is not as it was written.

    Attributes:
        defect: what is wrong with it, to follow the name of the file.
    """

    def __init__(self, path: Path, defect: str, advice: str = OTHER_COPY) -> None:
        super().__init__(f"{path} {defect}; {advice}")
        self.defect = defect


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds.

    Attributes:
        architecture: how to build the network again, as in `slimnet.models.building`; None where that is not
            known.
        dropped: layers of blocks that pruning dropped, as `slimnet.pruning.blocks.dropped_layers` tells them.
        state: the state_dict, on the CPU.
        metrics: whatever was measured of it.
        config: whatever it was made from.
        training: optimiser state and history of a training in progress; empty once it is done.
        preprocessing: how pictures become its input; None in files of networks that slimnet did not train.
        resized: attributes of modules that pruning changed with their channels, by name.
    """

    architecture: dict[str, Any] | None
    dropped: dict[str, str]
    state: dict[str, Tensor]
    metrics: dict[str, Any]
    config: dict[str, Any]
    training: dict[str, Any]
    preprocessing: Preprocessing | None = None
    resized: dict[str, int] = field(default_factory=dict)


def save(
    path: str | Path,
    model: nn.Module,
    *,
    metrics: dict[str, Any] | None = None,
    config: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
    keep_old: Path | None = None,
) -> None:
    """Write a network and what is known of it; an interrupted save leaves the file that was there.

    Args:
        path: the file; its folder is made.
        model: its state_dict is written, and its `architecture` and `preprocessing` where it has them.
        metrics, config, training: primitives and tensors, nested in dicts and lists.
        keep_old: where the file that was there goes, if any; by default it is replaced.

    Raises:
        SlimnetError: the file cannot be written (a full disk, a missing permission), or a value is nothing
            that can be read back without pickle.

    Example:
        >>> slimnet.save("net.pt", slimnet.models.resnet([1], width=8), metrics={"val_accuracy": 0.9})
        >>> slimnet.load("net.pt").widths
        [8, 8, 8, 32]
    """
    model = uncompiled(model)
    preprocessing = preprocessing_of(model)
    content = {
        "format": FORMAT,
        "version": VERSION,
        "architecture": _plain(architecture_of(model), "architecture"),
        "resized": dict(getattr(model, "resized", {})),
        "dropped": dropped_layers(model),
        "state": dict(model.state_dict()),
        "metrics": _plain(metrics or {}, "metrics"),
        "config": _plain(config or {}, "config"),
        "training": _plain(training or {}, "training"),
        **({"preprocessing": preprocessing.record()} if preprocessing else {}),
    }
    content["sha256"] = _digest(content)
    path = Path(path)
    try:
        with replacing(path, keep_old) as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as error:
        # When a write fails, torch complains of its own position in the file while the OSError is handled.
        reason = error.__context__ if isinstance(error.__context__, OSError) else error
        raise SlimnetError(f"cannot write {path}: {reason}; make room or choose another folder") from error


def read(path: str | Path) -> Checkpoint:
    """Read and verify a file without building anything.

    Raises:
        DamagedFileError: it is truncated or changed.
        SlimnetError: no such file, or it is from another program, of a newer version, or holds pickled code.

    Example:
        >>> slimnet.save("net.pt", slimnet.models.resnet([1], width=8), metrics={"test_accuracy": 0.9})
        >>> slimnet.read("net.pt").metrics
        {'test_accuracy': 0.9}
    """
    path = Path(path)
    if path.suffix == TENSORS_SUFFIX:
        return _read_tensors(path)
    _check_archive(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise SlimnetError(
            f"{path} holds pickled objects, which could run code when loaded; it was not loaded"
        ) from error
    except Exception as error:
        reason = str(error).split("\n")[0]
        raise DamagedFileError(path, f"is damaged ({reason})") from error
    version = (
        content.get("version") if isinstance(content, dict) and content.get("format") == FORMAT else None
    )
    if not isinstance(version, int):
        raise SlimnetError(f"{path} was not written by slimnet; slimnet.save writes files that can be loaded")
    if version > VERSION:
        raise SlimnetError(
            f"{path} has format version {version}, this slimnet reads up to {VERSION}; upgrade slimnet"
        )
    if content.pop("sha256", None) != _digest(content):
        raise DamagedFileError(path, "has been changed: its checksum does not match its content")
    return _checkpoint(content)


def _checkpoint(content: dict[str, Any]) -> Checkpoint:
    if "preprocessing" in content:
        content["preprocessing"] = Preprocessing.from_record(content["preprocessing"])
    known = {field.name for field in fields(Checkpoint)}
    return Checkpoint(**{name: value for name, value in content.items() if name in known})


def _read_tensors(path: Path) -> Checkpoint:
    """Read a safetensors file that `slimnet.export` wrote."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise SlimnetError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            texts = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    except (SafetensorError, OSError) as error:
        raise DamagedFileError(path, f"is damaged ({error})") from error
    if texts.get("made_by") is None or "architecture" not in texts:
        raise SlimnetError(f"{path} was not written by slimnet; slimnet.save writes files that can be loaded")
    try:
        content = {name: json.loads(text) for name, text in texts.items() if name != "format"}
    except ValueError as error:
        raise DamagedFileError(path, f"is damaged ({error})") from error
    if lacking := [name for name in ("dropped", "metrics", "config") if name not in content]:
        raise DamagedFileError(path, f"is damaged: it lacks {', '.join(lacking)}")
    return _checkpoint({"training": {}, **content, "state": state})


def _check_archive(path: Path) -> None:
    """Tell a file that is missing, foreign, cut off or damaged, before anything in it is interpreted."""
    if not path.is_file():
        raise SlimnetError(f"{path}: no such file")
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise SlimnetError(f"{path} cannot be read: {error.strerror}") from error
    if start != b"PK\x03\x04":
        raise DamagedFileError(path, "is not a slimnet file", "slimnet.save writes files that can be loaded")
    try:
        whole = zipfile.is_zipfile(path)
        with zipfile.ZipFile(path) if whole else nullcontext() as archive:
            damaged = archive.testzip() if archive else None
    except Exception as error:  # zipfile has many ways to fail on damaged headers
        raise DamagedFileError(path, f"is damaged ({error})") from error
    if not whole:
        raise DamagedFileError(path, "is truncated: its end is missing")
    if damaged is not None:
        raise DamagedFileError(path, f"is damaged (in {damaged})")


def load(path: str | Path, model: nn.Module | None = None) -> nn.Module:
    """Load a network, ready to evaluate; `read` gives what else the file holds, such as its metrics.

    What is known of its input and outputs is its attribute `preprocessing`, a `Preprocessing`.

    Args:
        path: a file written by `save`, or a stage's checkpoint.pt.
        model: a fresh instance of your own class, at its original widths; it is fitted to the shapes in the
            file and filled. Not needed for the networks of slimnet, torchvision and timm.

    Raises:
        SlimnetError: as `read`, or the file needs `model`, or `model` does not fit, naming the layer.

    Example:
        >>> slimnet.save("own.pt", torch.nn.Sequential(torch.nn.Linear(4, 2)))
        >>> slimnet.load("own.pt", model=torch.nn.Sequential(torch.nn.Linear(4, 2)))
        Sequential(
          (0): Linear(in_features=4, out_features=2, bias=True)
        )
    """
    return build(read(path), model, source=str(path))


def build(
    checkpoint: Checkpoint, model: nn.Module | None = None, *, source: str = "the checkpoint"
) -> nn.Module:
    """The network that a `Checkpoint` holds; see `load`."""
    if model is None:
        model = _rebuilt(checkpoint.architecture, source)
    elif checkpoint.architecture is not None and architecture_of(model) is None:
        describe(model, checkpoint.architecture)  # to be saved again
    dtypes = {tensor.dtype for tensor in checkpoint.state.values() if tensor.is_floating_point()}
    if len(dtypes) == 1:
        model.to(dtypes.pop())
    try:
        resize(model, checkpoint.resized)
        restore_dropped(model, checkpoint.dropped, checkpoint.state)
    except (AttributeError, KeyError) as error:
        raise SlimnetError(f"{source} is of another network than {type(model).__name__}: {error}") from error
    fit_shapes(model, checkpoint.state)
    try:
        model.load_state_dict(checkpoint.state)
    except RuntimeError as error:
        details = " ".join(str(error).split("\n")[1:]).replace("\t", "")
        raise SlimnetError(f"{source} does not fit {type(model).__name__}: {details}") from error
    if checkpoint.preprocessing is not None:
        attach(model, checkpoint.preprocessing)
    return model.eval()


def _rebuilt(architecture: dict[str, Any] | None, source: str) -> nn.Module:
    """A fresh network of a file's architecture; the code of the user's own is not run unasked."""
    if architecture is None or "factory" in architecture:
        made_by = f", made by {architecture['factory']}" if architecture else ""
        raise SlimnetError(
            f"{source} holds a network of your own{made_by}; load it with model=YourNetwork(), or on the "
            "command line with --model MODULE:FACTORY"
        )
    if "widths" in architecture:  # 0 in dropped blocks, which are replaced
        architecture = {**architecture, "widths": [max(1, width) for width in architecture["widths"]]}
    try:
        return build_network(architecture)
    except SlimnetError as error:
        raise SlimnetError(f"{source}: {error}") from error


def _plain(value: Any, where: str) -> Any:
    """`value` with numpy's numbers made plain; anything else that only pickle could bring back is refused."""
    if isinstance(value, dict):
        return {_plain(key, where): _plain(item, f"{where}[{key!r}]") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, np.generic):
        value = value.item()
    if type(value) in (str, int, float, bool, type(None)) or isinstance(value, Tensor):
        return value
    raise SlimnetError(
        f"{where} is a {type(value).__name__}; files hold strings, numbers, tensors, dicts and lists"
    )


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
