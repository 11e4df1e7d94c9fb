"""Channel groups: which channels of a network must be kept or removed together, found by running it once.

Every output channel of a conv or linear layer is an *atom*. `slimnet.graph.flow` follows the atoms through
one run of the network; what must be treated alike (the two sides of an add, the in and out of a depthwise
conv, …) is tied. Tied atoms form a *unit*, the smallest thing that can be removed; units with the same
producers form a *channel group*. "Bottleneck-preserving" is a result of this: the outputs that meet in a
residual add, and what enters a residual block, are *coupled*, and coupled groups stay whole unless streams
are pruned too.
"""

from __future__ import annotations

import pickle
import warnings
import zlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from slimnet.errors import SlimnetError
from slimnet.graph.example import Example
from slimnet.graph.findings import LAYERS, Run
from slimnet.graph.flow import ChannelFlow
from slimnet.graph.partition import Partition, Units, components
from slimnet.graph.record import scripted_parts
from slimnet.modes import evaluating, prunable, same_buffers, unchanged


@dataclass(frozen=True)
class LayerUnits:
    """The unit that each input and output channel of one layer belongs to, (C_in,) and (C_out,).

    `positions` is how often a conv or linear layer applies its weights to one image; 0 for a norm.
    `gains_bias` says that absorbing constants into the layer would give it a bias that it does not have.
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
        """Whether the group is pruned by default: by scaling factors, and without its stream."""
        return not self.reason

    @property
    def reason(self) -> str:
        """Why the group is kept whole by default; empty where it is not."""
        if self.blocked or not self.scales:
            return self.blocked or "no BatchNorm follows it to go by"
        return "its channels meet in a residual add" if self.coupled else ""


@dataclass(frozen=True)
class ChannelGraph:
    """What `trace` found: the groups, and for every layer the unit of each of its channels.

    Attributes:
        model: the network.
        groups: in the order in which the network runs.
        layers: convs, linear layers and norms, by name.
        vectors: other parameters and buffers with an entry per channel, by name: the unit of each entry.
        settings: attributes of modules that count channels, by name ("blocks.0.attn.num_heads"): the units
            that each counts.
        record: the run that they were found by.
        example: the shapes of the network's input.
        unit_count: how many units there are.

    Example:
        >>> graph = slimnet.trace(slimnet.models.resnet([1], width=8), torch.zeros(1, 3, 8, 8))
        >>> [(group.name, group.size) for group in graph.groups if group.prunable]
        [('stages.0.0.conv1', 8), ('stages.0.0.conv2', 8)]
    """

    model: nn.Module = field(repr=False)
    groups: tuple[ChannelGroup, ...]
    layers: dict[str, LayerUnits] = field(repr=False)
    vectors: dict[str, Units] = field(repr=False)
    settings: dict[str, Units] = field(repr=False)
    record: Run = field(repr=False)
    example: Example
    unit_count: int

    def __reduce__(self) -> Any:
        # Without the network: a pickled plan is for any of the same structure.
        return _unpacked, (zlib.compress(pickle.dumps({**vars(self), "model": nn.Module()})),)

    def __getitem__(self, layer: str) -> ChannelGroup:
        """The first group that `layer` produces.

        Raises:
            KeyError: no group has this layer among its producers.
        """
        for group in self.groups:
            if layer in group.producers:
                return group
        raise KeyError(layer)


def _unpacked(packed: bytes) -> ChannelGraph:
    return ChannelGraph(**pickle.loads(zlib.decompress(packed)))


def trace(model: nn.Module, example_input: Any) -> ChannelGraph:
    """Find the channel groups of a network by running it once, in evaluation mode.

    Whatever Python the network is written in, its operations are followed: convs (grouped and depthwise
    too), linear layers, norms, activations, pooling, sums and products, concatenation, reshapes, splits and
    slices, and parameters with an entry per channel. Where something else reads or writes channels, or a
    layer does that only runs in training, their groups are unprunable and say why.

    Args:
        model: left as it was. Of a compiled model, what it was made of is traced.
        example_input: what the model takes, on its device: a tensor (N, C, ...), a tuple of arguments, or a
            dict of keyword arguments.

    Raises:
        SlimnetError: the model does not run on the example, or has no layers.

    Example:
        >>> graph = slimnet.trace(slimnet.models.resnet([1], width=8), torch.zeros(1, 3, 8, 8))
        >>> len(graph.groups), sum(group.prunable for group in graph.groups)
        (5, 2)
    """
    example = Example.of(example_input)
    model = prunable(model)
    with evaluating(model), unchanged(model):
        flow = _followed(model, example, example_input)
        _keep_for_training(flow, example, example_input)
    if not flow.producers:
        raise SlimnetError(
            f"{type(model).__name__} has no convolution or linear layer that could be followed"
        )
    return _assemble(flow, example)


def _followed(model: nn.Module, example: Example, example_input: Any) -> ChannelFlow:
    """A run of the network; of one that asserts things of its activations, with ones instead of zeros."""
    flow = ChannelFlow(model)
    try:
        flow.run(*example.arguments(example_input))
    except SlimnetError as error:
        if not isinstance(error.__cause__, AssertionError | ValueError):
            raise
        flow = ChannelFlow(model, filler=1)
        try:
            flow.run(*example.arguments(example_input))
        except SlimnetError:
            raise error from error.__cause__
    return flow


def _keep_for_training(flow: ChannelFlow, example: Example, example_input: Any) -> None:
    """Block what is read by layers that only run in training mode, such as auxiliary classifiers."""
    model = flow.model
    idle = {name for name, module in flow.modules.items() if isinstance(module, LAYERS)} - set(flow.layers)
    scripted = [name for name in scripted_parts(flow.modules) if not flow.used(name)]
    if not idle and not scripted:
        return
    other = ChannelFlow(model)
    model.train()
    try:
        with same_buffers(model):
            other.run(*example.arguments(example_input))
    except SlimnetError:
        pass  # in training mode the network does not take this input at all
    finally:
        model.eval()
    own = np.full(other.atom_count, -1)
    for name in set(other.producers) & set(flow.producers):
        own[other.layers[name].outputs] = flow.layers[name].outputs
    read = {name: [other.layers[name].inputs] for name in sorted(idle & set(other.layers))}
    read |= {name: other.scripted.get(name, []) for name in scripted}
    for name, inputs in read.items():
        for atoms in (own[each] for each in inputs):
            flow.block(atoms[atoms >= 0], f"{name}, which only runs in training, reads it")
    _keep_for_unseen(flow, [name for name in sorted(idle) if not flow.used(name) and not other.used(name)])


def _keep_for_unseen(flow: ChannelFlow, layers: list[str]) -> None:
    """Block what layers that never ran could read or write, which is all that has as many channels."""
    if not layers:
        return
    for name in layers:
        why = f"{name}, which did not run on the example, takes or makes as many channels"
        flow.block_fitting(name, why)
    shown = ", ".join(layers[:3]) + (f" and {len(layers) - 3} more" if len(layers) > 3 else "")
    warnings.warn(
        f"{shown} did not run on the example; in case they run on other inputs, everything with as many "
        "channels as they take or make is kept whole; to prune it too, give an example on which they run, or "
        "remove them from the network",
        stacklevel=4,
    )


def _assemble(flow: ChannelFlow, example: Example) -> ChannelGraph:
    """Turn tied atoms into units and units into groups."""
    unit_of = components(flow.atom_count, flow.ties())
    unit_count = int(unit_of.max()) + 1
    gains = flow.gaining_bias()
    layers = {
        name: LayerUnits(unit_of[layer.inputs], unit_of[layer.outputs], layer.positions, name in gains)
        for name, layer in flow.layers.items()
    }
    vectors = {
        name: unit_of[atoms] for name, atoms in flow.vectors.items() if name.rpartition(".")[0] not in layers
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
                blocked=reasons[why[first]],
            )
        )
    flow.record.forget_labels()
    settings = {name: unit_of[atoms] for name, atoms in flow.settings.changing().items()}
    return ChannelGraph(flow.model, tuple(found), layers, vectors, settings, flow.record, example, unit_count)


def _names(group_of: Units, count: int, layers: dict[str, Units]) -> list[list[str]]:
    """For each group the names of the layers in which its units occur."""
    names = list(layers)
    occurs = np.zeros((count + 1, len(names)), dtype=bool)
    for number, units in enumerate(layers.values()):
        occurs[group_of[units], number] = True  # the image's channels, made by no layer, in group -1
    return [[names[number] for number in np.flatnonzero(row)] for row in occurs[:-1]]


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
