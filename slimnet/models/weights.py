"""Trained weights to start from: files of slimnet and safetensors, plain state dicts, published weights.

No file is ever unpickled.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from slimnet.checkpoint import FORMAT, TENSORS_SUFFIX, read
from slimnet.errors import SlimnetError
from slimnet.models.building import Description, import_timm
from slimnet.models.catalogue import label_of, names_weights
from slimnet.wording import first_line, plural

WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "module", "ema_state_dict")
"""Under which programs keep the weights in their checkpoints."""
PREFIXES = ("module.", "_orig_mod.", "model.")
"""What DataParallel, torch.compile and Lightning put before every name."""


def give_weights(
    model: nn.Module, description: Description, init: str, num_classes: int | None
) -> str | None:
    """Fill a network with trained weights; a last layer of another number of classes keeps the ones it has.

    Args:
        model: changed; it was made from `description`.
        description: see `slimnet.models.building`.
        init: a file, or the name of published weights: those of torchvision, such as "DEFAULT", or
            "pretrained" for timm.
        num_classes: outputs of the network; None where the file must fit as it is.

    Returns:
        A sentence on the layers that were left as they were; None if all weights are from `init`.

    Raises:
        SlimnetError: the weights cannot be had, or do not fit, naming the first layer.
    """
    if names_weights(description.get("name"), init):
        source, state = f"{label_of(description)} {init}", _published(description, init)
    else:
        source, state = str(init), read_weights(Path(init))
    return _fill(model, state, source, num_classes)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state_dict in a file of slimnet, of safetensors, or of torch.save.

    Raises:
        SlimnetError: no such file, it is damaged, or holds pickled objects or no state_dict.
    """
    if not path.is_file():
        raise SlimnetError(f"there is no file {path} to start from (init)")
    if path.suffix == TENSORS_SUFFIX:
        return _read_safetensors(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises what it meets
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):  # an object of a class
            raise SlimnetError(
                f"{path} holds pickled objects, which could run code when loaded; save the state_dict alone: "
                "torch.save(model.state_dict(), FILE)"
            ) from error
        raise SlimnetError(f"{path} cannot be read as weights; it is damaged or of another kind") from error
    if isinstance(content, dict) and content.get("format") == FORMAT:
        return read(path).state
    return _unwrapped(content, path)


def is_plain_weights(path: Path) -> bool:
    """Whether a file holds weights that slimnet did not write."""
    if not path.is_file():
        return False
    try:
        if path.suffix == TENSORS_SUFFIX:
            with safe_open(path, framework="pt") as file:
                return "architecture" not in (file.metadata() or {})
        mapped = zipfile.is_zipfile(path)  # as torch's older files are not
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception:  # a damaged file is not a plain one
        return False
    return isinstance(content, dict) and content.get("format") != FORMAT


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise SlimnetError(f"{path} cannot be read as safetensors: {first_line(error)}") from error


def _unwrapped(content: Any, path: Path) -> dict[str, Tensor]:
    """The state_dict in what a file holds."""
    while isinstance(content, Mapping) and not any(isinstance(value, Tensor) for value in content.values()):
        inner = [content[name] for name in WRAPPERS if isinstance(content.get(name), Mapping)]
        if not inner:
            break
        content = inner[0]
    items = content.items() if isinstance(content, Mapping) else ()
    state = {name: value for name, value in items if isinstance(value, Tensor)}
    if not state:
        raise SlimnetError(f"{path} holds no state_dict; save one with torch.save(model.state_dict(), FILE)")
    return state


def _published(description: Description, init: str) -> dict[str, Tensor]:
    """Published weights, downloaded where they are not in the cache of torch or Hugging Face."""
    label = label_of(description)
    library, _, name = label.partition("/")
    try:
        if library == "torchvision":
            weights = _torchvision_weights(name, init)
            return dict(weights.get_state_dict(progress=False, check_hash=True, weights_only=True))
        timm = import_timm(label)
        return dict(timm.create_model(name, pretrained=True).state_dict())
    except SlimnetError:
        raise
    except Exception as error:  # of a network connection, in many libraries
        raise SlimnetError(
            f"the weights {init} of {label} cannot be downloaded ({first_line(error)}); download them where "
            "there is a network, and give the file instead"
        ) from error


def published_source(description: Description, init: str) -> str:
    """Where published weights come from, which tells them from others.

    Raises:
        SlimnetError: there are no such weights.
    """
    label = label_of(description)
    library, _, name = label.partition("/")
    if library == "torchvision":
        return str(_torchvision_weights(name, init).url)
    timm = import_timm(label)
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise SlimnetError(f"timm has no trained weights of {name}; leave out init")
    return str(config.hf_hub_id or config.url)


def _torchvision_weights(name: str, init: str) -> Any:
    from torchvision import models

    weights = models.get_model_weights(name)
    try:
        return weights[init]
    except KeyError:
        known = ", ".join(["DEFAULT", *(one.name for one in weights)])
        raise SlimnetError(f"torchvision/{name} has no weights {init}; it has {known}") from None


def _fill(model: nn.Module, state: dict[str, Tensor], source: str, num_classes: int | None) -> str | None:
    own = model.state_dict()
    state = _without_prefix(state, own)
    heads = {} if num_classes is None else _other_heads(model, state, num_classes)
    for name, tensor in own.items():
        layer, _, part = name.rpartition(".")
        if layer in heads or part == "num_batches_tracked":
            continue
        found = f"it is {_spell(state[name])}" if name in state else "there is none"
        if name not in state or state[name].shape != tensor.shape:
            raise SlimnetError(
                f"{source} does not fit the network: the {part} of {layer or 'the network'} is "
                f"{_spell(tensor)}, but in the file {found}"
            )
    if unused := [name for name in state if name not in own]:
        raise SlimnetError(f"{source} does not fit the network, which has no {unused[0]}")
    model.load_state_dict(
        {**own, **{name: value for name, value in state.items() if name.rpartition(".")[0] not in heads}}
    )
    if not heads:
        return None
    before = next(iter(heads.values()))
    return (
        f"{source} tells {plural(before, 'class')} apart, and the data have {num_classes}: the last layer, "
        f"{' and '.join(heads)}, starts with new weights"
    )


def _without_prefix(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in state) and not any(
            name.startswith(prefix) for name in own
        ):
            return _without_prefix({name.removeprefix(prefix): value for name, value in state.items()}, own)
    return state


def _other_heads(model: nn.Module, state: Mapping[str, Tensor], num_classes: int) -> dict[str, int]:
    """The layers that differ in their number of classes alone, with that in `state`."""
    heads = {}
    for name, layer in model.named_modules():
        saved = state.get(f"{name}.weight")
        if (
            isinstance(layer, nn.Linear | nn.Conv2d)
            and saved is not None
            and len(layer.weight) == num_classes
        ):
            same = saved.shape[1:] == layer.weight.shape[1:]
            if same and saved.shape != layer.weight.shape:
                heads[name] = len(saved)
    return heads


def _spell(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"
