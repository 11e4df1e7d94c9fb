"""What a look at a network may change, put back as it was found."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from slimnet import modules
from slimnet.errors import SlimnetError

Model = TypeVar("Model")


def uncompiled(model: Model) -> Model:
    """The network that torch.compile was given, where it was."""
    original: Model = getattr(model, "_orig_mod", model)
    return original


def prunable(model: Model) -> Model:
    """The network whose channels can be followed and cut, of a compiled one what it was made of.

    Raises:
        SlimnetError: it is scripted as a whole.
    """
    model = uncompiled(model)
    if isinstance(model, torch.jit.ScriptModule):
        raise SlimnetError(
            f"{model.original_name} is scripted by torch.jit, so that its layers cannot be cut; prune the "
            "network that it was made of, and script the smaller one"
        )
    return model


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Hold `model` in eval mode; each module's own mode returns afterwards."""
    training = [module for module in modules.each(model) if getattr(module, "training", False)]
    if training:
        model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


_STORES = ("_parameters", "_buffers", "_modules")
_OF_ALL = vars(nn.Module()).keys()
_CONTAINERS = (list, dict, set, deque)


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Undo what a forward pass leaves on its modules: activations kept as attributes, lists that grew."""
    before = [(attributes, attributes.copy()) for attributes in map(vars, modules.each(model))]
    grown = [
        (value, value.copy())
        for attributes, _ in before
        for name in (*_STORES, *(attributes.keys() - _OF_ALL))
        if (name in _STORES or name[:1] != "_") and isinstance(value := attributes.get(name), _CONTAINERS)
    ]
    try:
        yield
    finally:
        for attributes, content in before:
            attributes.clear()
            attributes.update(content)
        for value, items in grown:
            if value or items:
                value.clear()
                value.extend(items) if isinstance(value, list | deque) else value.update(items)


@contextmanager
def same_random(model: nn.Module) -> Iterator[None]:
    """Leave the random states of torch, Python and numpy as they were."""
    places = {parameter.device for parameter in modules.parameters(modules.each(model))}
    devices = sorted((place for place in places if place.type not in ("cpu", "meta")), key=str)
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices, device_type=devices[0].type if devices else "cuda"):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


@contextmanager
def same_buffers(model: nn.Module) -> Iterator[None]:
    """Leave the contents of buffers as they were."""
    before = [(buffer, buffer.clone()) for buffer in modules.buffers(modules.each(model))]
    try:
        yield
    finally:
        for buffer, content in before:
            buffer.copy_(content)
