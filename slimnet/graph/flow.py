"""Follows channels through a traced network.

The network is run once, node by node, for the shapes. Beside every tensor go its labels
(`slimnet.graph.labels`): for each element, the atom (producer channel) that it comes from. An operation that
only moves data moves the labels the same way, so reshapes, shuffles and concatenations need no rules of their
own. An operation that needs channels to stay aligned ties atoms; one that is not known blocks them. Beside
every number goes what it counts, so that a reshape by `x.size(1)` is told from one by 64.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from slimnet.errors import SlimnetError
from slimnet.graph import operations as ops
from slimnet.graph.labels import Atoms, channels, expand, keeps_channels, spreads, unique, varies, view_blocks
from slimnet.graph.operations import describe
from slimnet.graph.shapes import result_shape

LAYERS = (_ConvNd, nn.Linear, _BatchNorm)


@dataclass(frozen=True)
class LayerAtoms:
    """The atom of each input and output channel of one layer.

    `positions` is how often a conv or linear layer applies its weights to one image; 0 for a BatchNorm.
    `gains_bias` says that absorbing constants into the layer would give it a bias that it does not have.
    """

    inputs: Atoms
    outputs: Atoms
    positions: int = 0
    gains_bias: bool = False


class ChannelFlow:
    """One run over a traced network; afterwards holds the atoms, their ties, and what is blocked."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._modules = dict(model.named_modules(remove_duplicate=False))
        self.atom_count = 0
        self.layers: dict[str, LayerAtoms] = {}
        self.producers: list[str] = []
        self.norms: list[str] = []
        self.coupled: list[Atoms] = []
        self._blocked: list[tuple[Atoms, str]] = []
        self._same_size: list[tuple[Atoms, Atoms, str]] = []
        self._pinned = _shared_parameters(model)
        self._ties: list[tuple[Atoms, Atoms]] = []
        self._values: dict[fx.Node, Any] = {}
        self._labels: dict[fx.Node, Any] = {}
        self._counts: dict[fx.Node, Any] = {}
        self._ancestors: dict[fx.Node, int] = {}
        self._order: list[fx.Node] = []

    def ties(self) -> NDArray[np.int64]:
        """All ties between atoms, (2, E)."""
        if not self._ties:
            return np.zeros((2, 0), dtype=np.int64)
        return np.stack([np.concatenate([pair[side] for pair in self._ties]) for side in (0, 1)])

    def blocked(self, unit_of: NDArray[np.int64]) -> list[tuple[Atoms, str]]:
        """Atoms that can never be removed, and why, given the unit of each atom."""
        pinned = [
            (np.union1d(layer.inputs, layer.outputs), self._pinned[name])
            for name, layer in self.layers.items()
            if name in self._pinned
        ]
        apart = [
            (np.union1d(counted, shaped), why)
            for counted, shaped, why in self._same_size
            if not np.array_equal(np.sort(unit_of[counted]), np.sort(unit_of[shaped]))
        ]
        return self._blocked + pinned + apart

    def block(self, atoms: Atoms, why: str) -> None:
        """Keep atoms whole."""
        self._blocked.append((atoms, why))

    def run(self, graph: fx.Graph, example_input: Tensor) -> None:
        """Run the network on the example and follow its channels.

        Raises:
            SlimnetError: the network has several inputs, or an operation fails on the example.
        """
        for node in graph.nodes:
            ancestors = 1 << len(self._order)
            for source in node.all_input_nodes:
                ancestors |= self._ancestors[source]
            self._ancestors[node] = ancestors
            self._order.append(node)
            if node.op == "placeholder":
                self._enter(node, example_input)
            elif node.op == "output":
                self._block(self._read(node), "it is the network's output")
            else:
                self._step(node)

    # One node

    def _enter(self, node: fx.Node, example_input: Tensor) -> None:
        if self._values:
            if not node.args:
                raise SlimnetError(f"the network has a second input, {node.name}; only one can be followed")
            self._values[node], self._labels[node] = node.args[0], None
            return
        self._values[node] = example_input
        self._labels[node] = self._constant(example_input, "it is the network's input")

    def _step(self, node: fx.Node) -> None:
        versions = {source: _version(self._values[source]) for source in node.all_input_nodes}
        module = self._modules[str(node.target)] if node.op == "call_module" else None
        value = self._compute(node, module)
        self._values[node] = value
        untouched = [source for source in versions if value is self._values[source]]
        if node.op == "get_attr":
            self._labels[node] = None
            self._pinned.setdefault(str(node.target).rpartition(".")[0], "its tensors are used outside of it")
        elif not holds_tensor(value):
            self._labels[node] = None
            self._counts[node] = self._count(node, value)
        elif not self._read(node):
            self._labels[node] = None  # made of parameters and sizes only
            self._block_counts(node)
        elif untouched and versions[untouched[0]] == _version(value):
            self._labels[node] = self._labels[untouched[0]]  # does nothing in eval mode
        elif module is not None:
            self._labels[node] = self._module(node, module, value)
        else:
            self._labels[node] = self._function(node, value)

    def _compute(self, node: fx.Node, module: nn.Module | None) -> Any:
        args, kwargs = fx.map_arg((node.args, node.kwargs), self._values.__getitem__)
        try:
            if node.op == "get_attr":
                return operator.attrgetter(str(node.target))(self.model)
            if module is not None:
                return _call(module, args, kwargs)
            if node.op == "call_method":
                return getattr(args[0], str(node.target))(*args[1:], **kwargs)
            return node.target(*args, **kwargs)  # type: ignore[operator]
        except Exception as error:
            raise SlimnetError(f"the example input fails at {describe(node)}: {error}") from error

    def _module(self, node: fx.Node, module: nn.Module, value: Any) -> Any:
        name, source = str(node.target), self._first(node)
        if name in self.layers:
            self._pinned[name] = f"{name} is used more than once"
            return self._opaque(node, value, self._pinned[name])
        if ops.is_reparametrized(module):
            return self._opaque(node, value, f"{name} has a parametrization")
        if isinstance(module, _ConvNd) and module.transposed and module.groups > 1:
            return self._opaque(node, value, f"{name} is a grouped transposed convolution")
        if isinstance(module, _ConvNd | nn.Linear):
            return self._produce(node, name, module, source, value)
        if isinstance(module, _BatchNorm):
            return self._normalise(node, name, module, source, value)
        if isinstance(module, nn.PReLU) and module.num_parameters == 1:
            return source
        if isinstance(module, ops.POINTWISE_MODULES):
            return source
        if isinstance(module, ops.SPATIAL_MODULES) and isinstance(value, Tensor):
            return self._per_channel(node, source, value)
        if isinstance(module, nn.Flatten):
            return self._reshape(node, source, value, [None] * value.dim())
        if isinstance(module, nn.ChannelShuffle):
            self._tie_rows(source, module.groups)
            return module(source)
        return self._opaque(node, value, f"{type(module).__name__} {name} is not known")

    def _function(self, node: fx.Node, value: Any) -> Any:
        target = node.target
        if target in ops.RESHAPES:
            return self._reshape(node, self._first(node), value, self._view_sizes(node, value))
        self._block_counts(node)
        if target in ops.FLATTENS:
            return self._reshape(node, self._first(node), value, [None] * value.dim())
        if target is operator.getitem:
            return self._index(node, value)
        if target in ops.POINTWISE:
            return self._pointwise(node, value)
        if target in ops.SPATIAL and isinstance(value, Tensor) and not _pads_channels(node, value):
            return self._per_channel(node, self._first(node), value)
        if target in ops.REDUCTIONS:
            return self._reduce(node, value)
        if target in ops.ADDS or target in ops.PRODUCTS:
            return self._combine(node, value, adds=target in ops.ADDS)
        if target in ops.CONCATS:
            return self._concat(node, value)
        if target in ops.TRANSPOSES or target in ops.SQUEEZES:
            return self._replay(node)
        if target in ops.CHUNKS:
            return self._chunk(node)
        if target == "expand_as" and not spreads(self._first(node), self._read(node)[-1]):
            return self._first(node).expand(value.shape)
        return self._opaque(node, value, f"{describe(node)} is not known")

    # Rules

    def _produce(
        self, node: fx.Node, name: str, module: _ConvNd | nn.Linear, source: Tensor, value: Tensor
    ) -> Any:
        dim, count, groups = -1, 0, 1
        if isinstance(module, nn.Linear):
            count = module.out_features
        else:
            dim, count, groups = 1, module.out_channels, module.groups
            if source.dim() != module.weight.dim():
                raise SlimnetError(
                    f"the example input fails at {name}: it gets {source.dim()} dimensions where a batch has "
                    f"{module.weight.dim()}"
                )
        incoming = channels(source, dim)
        if incoming is None:
            return self._opaque(node, value, f"{name} reads channels of another dimension")
        outgoing = self._atoms(count)
        swept = source if getattr(module, "transposed", False) else value
        positions = swept.numel() // swept.shape[0] // swept.shape[dim]
        gains_bias = module.bias is None and norm_behind(self.model, node) is None
        self.layers[name] = LayerAtoms(incoming, outgoing, positions, gains_bias)
        self.producers.append(name)
        if groups > 1:
            # A conv group goes or stays whole: what it reads and what it writes, together.
            reads, writes = incoming.reshape(groups, -1), outgoing.reshape(groups, -1)
            self._tie(reads, np.broadcast_to(writes[:, :1], reads.shape))
            self._tie(writes, np.broadcast_to(writes[:, :1], writes.shape))
        return expand(outgoing, tuple(value.shape), dim)

    def _normalise(self, node: fx.Node, name: str, module: _BatchNorm, source: Tensor, value: Tensor) -> Any:
        atoms = channels(source)
        if atoms is None:
            return self._opaque(node, value, f"{name} reads channels of another dimension")
        self.layers[name] = LayerAtoms(atoms, atoms)
        if module.affine:
            self.norms.append(name)
        return source

    def _pointwise(self, node: fx.Node, value: Tensor) -> Any:
        if len(self._read(node)) > 1 or self._meets_fixed(node):
            return self._opaque(node, value, f"{describe(node)} combines channels with another tensor")
        return self._first(node)

    def _per_channel(self, node: fx.Node, source: Tensor, value: Tensor) -> Any:
        atoms = channels(source)
        if atoms is None or source.dim() != value.dim() or len(atoms) != value.shape[1]:
            return self._opaque(node, value, f"{describe(node)} mixes channels")
        return expand(atoms, tuple(value.shape))

    def _reduce(self, node: fx.Node, value: Tensor) -> Any:
        source = self._first(node)
        dims = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
        keep = bool(node.kwargs.get("keepdim", node.args[2] if len(node.args) > 2 else False))
        over = [dims] if isinstance(dims, int) else dims
        if not isinstance(over, list | tuple) or not all(isinstance(dim, int) for dim in over):
            return self._opaque(node, value, f"{describe(node)} mixes channels")
        sorted_dims = sorted((dim % source.dim() for dim in over), reverse=True)
        if any(varies(source, dim) for dim in sorted_dims):
            return self._opaque(node, value, f"{describe(node)} mixes channels")
        for dim in sorted_dims:
            source = source.narrow(dim, 0, 1) if keep else source.select(dim, 0)
        return source

    def _combine(self, node: fx.Node, value: Tensor, adds: bool) -> Any:
        carrying = [arg for arg in _operands(node) if isinstance(self._labels[arg], Tensor)]
        if not carrying or self._meets_fixed(node):
            return self._opaque(node, value, f"{describe(node)} combines channels with another tensor")
        shape = value.shape
        if len(carrying) == 1:
            return self._labels[carrying[0]].expand(shape)
        left, right = (self._labels[arg] for arg in carrying)
        for narrow, wide in ((left, right), (right, left)):
            if spreads(narrow, wide):
                # One channel, never removed, may meet many that are.
                self._block([narrow], f"{describe(node)} spreads it over other channels")
                if len(unique(narrow)) > 1:
                    return self._opaque(node, value, f"{describe(node)} spreads one channel over several")
                return wide.expand(shape)
        self._tie_labels(left.expand(shape), right.expand(shape))
        if adds:
            self.coupled.append(unique(left))
            self.coupled.append(unique(self._labels[self._fork(*carrying)]))
        return left.expand(shape)

    def _fork(self, left: fx.Node, right: fx.Node) -> fx.Node:
        """Where the two sides of an add last were one: the input of a residual block."""
        common = self._ancestors[left] & self._ancestors[right]
        while common:
            node = self._order[common.bit_length() - 1]
            if isinstance(self._labels.get(node), Tensor):
                return node
            common &= ~(1 << (common.bit_length() - 1))
        return left

    def _concat(self, node: fx.Node, value: Tensor) -> Any:
        parts: Any = node.args[0] if node.args else node.kwargs["tensors"]
        labels: list[Any] = [self._labels[part] if isinstance(part, fx.Node) else None for part in parts]
        if not all(isinstance(label, Tensor) for label in labels):
            return self._opaque(node, value, f"{describe(node)} joins channels to another tensor")
        dim: Any = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0)
        atoms: list[Any] = [channels(label) for label in labels]
        if any(each is None for each in atoms):
            return self._opaque(node, value, f"{describe(node)} mixes channels")
        if dim % value.dim() == 1:
            return expand(np.concatenate(atoms), tuple(value.shape))
        for other in atoms[1:]:
            self._tie(atoms[0], other)
        return expand(atoms[0], tuple(value.shape))

    def _reshape(self, node: fx.Node, source: Tensor, value: Tensor, sizes: list[Any]) -> Tensor:
        """Follow a view; `sizes` is as from `_view_sizes`."""
        labels = source.reshape(value.shape)
        for ins, outs in view_blocks(tuple(source.shape), tuple(value.shape)):
            if not any(varies(source, dim) for dim in ins):
                continue
            fixed = [dim for dim in outs if isinstance(sizes[dim], int)]
            if len(outs) - len(fixed) != 1:
                self._block([source], f"{describe(node)} fixes the number of channels")
                continue
            # (C,) seen as (a, b) with a fixed: physical and original views agree if every row of a
            # keeps the same positions of b.
            for dim in fixed:
                self._tie_labels(labels, labels.narrow(dim, 0, 1).expand(labels.shape))
            counted = next(sizes[dim] for dim in outs if dim not in fixed)
            if counted is not None:
                why = f"{describe(node)} takes the number of channels from elsewhere"
                self._same_size.append((counted, unique(source), why))
        return labels

    def _view_sizes(self, node: fx.Node, value: Tensor) -> list[Any]:
        """Per output dimension: None where it follows from the others, its size where that is fixed, or the
        atoms that it counts."""
        given = node.args[1:] or (node.kwargs.get("shape", node.kwargs.get("size")),)
        if len(given) == 1 and not isinstance(given[0], int):
            single: Any = given[0]
            counts = self._counts.get(single) if isinstance(single, fx.Node) else None
            if isinstance(counts, tuple):
                sizes = zip(counts, value.shape, strict=True)
                return [size if counted is None else counted for counted, size in sizes]
            given = tuple(single) if isinstance(single, list | tuple) else given
        if len(given) != value.dim():
            self._block_counts(node)
            return list(value.shape)
        return [self._view_size(size) for size in given]

    def _view_size(self, size: Any) -> Any:
        if isinstance(size, fx.Node):
            counted = _joined(self._counts.get(size))
            return counted if counted is not None else self._values[size]
        return None if size == -1 else size

    def _replay(self, node: fx.Node) -> Any:
        """Move the labels as the tensor was moved."""
        args, kwargs = fx.map_arg((node.args[1:], node.kwargs), self._values.__getitem__)
        source = self._first(node)
        if node.op == "call_method":
            return getattr(source, str(node.target))(*args, **kwargs)
        return node.target(source, *args, **kwargs)  # type: ignore[operator]

    def _chunk(self, node: fx.Node) -> Any:
        pieces = self._replay(node)
        if len({piece.shape for piece in pieces}) > 1:
            self._block([self._first(node)], f"{describe(node)} cuts channels into unequal pieces")
            return pieces
        for piece in pieces[1:]:
            # After pruning the pieces are again equal only if all keep the same positions.
            self._tie_labels(pieces[0], piece)
        return pieces

    def _index(self, node: fx.Node, value: Any) -> Any:
        source = self._labels[node.args[0]]  # type: ignore[index]
        index: Any = fx.map_arg(node.args[1], self._values.__getitem__)
        if not isinstance(source, Tensor):
            return source[index]
        if not keeps_channels(source, index):
            return self._opaque(node, value, f"{describe(node)} picks channels by position")
        return source[index]

    def _opaque(self, node: fx.Node, value: Any, why: str) -> Any:
        """Block everything that an unknown operation reads, and everything that it returns."""
        self._block(self._read(node), why)
        return _map(value, lambda item: self._constant(item, why) if isinstance(item, Tensor) else None)

    # Numbers

    def _count(self, node: fx.Node, value: Any) -> Any:
        """The atoms that a number counts, None where it counts no channels; a tuple of both for a shape."""
        asked, read = ops.attribute(node), self._read(node)
        first: Any = node.args[0] if node.args else None
        if asked in ("size", "shape") and isinstance(self._labels.get(first), Tensor):
            labels = self._first(node)
            along = tuple(unique(labels) if varies(labels, dim) else None for dim in range(labels.dim()))
            if isinstance(value, torch.Size):
                return along
            dim = node.kwargs.get("dim", node.args[-1])
            return along[dim] if isinstance(dim, int) else _joined(along)
        if node.target is operator.getitem and isinstance(whole := self._counts.get(first), tuple):
            index: Any = fx.map_arg(node.args[1], self._values.__getitem__)
            return whole[index]
        if read and asked not in ops.FACTS:
            self._block(read, f"{describe(node)} makes a number of it")
        if not isinstance(value, int | float | slice | list | tuple):
            self._block_counts(node)
        return _joined([self._counts.get(source) for source in node.all_input_nodes])

    def _block_counts(self, node: fx.Node) -> None:
        """Block what is counted by the numbers that an operation takes: pruning would change its result."""
        counted = _joined([self._counts.get(source) for source in node.all_input_nodes])
        if counted is not None:
            self._blocked.append((counted, f"{describe(node)} computes with the number of channels"))

    # Atoms, ties and blocks

    def _atoms(self, count: int) -> Atoms:
        self.atom_count += count
        return np.arange(self.atom_count - count, self.atom_count)

    def _constant(self, value: Tensor, why: str) -> Tensor:
        """Labels of a tensor whose channels no layer produces: new atoms per channel, never removed."""
        atoms = self._atoms(value.shape[1] if value.dim() > 1 else 1)
        self._blocked.append((atoms, why))
        if value.dim() > 1:
            return expand(atoms, tuple(value.shape))
        return torch.from_numpy(atoms).reshape([1] * value.dim()).expand(value.shape)

    def _tie(self, left: Any, right: Any) -> None:
        self._ties.append((np.ravel(left), np.ravel(right)))

    def _tie_labels(self, left: Tensor, right: Tensor) -> None:
        """Tie what stands at the same place in labels of one shape."""
        ours, theirs = channels(left), channels(right)
        if ours is not None and theirs is not None:
            self._tie(ours, theirs)
            return
        pairs = np.unique(np.stack([left.reshape(-1).numpy(), right.reshape(-1).numpy()]), axis=1)
        self._tie(pairs[0], pairs[1])

    def _tie_rows(self, labels: Tensor, groups: int) -> None:
        """Tie (groups * n,) channels so that all groups keep the same of their n."""
        rows = channels(labels)
        if rows is None:
            self._block([labels], "it is shuffled together with another dimension")
            return
        rows = rows.reshape(groups, -1)
        self._tie(rows, np.broadcast_to(rows[:1], rows.shape))

    def _block(self, labels: Iterable[Tensor], why: str) -> None:
        self._blocked += [(unique(label), why) for label in labels]

    def _meets_fixed(self, node: fx.Node) -> bool:
        """Whether an operation also takes a tensor that is neither an activation nor a single number."""
        values = [self._values[source] for source in node.all_input_nodes if self._labels[source] is None]
        return any(isinstance(value, Tensor) and value.numel() > 1 for value in values)

    def _first(self, node: fx.Node) -> Tensor:
        """The labels of the tensor that an operation acts on."""
        return self._read(node)[0]

    def _read(self, node: fx.Node) -> list[Tensor]:
        """The labels of all tensors that a node reads."""
        return [label for source in node.all_input_nodes for label in tensors_in(self._labels[source])]


def _call(module: nn.Module, args: Any, kwargs: Any) -> Any:
    """What a layer returns, or zeros of its shape, as most of the time would go into convs."""
    shape = None if kwargs else result_shape(module, *args)
    return args[0].new_zeros(shape) if shape else module(*args, **kwargs)


def norm_behind(model: nn.Module, node: fx.Node) -> _BatchNorm | None:
    """The BatchNorm with running statistics that alone reads what `node` writes, and reads nothing else."""
    readers = list(node.users)
    if len(readers) != 1 or readers[0].op != "call_module":
        return None
    module = model.get_submodule(str(readers[0].target))
    calls = len(node.graph.find_nodes(op="call_module", target=readers[0].target))
    keeps_statistics = isinstance(module, _BatchNorm) and module.running_mean is not None
    return module if keeps_statistics and calls == 1 else None  # type: ignore[return-value]


def holds_tensor(value: Any) -> bool:
    """Whether a value is a tensor or a structure with one in it."""
    return bool(tensors_in(value))


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors that a value holds, in dicts, lists and tuples too."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [tensor for item in value for tensor in tensors_in(item)]
    return [value] if isinstance(value, Tensor) else []


def _map(value: Any, function: Any) -> Any:
    """Apply `function` to what dicts, lists and tuples hold."""
    if isinstance(value, dict):
        return {key: _map(item, function) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_map(item, function) for item in value]
    return function(value)


def _joined(counts: Any) -> Atoms | None:
    """All atoms that some numbers count, None where they count none."""
    if isinstance(counts, list | tuple):
        found = [atoms for atoms in map(_joined, counts) if atoms is not None]
        return np.unique(np.concatenate(found)) if found else None
    return counts  # type: ignore[no-any-return]


def _pads_channels(node: fx.Node, value: Tensor) -> bool:
    """Whether a padding goes beyond the spatial dimensions."""
    if node.target is not F.pad:
        return False
    pads: Any = node.kwargs.get("pad", node.args[1] if len(node.args) > 1 else ())
    return not isinstance(pads, list | tuple) or len(pads) > 2 * (value.dim() - 2)


def _operands(node: fx.Node) -> list[fx.Node]:
    """The two sides of an add or product, one of them twice where it is added to itself."""
    sides = [*node.args[:2], *(node.kwargs.get(name) for name in ("input", "other"))]
    return [side for side in sides if isinstance(side, fx.Node)]


def _version(value: Any) -> int:
    """Counts how often a tensor was overwritten."""
    return value._version if isinstance(value, Tensor) and not value.is_inference() else 0


def _shared_parameters(model: nn.Module) -> dict[str, str]:
    """Layers that share a parameter with another, and why that keeps their channels."""
    owner: dict[int, str] = {}
    pinned: dict[str, str] = {}
    for name, module in model.named_modules():
        for parameter in module._parameters.values():
            first = owner.setdefault(id(parameter), name) if parameter is not None else name
            if first != name:
                pinned |= dict.fromkeys((first, name), f"{first} and {name} share a parameter")
    return pinned
