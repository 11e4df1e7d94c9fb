"""What a look at a network may change, put back as it was found."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


def uncompiled(model: nn.Module) -> nn.Module:
    """The network that torch.compile was given, where it was."""
    return getattr(model, "_orig_mod", model)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Hold `model` in eval mode; each module's own mode returns afterwards."""
    training = [module for module in model.modules() if module.training]
    if training:
        model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Undo what a forward pass leaves on its modules: activations kept as attributes, lists that grew."""
    before = [(module, dict(vars(module))) for module in model.modules()]
    grown = [
        (value, copy.copy(value))
        for _, attributes in before
        for name, value in attributes.items()
        if type(value) in (list, dict, set) and not name.startswith("_")
    ]
    try:
        yield
    finally:
        for module, attributes in before:
            vars(module).clear()
            vars(module).update(attributes)
        for value, content in grown:
            value.clear()
            value.extend(content) if isinstance(value, list) else value.update(content)
