"""Channel groups: which channels of a network must be kept or removed together, found by tracing it.

Every output channel of a conv or linear layer is an *atom*. `slimnet.graph.flow` follows the atoms through
the network; what it must treat alike (the two sides of an add, the in and out of a depthwise conv, …) is
tied. Tied atoms form a *unit*, the smallest thing that can be removed; units with the same producers form a
*channel group*. "Bottleneck-preserving" is a result of this: the outputs that meet in a residual add, and
what enters a residual block, are *coupled*, and coupled groups stay whole unless streams are pruned too.
"""

from __future__ import annotations

import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from slimnet.errors import SlimnetError
from slimnet.graph.flow import LAYERS, ChannelFlow
from slimnet.graph.partition import Partition, Units, components, distinct
from slimnet.modes import evaluating, unchanged, uncompiled


@dataclass(frozen=True)
class LayerUnits:
    """The unit that each input and output channel of one layer belongs to, (C_in,) and (C_out,).

    `positions` and `gains_bias` as in `slimnet.graph.flow.LayerAtoms`.
    """

    inputs: Units
    outputs: Units
    positions: int
    gains_bias: bool


@dataclass(frozen=True)
class ChannelGroup:
    """Units that the same layers produce.

    Attributes:
        name: the first producer; with #2, #3, … where that layer's channels fall into several groups.
        producers: convs and linear layers that write these channels.
        scales: BatchNorms whose scaling factors say what the channels are worth.
        readers: layers that read them.
        units: (size,) ids of the units, in channel order.
        unit_channels: producer channels in one unit (more than 1 where layers are tied).
        coupled: the channels enter or leave a residual add (a stream).
        blocked: why these channels can never be removed; empty where they can.

    Example:
        >>> group = slimnet.trace(slimnet.models.resnet([1], width=8), torch.zeros(1, 3, 8, 8))["conv1"]
        >>> group.size, group.prunable, group.reason
        (8, False, 'its channels meet in a residual add')
    """

    name: str
    producers: tuple[str, ...]
    scales: tuple[str, ...]
    readers: tuple[str, ...]
    units: Units = field(repr=False)
    unit_channels: int
    coupled: bool
    blocked: str

    @property
    def size(self) -> int:
        """How many units there are to choose from."""
        return len(self.units)

    @property
    def prunable(self) -> bool:
        """Whether the group is pruned by default."""
        return not self.reason

    @property
    def reason(self) -> str:
        """Why the group is kept whole by default; empty where it is not."""
        if self.blocked:
            return self.blocked
        return "its channels meet in a residual add" if self.coupled else ""


@dataclass(frozen=True)
class ChannelGraph:
    """What `trace` found: the groups, and for every layer the unit of each of its channels.

    Example:
        >>> graph = slimnet.trace(slimnet.models.resnet([1], width=8), torch.zeros(1, 3, 8, 8))
        >>> [(group.name, group.size) for group in graph.groups if group.prunable]
        [('stages.0.0.conv1', 8), ('stages.0.0.conv2', 8)]
    """

    model: nn.Module = field(repr=False)
    groups: tuple[ChannelGroup, ...]
    layers: dict[str, LayerUnits] = field(repr=False)
    nodes: fx.Graph = field(repr=False)
    input_shape: tuple[int, ...]
    unit_count: int

    def __getitem__(self, layer: str) -> ChannelGroup:
        """The first group that `layer` produces.

        Raises:
            KeyError: no group has this layer among its producers.
        """
        for group in self.groups:
            if layer in group.producers:
                return group
        raise KeyError(layer)


def trace(model: nn.Module, example_input: Tensor) -> ChannelGraph:
    """Find the channel groups of any network that torch.fx can trace.

    Convs (grouped and depthwise too), linear layers, BatchNorm, activations, pooling, adds, products,
    concatenation, flatten, reshape, chunk and transpose are followed, as in eval mode. Where something
    else reads or writes channels, or a layer does that only runs in training, their groups are unprunable
    and say why.

    Args:
        model: left as it was.
        example_input: one input (N, C, ...) that the model accepts, on its device.

    Raises:
        SlimnetError: the model cannot be traced at all, does not run on the example, or has no layers.

    Example:
        >>> graph = slimnet.trace(slimnet.models.resnet([1], width=8), torch.zeros(1, 3, 8, 8))
        >>> len(graph.groups), sum(group.prunable for group in graph.groups)
        (5, 2)
    """
    if not isinstance(example_input, Tensor):
        found = type(example_input).__name__
        raise SlimnetError(f"the example input is a {found}; it must be one tensor (N, C, ...)")
    model = uncompiled(model)
    with evaluating(model), unchanged(model), torch.no_grad():
        nodes = _record(model)
        flow = ChannelFlow(model)
        flow.run(nodes, example_input.clone())
        _keep_for_training(flow, nodes, example_input)
    if not flow.producers:
        raise SlimnetError(
            f"{type(model).__name__} has no convolution or linear layer that could be followed"
        )
    return _assemble(flow, nodes, tuple(example_input.shape))


def _keep_for_training(flow: ChannelFlow, nodes: fx.Graph, example_input: Tensor) -> None:
    """Block what is read by layers that only run in training mode, such as auxiliary classifiers."""
    model = flow.model
    called = {str(node.target) for node in nodes.nodes if node.op == "call_module"}
    idle = {name for name, module in model.named_modules() if isinstance(module, LAYERS)} - called
    if not idle:
        return
    other = ChannelFlow(model)
    try:
        other.run(_record(model, training=True), example_input.clone())
    except SlimnetError:
        return  # in training mode the network does not take this input at all
    own = np.full(other.atom_count, -1)
    for name in set(other.producers) & set(flow.producers):
        own[other.layers[name].outputs] = flow.layers[name].outputs
    for name in sorted(idle & set(other.layers)):
        atoms = own[other.layers[name].inputs]
        flow.block(atoms[atoms >= 0], f"{name}, which only runs in training, reads it")


def _record(model: nn.Module, training: bool = False) -> fx.Graph:
    """The operations of a forward pass; nothing is computed, and the model is left in eval mode."""
    tracer = Tracer()
    if training:
        model.train()
    try:
        return tracer.trace(model)
    except Exception as error:
        inside = [path for path, _ in tracer.module_stack.values() if path]
        where = f" in its module {inside[-1]}" if inside else ""
        line = _last_line_outside(error, Path(torch.__file__).parent)
        raise SlimnetError(
            f"{type(model).__name__} cannot be traced: {error}{where}, at `{line}`. A forward that branches "
            f"on tensors or loops over them is followed only if torch.fx.wrap hides that function"
        ) from error
    finally:
        if training:
            model.eval()


class Tracer(fx.Tracer):
    """torch's tracer, which also takes a user's own kinds of layers whole where they compute as torch's."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return super().is_leaf_module(m, module_qualified_name) or _computes_as_torch(m)

    def create_arg(self, a: Any) -> Any:
        # The commonest arguments; torch would spend a fifth of the time on inspecting them.
        if type(a) is fx.Proxy and a.tracer is self:
            return a.node
        return a if type(a) in (int, float, bool, str) else super().create_arg(a)


def _computes_as_torch(module: nn.Module) -> bool:
    """Whether a layer of a user's own class computes as the torch class it derives from."""
    own = type(module)
    bases = [base for base in own.__mro__ if base.__module__.startswith("torch.nn.modules.")]
    return isinstance(module, LAYERS) and all(
        getattr(own, name, None) is getattr(bases[0], name, None) for name in ("forward", "_conv_forward")
    )


def _last_line_outside(error: Exception, package: Path) -> str:
    """The innermost line of code that is not the package's own."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if package not in Path(f.filename).parents]
    return frames[-1].line or "" if frames else ""


def _assemble(flow: ChannelFlow, nodes: fx.Graph, input_shape: tuple[int, ...]) -> ChannelGraph:
    """Turn tied atoms into units and units into groups."""
    unit_of = components(flow.atom_count, flow.ties())
    unit_count = int(unit_of.max()) + 1
    layers = {
        name: LayerUnits(unit_of[layer.inputs], unit_of[layer.outputs], layer.positions, layer.gains_bias)
        for name, layer in flow.layers.items()
    }
    made = np.concatenate([layers[name].outputs for name in flow.producers])
    coupled = np.zeros(unit_count, dtype=np.int64)
    for atoms in flow.coupled:
        coupled[unit_of[atoms]] = 1
    reasons, why = _reasons(unit_count, unit_of, flow.blocked(unit_of))

    # What makes and scales units, how many channels they have, and what is known of them tells them apart.
    groups = Partition(unit_count)
    for name in (*flow.producers, *flow.norms):
        groups.split(layers[name].outputs)
    for facts in (np.bincount(made, minlength=unit_count), coupled, why):
        groups.split_by(facts)
    members = groups.members(made)

    producers = _names(groups.of, len(members), {name: layers[name].outputs for name in flow.producers})
    scales = _names(groups.of, len(members), {name: layers[name].outputs for name in flow.norms})
    readers = _names(groups.of, len(members), {name: layers[name].inputs for name in flow.producers})
    channels = np.bincount(made, minlength=unit_count)
    found: list[ChannelGroup] = []
    seen: Counter[str] = Counter()
    for index, units in enumerate(members):
        first = units[0]
        blocked = reasons[why[first]]
        if not blocked and not scales[index]:
            blocked = "no BatchNorm follows it to go by"
        name = producers[index][0]
        seen[name] += 1
        found.append(
            ChannelGroup(
                name=name if seen[name] == 1 else f"{name}#{seen[name]}",
                producers=tuple(producers[index]),
                scales=tuple(scales[index]),
                readers=tuple(readers[index]),
                units=units,
                unit_channels=int(channels[first]),
                coupled=bool(coupled[first]),
                blocked=blocked,
            )
        )
    return ChannelGraph(flow.model, tuple(found), layers, nodes, input_shape, unit_count)


def _names(group_of: Units, count: int, layers: dict[str, Units]) -> list[list[str]]:
    """For each group the names of the layers in which its units occur."""
    names: list[list[str]] = [[] for _ in range(count)]
    for name, units in layers.items():
        found = group_of[units]
        for group in distinct(found[found >= 0], count):  # the image's channels, made by no layer, have none
            names[group].append(name)
    return names


def _reasons(
    unit_count: int, unit_of: Units, blocked: list[tuple[NDArray[np.int64], str]]
) -> tuple[list[str], NDArray[np.int64]]:
    """The reasons, "" first, and for each unit the number of the first that holds for it."""
    reasons, why = [""], np.zeros(unit_count, dtype=np.int64)
    for atoms, reason in blocked:
        units = unit_of[atoms]
        why[units[why[units] == 0]] = len(reasons)
        reasons.append(reason)
    first = {reason: number for number, reason in reversed(list(enumerate(reasons)))}
    return reasons, np.array([first[reason] for reason in reasons])[why]
