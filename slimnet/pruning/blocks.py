"""Identity blocks that pruning empties: dropped, while the constant that they still add is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from slimnet.graph import operations as ops
from slimnet.graph.findings import Run
from slimnet.graph.record import Call, Parameter, tensor_of
from slimnet.models.stand_ins import Constant, Dropped
from slimnet.modules import named


@dataclass(frozen=True)
class Branch:
    """The layers between the fork and the add of an identity block, which alone use each other.

    Attributes:
        name: of the module that holds them.
        layers: convs and BatchNorms, in the order in which they run.
        calls: all operations of the branch, in order.
    """

    name: str
    layers: tuple[str, ...]
    calls: tuple[Call, ...]


def find_branches(run: Run) -> list[Branch]:
    """The branches that could be dropped: chains of convs, BatchNorms and pointwise operations."""
    made = {output: call for call in run.calls for output in call.outputs}
    users = run.users()
    found = []
    for call in run.calls:
        if call.op != "add" or len(call.inputs) != 2:
            continue
        for shortcut, last in (call.inputs, call.inputs[::-1]):
            chain = _chain(_behind_copies(made, shortcut), last, made, users)
            branch = _branch(chain) if chain else None
            if branch is not None:
                found.append(branch)
    return found


def drop_branch(model: nn.Module, branch: Branch, kept: dict[str, NDArray[np.int64]]) -> None:
    """Replace a branch whose last conv has no input left by the constant that it adds.

    Args:
        model: changed; the branch's layers still have their full widths.
        branch: of `find_branches`.
        kept: for layers that lose output channels, those that stay.
    """
    modules = named(model)
    reader = max(i for i, call in enumerate(branch.calls) if call.op in ops.CONVOLUTIONS)
    conv = modules[branch.calls[reader].layer]
    assert isinstance(conv, _ConvNd)
    channels = conv.out_channels
    value = conv.weight.new_zeros(1, channels, *[1] * (conv.weight.dim() - 2))
    if conv.bias is not None:
        value += conv.bias.detach().reshape_as(value)
    end = max(i for i, call in enumerate(branch.calls) if call.layer in branch.layers)
    with torch.no_grad():
        for call in branch.calls[reader + 1 : end + 1]:
            value = _first(call.run([_operand(modules, item, value) for item in call.operands()]))
    for position, layer in enumerate(branch.layers):
        model.set_submodule(layer, Dropped(fresh=position == 0))
    last = branch.calls[end].layer
    constant = value.flatten().detach().clone()
    if last in kept:
        constant = constant[torch.from_numpy(kept[last]).to(constant.device)]
    model.set_submodule(last, Constant(constant))


def _operand(modules: Mapping[str, nn.Module], item: Any, value: Tensor) -> Tensor:
    """What a call of a chain takes: a tensor of the network, one of its own, or what came before."""
    if type(item) is Parameter:
        return tensor_of(modules, item.name)
    return item if isinstance(item, Tensor) else value


def _first(result: Tensor | Sequence[Tensor]) -> Tensor:
    return result if isinstance(result, Tensor) else result[0]


def dropped_layers(model: nn.Module) -> dict[str, str]:
    """What stands for dropped layers, by name: "zeros", "passed" or "constant"."""
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, Constant):
            found[name] = "constant"
        elif isinstance(module, Dropped):
            found[name] = "zeros" if module.fresh else "passed"
    return found


def restore_dropped(model: nn.Module, layers: dict[str, str], state: dict[str, Tensor]) -> None:
    """Put into a fresh model what `dropped_layers` found; constants have their values in `state`."""
    for name, kind in layers.items():
        stand_in = (
            Constant(state[f"{name}.value"].clone()) if kind == "constant" else Dropped(fresh=kind == "zeros")
        )
        model.set_submodule(name, stand_in)


def _behind_copies(made: dict[int, Call], value: int) -> int:
    while value in made and made[value].op in ops.COPIES:
        value = made[value].inputs[0]
    return value


def _chain(fork: int, last: int, made: dict[int, Call], users: Sequence[Sequence[Call]]) -> list[Call] | None:
    """The calls from behind `fork` to `last` if each has one source and one user."""
    chain: list[Call] = []
    value = last
    while value != fork:
        call = made.get(value)
        if call is None or len(call.inputs) != 1 or len(users[value]) != 1:
            return None
        chain.append(call)
        value = call.inputs[0]
    return chain[::-1]


def _branch(chain: Sequence[Call]) -> Branch | None:
    layers = []
    for call in chain:
        if call.layer and call.op in ops.CONVOLUTIONS | ops.NORMS:
            layers.append(call.layer)
        elif call.op not in ops.POINTWISE:
            return None
    convs = [call.layer for call in chain if call.op in ops.CONVOLUTIONS]
    if len(convs) < 2 or len(set(layers)) < len(layers):
        return None
    return Branch(_common_parent(layers), tuple(layers), tuple(chain))


def _common_parent(names: Sequence[str]) -> str:
    shared: list[str] = []
    for level in zip(*(name.split(".") for name in names), strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    return ".".join(shared) or names[0]
