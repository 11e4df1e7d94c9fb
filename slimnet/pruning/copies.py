"""Copies of networks, which may share tensors with what they were made from."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from slimnet.errors import SlimnetError
from slimnet.graph.record import tensors_in
from slimnet.modules import each

Model = TypeVar("Model", bound=nn.Module)
_ATOMIC = {bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, type}


def copied(model: Model, sharing: Iterable[Tensor]) -> Model:
    """A deep copy that shares some tensors."""
    shared: dict[int, Any] = {id(tensor): tensor for tensor in sharing}
    try:
        copied: Model
        try:
            copied = _copy_value(model, dict(shared))
        except RuntimeError:  # an activation that a forward kept cannot be copied as it is
            copied = _copy_value(model, shared | _kept_activations(model))
    except (TypeError, RuntimeError) as error:
        raise SlimnetError(f"{type(model).__name__} cannot be copied: {error}") from error
    return copied


def _kept_activations(model: nn.Module) -> dict[int, Any]:
    """Copies of the tensors in attributes of modules that gradients would flow through."""
    return {
        id(tensor): tensor.detach().clone()
        for module in each(model)
        for value in vars(module).values()
        for tensor in tensors_in([value])
        if not tensor.is_leaf
    }


def _copy_value(value: Any, known: dict[int, Any]) -> Any:
    """What copy.deepcopy makes of a value, several times as fast for a network."""
    kind: Any = type(value)
    if kind in _ATOMIC:
        return value
    if id(value) in known:
        return known[id(value)]
    copied: Any
    if isinstance(value, nn.Module) and _is_copied_by_attributes(kind):
        known[id(value)] = copied = kind.__new__(kind)
        attributes = vars(copied)
        for name, item in vars(value).items():
            if type(item) in _ATOMIC:
                attributes[name] = item
            elif name in _OF_ALL and not item:  # mostly so
                attributes[name] = type(item)()
            elif name != "_compiled_call_impl":  # which calls the original
                attributes[name] = _copy_value(item, known)
    elif kind is dict:
        known[id(value)] = copied = {}
        for key, item in value.items():
            copied[key if type(key) is str else copy.deepcopy(key, known)] = _copy_value(item, known)
    elif kind is nn.Parameter and value.grad is None and not vars(value):
        known[id(value)] = copied = nn.Parameter(value.detach().clone(), value.requires_grad)
    elif kind is Tensor and value.is_leaf and not value.requires_grad and not vars(value):
        known[id(value)] = copied = value.clone()
    elif kind is tuple and all(type(item) in _ATOMIC for item in value):
        return value
    elif kind is set and all(type(item) in _ATOMIC for item in value):
        known[id(value)] = copied = value.copy()
    else:
        return copy.deepcopy(value, known)
    return copied


_OF_ALL = frozenset(vars(nn.Module()))


@functools.cache
def _is_copied_by_attributes(kind: type[nn.Module]) -> bool:
    """Whether a class leaves it to nn.Module how it is copied: its attributes, one by one."""
    ways = ("__deepcopy__", "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__slots__")
    for base in kind.__mro__:
        ours = base in (object, nn.Module)
        torchs = base.__module__.startswith("torch.nn.modules.")  # whose __setstate__ are for old files
        if not ours and any(way in vars(base) for way in ways if not (torchs and way == "__setstate__")):
            return False
    return kind.__new__ is object.__new__
