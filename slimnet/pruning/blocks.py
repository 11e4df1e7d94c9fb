"""Identity blocks that pruning empties: dropped, while the constant that they still add is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from slimnet.graph import operations as ops
from slimnet.models.stand_ins import Constant, Dropped
from slimnet.modes import evaluating


@dataclass(frozen=True)
class Branch:
    """The layers between the fork and the add of an identity block, which alone use each other.

    Attributes:
        name: of the module that holds them.
        layers: convs and BatchNorms, in the order in which they run.
        nodes: all operations of the branch, in order.
    """

    name: str
    layers: tuple[str, ...]
    nodes: tuple[fx.Node, ...]


def find_branches(model: nn.Module, nodes: fx.Graph) -> list[Branch]:
    """The branches that could be dropped: chains of convs, BatchNorms and pointwise operations."""
    found = []
    for node in nodes.nodes:
        if node.op == "output" or node.target not in ops.ADDS or len(node.all_input_nodes) != 2:
            continue
        for shortcut, last in (node.all_input_nodes, reversed(node.all_input_nodes)):
            chain = _chain(_behind_identities(model, shortcut), last)
            branch = _branch(model, chain) if chain else None
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
    reader = max(i for i, node in enumerate(branch.nodes) if _module(model, node, _ConvNd) is not None)
    conv = model.get_submodule(str(branch.nodes[reader].target))
    assert isinstance(conv, _ConvNd)
    channels = conv.out_channels
    value = conv.weight.new_zeros(1, channels, *[1] * (conv.weight.dim() - 2))
    if conv.bias is not None:
        value += conv.bias.detach().reshape_as(value)
    end = max(i for i, node in enumerate(branch.nodes) if str(node.target) in branch.layers)
    with torch.no_grad(), evaluating(model):
        for node in branch.nodes[reader + 1 : end + 1]:
            value = _run(model, node, value)
    for position, layer in enumerate(branch.layers):
        model.set_submodule(layer, Dropped(fresh=position == 0))
    last = str(branch.nodes[end].target)
    constant = value.flatten().detach().clone()
    if last in kept:
        constant = constant[torch.from_numpy(kept[last]).to(constant.device)]
    model.set_submodule(last, Constant(constant))


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


def _behind_identities(model: nn.Module, node: fx.Node) -> fx.Node:
    while _module(model, node, nn.Identity) is not None:
        node = node.all_input_nodes[0]
    return node


def _chain(fork: fx.Node, last: fx.Node) -> list[fx.Node] | None:
    """The nodes from behind `fork` to `last` if each has one source and one user."""
    chain: list[fx.Node] = []
    node = last
    while node is not fork:
        if len(node.all_input_nodes) != 1 or len(node.users) != 1:
            return None
        chain.append(node)
        node = node.all_input_nodes[0]
    return chain[::-1]


def _branch(model: nn.Module, chain: Sequence[fx.Node]) -> Branch | None:
    layers = []
    for node in chain:
        if _module(model, node, _ConvNd, _BatchNorm) is not None:
            layers.append(str(node.target))
        elif _module(model, node, *ops.POINTWISE_MODULES) is None and node.target not in ops.POINTWISE:
            return None
    convs = [name for name in layers if isinstance(model.get_submodule(name), _ConvNd)]
    if len(convs) < 2 or len(set(layers)) < len(layers):
        return None
    return Branch(_common_parent(layers), tuple(layers), tuple(chain))


def _module(model: nn.Module, node: fx.Node, *kinds: type[nn.Module]) -> nn.Module | None:
    if node.op != "call_module":
        return None
    module = model.get_submodule(str(node.target))
    return module if isinstance(module, kinds) else None


def _run(model: nn.Module, node: fx.Node, value: Tensor) -> Tensor:
    args, kwargs = fx.map_arg((node.args, node.kwargs), lambda _: value)
    if node.op == "call_module":
        result: Tensor = model.get_submodule(str(node.target))(*args, **kwargs)
    elif node.op == "call_method":
        result = getattr(args[0], str(node.target))(*args[1:], **kwargs)
    else:
        result = node.target(*args, **kwargs)  # type: ignore[operator]
    return result


def _common_parent(names: Sequence[str]) -> str:
    shared: list[str] = []
    for level in zip(*(name.split(".") for name in names), strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    return ".".join(shared) or names[0]
