"""Channel groups: which channels of a network must be kept or removed together, found by tracing it.

Every output channel of a conv or linear layer is an *atom*. `slimnet.flow` follows the atoms through the
network; what it must treat alike (the two sides of an add, the in and out of a depthwise conv, …) is tied.
Tied atoms form a *unit*, the smallest thing that can be removed; units with the same producers form a
*channel group*. "Bottleneck-preserving" is a result of this: the outputs that meet in a residual add, and
what enters a residual block, are *coupled*, and coupled groups stay whole unless streams are pruned too.
"""

from __future__ import annotations

import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from slimnet.errors import SlimnetError
from slimnet.flow import ChannelFlow
from slimnet.modes import evaluating

Units = NDArray[np.int64]


@dataclass(frozen=True)
class LayerUnits:
    """The unit that each input and output channel of one layer belongs to, (C_in,) and (C_out,).

    `positions` and `gains_bias` as in `slimnet.flow.LayerAtoms`.
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
    """What `trace` found: the groups, and for every layer the unit of each of its channels."""

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
    concatenation, flatten, reshape, chunk and transpose are followed. Where something else reads or
    writes channels, their groups are unprunable and say why.

    Args:
        model: left as it was.
        example_input: one input (N, C, ...) that the model accepts, on its device.

    Raises:
        SlimnetError: the model cannot be traced at all, or does not run on the example.
    """
    if not isinstance(example_input, Tensor):
        found = type(example_input).__name__
        raise SlimnetError(f"the example input is a {found}; it must be one tensor (N, C, ...)")
    with evaluating(model), torch.no_grad():
        nodes = _record(model)
        flow = ChannelFlow(model)
        flow.run(nodes, example_input.clone())
    return _assemble(flow, nodes, tuple(example_input.shape))


def _record(model: nn.Module) -> fx.Graph:
    """The operations of a forward pass."""
    tracer = fx.Tracer()
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


def _last_line_outside(error: Exception, package: Path) -> str:
    """The innermost line of code that is not the package's own."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if package not in Path(f.filename).parents]
    return frames[-1].line or "" if frames else ""


def _assemble(flow: ChannelFlow, nodes: fx.Graph, input_shape: tuple[int, ...]) -> ChannelGraph:
    """Turn tied atoms into units and units into groups."""
    unit_of = _components(flow.atom_count, flow.ties())
    layers = {
        name: LayerUnits(unit_of[layer.inputs], unit_of[layer.outputs], layer.positions, layer.gains_bias)
        for name, layer in flow.layers.items()
    }
    unit_count = int(unit_of.max()) + 1
    producers: list[list[str]] = [[] for _ in range(unit_count)]
    channels = np.zeros(unit_count, dtype=np.int64)
    first_seen: dict[int, None] = {}
    for name in flow.producers:
        np.add.at(channels, layers[name].outputs, 1)
        for unit in dict.fromkeys(layers[name].outputs.tolist()):
            producers[unit].append(name)
            first_seen.setdefault(unit)
    scales = _members(unit_count, {name: layers[name].outputs for name in flow.norms})
    readers = _members(unit_count, {name: layers[name].inputs for name in flow.producers})
    coupled = _mark(unit_count, unit_of, flow.coupled)
    blocked = _reasons(unit_of, flow.blocked(unit_of))

    signatures: dict[tuple[tuple[str, ...], tuple[str, ...], bool, str, int], list[int]] = {}
    for unit in first_seen:
        made_by, scaled_by = tuple(producers[unit]), tuple(scales[unit])
        key = (made_by, scaled_by, bool(coupled[unit]), blocked.get(unit, ""), int(channels[unit]))
        signatures.setdefault(key, []).append(unit)
    groups: list[ChannelGroup] = []
    seen: Counter[str] = Counter()
    for (made_by, scaled_by, is_coupled, why, per_unit), units in signatures.items():
        seen[made_by[0]] += 1
        name = made_by[0] if seen[made_by[0]] == 1 else f"{made_by[0]}#{seen[made_by[0]]}"
        why = why or ("" if scaled_by else "no BatchNorm follows it to go by")
        read_by = tuple(dict.fromkeys(layer for unit in units for layer in readers[unit]))
        groups.append(
            ChannelGroup(name, made_by, scaled_by, read_by, np.array(units), per_unit, is_coupled, why)
        )
    return ChannelGraph(flow.model, tuple(groups), layers, nodes, input_shape, unit_count)


def _components(count: int, ties: NDArray[np.int64]) -> Units:
    """Number the connected components of `count` atoms under `ties` (2, E), by first atom."""
    label = np.arange(count)
    while True:
        smaller = np.minimum(label[ties[0]], label[ties[1]])
        lowered = label.copy()
        np.minimum.at(lowered, ties[0], smaller)
        np.minimum.at(lowered, ties[1], smaller)
        np.minimum.at(lowered, label[ties[0]], smaller)
        np.minimum.at(lowered, label[ties[1]], smaller)
        lowered = lowered[lowered]
        if np.array_equal(lowered, label):
            return np.unique(label, return_inverse=True)[1]
        label = lowered


def _members(unit_count: int, layers: dict[str, Units]) -> list[list[str]]:
    """For each unit the names of the layers in which it occurs."""
    members: list[list[str]] = [[] for _ in range(unit_count)]
    for name, units in layers.items():
        for unit in dict.fromkeys(units.tolist()):
            members[unit].append(name)
    return members


def _mark(unit_count: int, unit_of: Units, atoms: list[NDArray[np.int64]]) -> NDArray[np.bool_]:
    marked = np.zeros(unit_count, dtype=bool)
    for some in atoms:
        marked[unit_of[some]] = True
    return marked


def _reasons(unit_of: Units, blocked: list[tuple[NDArray[np.int64], str]]) -> dict[int, str]:
    reasons: dict[int, str] = {}
    for atoms, why in blocked:
        for unit in np.unique(unit_of[atoms]).tolist():
            reasons.setdefault(unit, why)
    return reasons
