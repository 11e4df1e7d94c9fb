"""The modules of a network, and their tensors: torch's own walks take several times as long."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn


def named(model: nn.Module) -> dict[str, nn.Module]:
    """All modules by name, in the order of `model.named_modules()`; shared ones under each of their names."""
    found: dict[str, nn.Module] = {}
    _walk(model, "", found)
    return found


def _walk(module: nn.Module, name: str, found: dict[str, nn.Module]) -> None:
    found[name] = module
    start = f"{name}." if name else ""
    for part, child in module._modules.items():
        if child is not None:
            _walk(child, start + part, found)


def each(model: nn.Module) -> list[nn.Module]:
    """All modules, each once."""
    found: dict[int, nn.Module] = {}
    _gather(model, found)
    return list(found.values())


def _gather(module: nn.Module, found: dict[int, nn.Module]) -> None:
    if id(module) not in found:
        found[id(module)] = module
        for child in module._modules.values():
            if child is not None:
                _gather(child, found)


def parameters(modules: list[nn.Module]) -> Iterator[Tensor]:
    """The parameters of modules; shared ones as often as they are there."""
    return (tensor for module in modules for tensor in module._parameters.values() if tensor is not None)


def buffers(modules: list[nn.Module]) -> Iterator[Tensor]:
    """The buffers of modules; shared ones as often as they are there."""
    return (tensor for module in modules for tensor in module._buffers.values() if tensor is not None)
