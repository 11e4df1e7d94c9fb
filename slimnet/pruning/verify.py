"""A pruned network runs on the example before anybody gets it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from slimnet.errors import SlimnetError
from slimnet.graph import ChannelGraph
from slimnet.graph.record import tensors_in
from slimnet.modes import evaluating, unchanged

SMALL = 32  # pixels: larger images are looked at in this size where the network takes them


def verify(model: nn.Module, smaller: nn.Module, graph: ChannelGraph) -> None:
    """Refuse a pruned network that does not run, or returns other shapes or other than finite numbers.

    Args:
        model: what it was made from.
        smaller: the pruned network.
        graph: what `model` was traced to.

    Raises:
        SlimnetError: it does, naming the layer.
    """
    like = next(smaller.parameters(), None)
    if like is None:
        return
    shrunk = graph.example.noise(like, most=SMALL)
    inputs = graph.example.noise(like) if shrunk is None else shrunk
    try:
        found = _run(smaller, graph, inputs)
    except Exception as error:
        if shrunk is None:
            raise _broken(smaller, graph, inputs, error) from error
        inputs, shrunk = graph.example.noise(like), None  # perhaps it takes no other size
        try:
            found = _run(smaller, graph, inputs)
        except Exception as error:
            raise _broken(smaller, graph, inputs, error) from error
    expected = [graph.record.values[index].shape for index in graph.record.results]
    shapes = [tuple(tensor.shape) for tensor in found]
    same = [s[:2] for s in shapes] == [s[:2] for s in expected] if shrunk is not None else shapes == expected
    if same and _finite(found):
        return
    before = _run(model, graph, inputs)
    if [tensor.shape for tensor in before] != [tensor.shape for tensor in found] and not same:
        raise SlimnetError(
            f"the pruned network returns tensors of shape {shapes}, not {expected}; keep more whole"
        )
    if _finite(before) and not _finite(found):
        raise SlimnetError(
            "the pruned network returns numbers that are not finite, from "
            f"{_first_infinite(smaller, graph, inputs)} on; prune with absorb=False (--no-absorb)"
        )


def _run(model: nn.Module, graph: ChannelGraph, inputs: Any) -> list[Tensor]:
    args, kwargs = graph.example.arguments(inputs)
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices), torch.no_grad(), evaluating(model), unchanged(model):
        return tensors_in(model(*args, **kwargs))


def _broken(model: nn.Module, graph: ChannelGraph, inputs: Any, error: Exception) -> SlimnetError:
    """Why a network does not run, with the name of the innermost module that was running."""
    names = {id(module): name for name, module in model.named_modules()}
    running: list[str] = []
    hook = nn.modules.module.register_module_forward_pre_hook(
        lambda module, _: running.append(names.get(id(module), ""))
    )
    try:
        _run(model, graph, inputs)
    except Exception:
        pass
    finally:
        hook.remove()
    where = next((name for name in reversed(running) if name), "its forward")
    return SlimnetError(
        f"the pruned network does not run: at {where}: {' '.join(str(error).split())}; the forward depends "
        f'on the number of channels there: plan(..., keep=["{where}"])'
    )


def _finite(tensors: list[Tensor]) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in tensors if tensor.is_floating_point())


def _first_infinite(model: nn.Module, graph: ChannelGraph, inputs: Any) -> str:
    """The first module whose output is not finite."""
    names = {id(module): name for name, module in model.named_modules()}
    found: list[str] = []

    def look(module: nn.Module, _: Any, output: Any) -> None:
        if not found and id(module) in names and not _finite(tensors_in(output)):
            found.append(names[id(module)])

    hook = nn.modules.module.register_module_forward_hook(look)
    try:
        _run(model, graph, inputs)
    finally:
        hook.remove()
    return found[0] if found and found[0] else "its end"
