"""Follows channels through a traced network.

The network is run once, node by node. Beside every tensor goes an integer tensor of the same shape, its
*labels*: for each element, the atom (producer channel) that it comes from. An operation that only moves
data moves the labels the same way, so reshapes, shuffles and concatenations need no rules of their own.
An operation that needs channels to stay aligned ties atoms; one that is not known blocks them.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from slimnet.errors import SlimnetError

Atoms = NDArray[np.int64]

POINTWISE_MODULES = (
    nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish,
    nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Dropout, nn.Dropout1d,
    nn.Dropout2d, nn.Dropout3d,
)  # fmt: skip
POOL_MODULES = (
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d,
    nn.AdaptiveMaxPool3d, nn.Upsample,
)  # fmt: skip
POINTWISE = {
    torch.relu, F.relu, F.relu6, F.leaky_relu, F.elu, F.gelu, F.silu, F.mish, F.hardswish, F.hardsigmoid,
    F.hardtanh, F.sigmoid, F.tanh, F.softplus, F.dropout, F.dropout2d, torch.sigmoid, torch.tanh, torch.clamp,
    torch.clone, torch.abs, torch.sqrt, torch.exp, torch.square, operator.neg, operator.pow, torch.pow,
    "relu", "relu_", "sigmoid", "sigmoid_", "tanh", "clamp", "clamp_", "contiguous", "clone", "detach", "to",
    "float", "double", "half", "bfloat16", "abs", "sqrt", "exp", "square", "pow", "neg",
}  # fmt: skip
POOLS = {
    F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d, F.max_pool1d, F.avg_pool1d,
    F.adaptive_avg_pool1d, F.interpolate, F.upsample,
}  # fmt: skip
MEANS = {torch.mean, torch.sum, torch.amax, "mean", "sum", "amax"}
ADDS = {operator.add, operator.iadd, operator.sub, operator.isub, torch.add, torch.sub, "add", "add_", "sub", "sub_"}
PRODUCTS = {operator.mul, operator.imul, operator.truediv, torch.mul, torch.div, "mul", "mul_", "div", "div_"}
CONCATS = {torch.cat, torch.concat, torch.concatenate}
RESHAPES = {torch.flatten, torch.reshape, "flatten", "reshape", "view"}
TRANSPOSES = {torch.transpose, torch.permute, "transpose", "permute"}
SQUEEZES = {torch.squeeze, torch.unsqueeze, "squeeze", "unsqueeze"}
CHUNKS = {torch.chunk, "chunk"}


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
        self.atom_count = 0
        self.layers: dict[str, LayerAtoms] = {}
        self.producers: list[str] = []
        self.norms: list[str] = []
        self.coupled: list[Atoms] = []
        self.blocked: list[tuple[Atoms, str]] = []
        self._ties: list[tuple[Atoms, Atoms]] = []
        self._values: dict[fx.Node, Any] = {}
        self._labels: dict[fx.Node, Any] = {}
        self._ancestors: dict[fx.Node, int] = {}
        self._order: list[fx.Node] = []

    def ties(self) -> NDArray[np.int64]:
        """All ties between atoms, (2, E)."""
        if not self._ties:
            return np.zeros((2, 0), dtype=np.int64)
        return np.stack([np.concatenate([pair[side] for pair in self._ties]) for side in (0, 1)])

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
        if len(self._values) > 0:
            if not node.args:
                raise SlimnetError(f"the network has a second input, {node.name}; only one can be followed")
            self._values[node], self._labels[node] = node.args[0], None
            return
        self._values[node] = example_input
        self._labels[node] = self._constant(example_input, "it is the network's input")

    def _step(self, node: fx.Node) -> None:
        values = fx.map_arg((node.args, node.kwargs), self._values.__getitem__)
        args, kwargs = values
        module: nn.Module | None = None
        try:
            if node.op == "get_attr":
                value = operator.attrgetter(str(node.target))(self.model)
            elif node.op == "call_module":
                module = self.model.get_submodule(str(node.target))
                value = module(*args, **kwargs)
            elif node.op == "call_method":
                value = getattr(args[0], str(node.target))(*args[1:], **kwargs)
            else:
                value = node.target(*args, **kwargs)  # type: ignore[operator]
        except Exception as error:
            raise SlimnetError(f"the example input fails at {_describe(node)}: {error}") from error
        self._values[node] = value
        sources = self._read(node)
        if not holds_tensor(value) or not sources:
            # Sizes, and tensors that no channel flows into (parameters, constants), carry no labels.
            self._labels[node] = None
        elif module is not None:
            self._labels[node] = self._module(node, module, value)
        else:
            self._labels[node] = self._function(node, value)

    def _module(self, node: fx.Node, module: nn.Module, value: Any) -> Any:
        name, source = str(node.target), self._first(node)
        if _changed(module):
            return self._opaque(node, value, f"{name} has a parametrization")
        if isinstance(module, _ConvNd) and module.transposed and module.groups > 1:
            return self._opaque(node, value, f"{name} is a grouped transposed convolution")
        if isinstance(module, _ConvNd | nn.Linear):
            return self._produce(node, name, module, source, value)
        if isinstance(module, _BatchNorm):
            return self._normalise(node, name, source, value)
        if isinstance(module, POINTWISE_MODULES):
            return source
        if isinstance(module, POOL_MODULES) and isinstance(value, Tensor):
            return self._per_channel(node, source, value)
        if isinstance(module, nn.Flatten):
            return self._reshape(node, source, value, fixed=[])
        if isinstance(module, nn.ChannelShuffle):
            split = source.shape[1] // module.groups
            self._tie_split(_channels(source), (module.groups, split), constant=[0])
            return module(source)
        return self._opaque(node, value, f"{type(module).__name__} {name} is not known")

    def _function(self, node: fx.Node, value: Any) -> Any:
        target = node.target
        if target is operator.getitem:
            return self._index(node, value)
        if target in POINTWISE and len(self._read(node)) == 1:
            return self._first(node)
        if target in POOLS and isinstance(value, Tensor):
            return self._per_channel(node, self._first(node), value)
        if target in MEANS:
            return self._mean(node, value)
        if target in ADDS or target in PRODUCTS:
            return self._combine(node, value, adds=target in ADDS)
        if target in CONCATS:
            return self._concat(node, value)
        if target in RESHAPES:
            return self._reshape(node, self._first(node), value, fixed=_fixed_sizes(node, value))
        if target in TRANSPOSES or target in SQUEEZES:
            return self._replay(node, value)
        if target in CHUNKS:
            return self._chunk(node, value)
        return self._opaque(node, value, f"{_describe(node)} is not known")

    # Rules

    def _produce(
        self, node: fx.Node, name: str, module: _ConvNd | nn.Linear, source: Tensor, value: Tensor
    ) -> Tensor:
        incoming = _channels(source, -1 if isinstance(module, nn.Linear) else 1)
        if incoming is None or name in self.layers:
            return self._opaque(node, value, f"{name} is used more than once or reads mixed channels")
        count = module.out_features if isinstance(module, nn.Linear) else module.out_channels
        outgoing = self._atoms(count)
        swept = source if getattr(module, "transposed", False) else value
        positions = swept.numel() // swept.shape[0] // swept.shape[-1 if isinstance(module, nn.Linear) else 1]
        gains_bias = module.bias is None and norm_behind(self.model, node) is None
        self.layers[name] = LayerAtoms(incoming, outgoing, positions, gains_bias)
        self.producers.append(name)
        groups = 1 if isinstance(module, nn.Linear) else module.groups
        if groups > 1:
            # A conv group goes or stays whole: what it reads and what it writes, together.
            reads, writes = incoming.reshape(groups, -1), outgoing.reshape(groups, -1)
            self._tie(reads, np.broadcast_to(writes[:, :1], reads.shape))
            self._tie(writes, np.broadcast_to(writes[:, :1], writes.shape))
        return _expand(outgoing, value, -1 if isinstance(module, nn.Linear) else 1)

    def _normalise(self, node: fx.Node, name: str, source: Tensor, value: Tensor) -> Tensor:
        channels = _channels(source)
        if channels is None or name in self.layers:
            return self._opaque(node, value, f"{name} is used more than once or reads mixed channels")
        self.layers[name] = LayerAtoms(channels, channels)
        self.norms.append(name)
        return source

    def _per_channel(self, node: fx.Node, source: Tensor, value: Tensor) -> Tensor:
        channels = _channels(source)
        if channels is None or source.dim() != value.dim():
            return self._opaque(node, value, f"{_describe(node)} mixes channels")
        return _expand(channels, value)

    def _mean(self, node: fx.Node, value: Tensor) -> Tensor:
        source = self._first(node)
        dims = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
        keep = bool(node.kwargs.get("keepdim", node.args[2] if len(node.args) > 2 else False))
        over = [dims] if isinstance(dims, int) else dims
        if not isinstance(over, list | tuple) or not all(isinstance(dim, int) for dim in over):
            return self._opaque(node, value, f"{_describe(node)} mixes channels")
        low, high = source, source
        for dim in sorted((int(d) % source.dim() for d in over), reverse=True):  # type: ignore[arg-type]
            low, high = low.amin(dim, keepdim=keep), high.amax(dim, keepdim=keep)
        if not torch.equal(low, high):
            return self._opaque(node, value, f"{_describe(node)} mixes channels")
        return low

    def _combine(self, node: fx.Node, value: Tensor, adds: bool) -> Tensor:
        operands = [arg for arg in node.args[:2] if isinstance(arg, fx.Node) and holds_tensor(self._values[arg])]
        carrying = [arg for arg in operands if self._labels[arg] is not None]
        for arg in operands:
            if self._labels[arg] is None and self._values[arg].numel() > 1:
                return self._opaque(node, value, f"{_describe(node)} combines channels with a fixed tensor")
        if not carrying:
            return self._opaque(node, value, f"{_describe(node)} is not known")
        if len(carrying) == 1:
            labels: Tensor = self._labels[carrying[0]]
            return labels.expand(value.shape)
        left, right = (self._labels[arg] for arg in carrying)
        if _spread(left, right) or _spread(right, left):
            self._block([left, right], f"{_describe(node)} spreads one channel over several")
        self._tie_labels(left, right, value.shape)
        if adds:
            self.coupled.append(_unique(left))
            self.coupled.append(_unique(self._labels[self._fork(*carrying)]))
        return left.expand(value.shape)

    def _fork(self, left: fx.Node, right: fx.Node) -> fx.Node:
        """Where the two sides of an add last were one: the input of a residual block."""
        common = self._ancestors[left] & self._ancestors[right]
        while common:
            node = self._order[common.bit_length() - 1]
            if isinstance(self._labels.get(node), Tensor):
                return node
            common &= ~(1 << (common.bit_length() - 1))
        return left

    def _concat(self, node: fx.Node, value: Tensor) -> Tensor:
        parts = node.args[0] if node.args else node.kwargs["tensors"]
        labels = [self._labels[part] if isinstance(part, fx.Node) else None for part in parts]  # type: ignore[union-attr]
        if any(label is None for label in labels):
            return self._opaque(node, value, f"{_describe(node)} joins channels to a fixed tensor")
        dim = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0)
        if int(dim) % value.dim() != 1:  # type: ignore[arg-type]
            for other in labels[1:]:
                if other.shape[1] != labels[0].shape[1] or _channels(other) is None:
                    return self._opaque(node, value, f"{_describe(node)} mixes channels")
                self._tie(_channels(labels[0]), _channels(other))
        return torch.cat(labels, dim)  # type: ignore[arg-type]

    def _reshape(self, node: fx.Node, source: Tensor, value: Tensor, fixed: list[int]) -> Tensor:
        """Follow a view; `fixed` lists the output dimensions whose size is written as a number."""
        labels = source.reshape(value.shape)
        for ins, outs in _view_blocks(tuple(source.shape), tuple(value.shape)):
            if not any(_varies(source, dim) for dim in ins):
                continue
            constant = [dim for dim in outs if dim in fixed]
            if not constant and len(outs) == 1:
                continue
            if len(outs) - len(constant) != 1:
                self._block([source], f"{_describe(node)} fixes the number of channels")
                continue
            # (C,) seen as (a, b) with a fixed: physical and original views agree if every row of a
            # keeps the same positions of b.
            self._tie_constant_dims(labels, constant)
        return labels

    def _replay(self, node: fx.Node, value: Tensor) -> Tensor:
        """Move the labels as the tensor was moved."""
        args, kwargs = fx.map_arg((node.args[1:], node.kwargs), self._values.__getitem__)
        source = self._first(node)
        if node.op == "call_method":
            moved = getattr(source, str(node.target))(*args, **kwargs)
        else:
            moved = node.target(source, *args, **kwargs)  # type: ignore[operator]
        return moved  # type: ignore[no-any-return]

    def _chunk(self, node: fx.Node, value: Any) -> Any:
        pieces = self._replay(node, value)
        sizes = {piece.shape for piece in pieces}
        first = pieces[0]
        if len(sizes) > 1:
            self._block([self._first(node)], f"{_describe(node)} cuts channels into unequal pieces")
        elif any(not torch.equal(first, piece) for piece in pieces[1:]):
            # After pruning the pieces are again equal only if all keep the same positions.
            for piece in pieces[1:]:
                self._tie_labels(first, piece, first.shape)
        return pieces

    def _index(self, node: fx.Node, value: Any) -> Any:
        source = self._labels[node.args[0]]  # type: ignore[index]
        index = fx.map_arg(node.args[1], self._values.__getitem__)
        if not isinstance(source, Tensor):
            return source[index]
        labels = source[index]
        if set(_unique(labels).tolist()) != set(_unique(source).tolist()):
            self._block([source], f"{_describe(node)} picks channels by position")
        return labels

    def _opaque(self, node: fx.Node, value: Any, why: str) -> Any:
        """Block everything that an unknown operation reads, and everything that comes of it."""
        self._block(self._read(node), why)
        if isinstance(value, Tensor):
            return self._constant(value, why)
        return [self._constant(item, why) if isinstance(item, Tensor) else None for item in _items(value)]

    # Atoms, ties and blocks

    def _atoms(self, count: int) -> Atoms:
        self.atom_count += count
        return np.arange(self.atom_count - count, self.atom_count)

    def _constant(self, value: Tensor, why: str) -> Tensor:
        """Labels of a tensor whose channels are no producer's: new atoms per channel that never go."""
        count = value.shape[1] if value.dim() > 1 else 1
        atoms = self._atoms(count)
        self.blocked.append((atoms, why))
        return _expand(atoms, value, 1 if value.dim() > 1 else None)

    def _tie(self, left: Any, right: Any) -> None:
        self._ties.append((np.ravel(left), np.ravel(right)))

    def _tie_labels(self, left: Tensor, right: Tensor, shape: Iterable[int]) -> None:
        ours, theirs = _channels(left), _channels(right)
        if ours is not None and theirs is not None and left.dim() == right.dim() and len(ours) == len(theirs):
            self._tie(ours, theirs)
            return
        size = tuple(shape)
        pairs = torch.stack([left.expand(size).reshape(-1), right.expand(size).reshape(-1)]).unique(dim=1)
        self._tie(pairs[0].numpy(), pairs[1].numpy())

    def _tie_constant_dims(self, labels: Tensor, constant: list[int]) -> None:
        for dim in constant:
            self._tie_labels(labels, labels.narrow(dim, 0, 1).expand(labels.shape), labels.shape)

    def _tie_split(self, channels: Atoms | None, shape: tuple[int, ...], constant: list[int]) -> None:
        if channels is not None:
            self._tie_constant_dims(torch.from_numpy(channels).reshape(1, *shape), [dim + 1 for dim in constant])

    def _block(self, labels: Iterable[Tensor], why: str) -> None:
        for label in labels:
            self.blocked.append((_unique(label), why))

    def _first(self, node: fx.Node) -> Tensor:
        """The labels of the tensor that an operation acts on."""
        return self._read(node)[0]

    def _read(self, node: fx.Node) -> list[Tensor]:
        """The labels of all tensors that a node reads."""
        found: list[Tensor] = []
        for source in node.all_input_nodes:
            labels = self._labels[source]
            found += [label for label in _items(labels) if isinstance(label, Tensor)]
        return found


def norm_behind(model: nn.Module, node: fx.Node) -> _BatchNorm | None:
    """The BatchNorm that alone reads a layer's output and keeps running statistics."""
    users = list(node.users)
    if len(users) == 1 and users[0].op == "call_module":
        module = model.get_submodule(str(users[0].target))
        if isinstance(module, _BatchNorm) and module.running_mean is not None:
            return module
    return None


def _expand(channels: Atoms, value: Tensor, dim: int | None = 1) -> Tensor:
    """Labels of the shape of `value` that vary along `dim` only, without taking its memory."""
    labels = torch.from_numpy(channels)
    if dim is None:
        return labels.reshape([1] * value.dim()).expand(value.shape)
    shape = [1] * value.dim()
    shape[dim] = len(channels)
    return labels.reshape(shape).expand(value.shape)


def _varies(labels: Tensor, dim: int) -> bool:
    """Whether labels differ along a dimension; expanded ones need no look."""
    if labels.shape[dim] <= 1 or labels.stride(dim) == 0:
        return False
    return not bool((labels == labels.narrow(dim, 0, 1)).all())


def _channels(labels: Tensor, dim: int = 1) -> Atoms | None:
    """The atom per index of `dim`, or None where labels differ along another dimension too."""
    dim = dim % labels.dim()
    for other in range(labels.dim()):
        if other != dim and _varies(labels, other):
            return None
    index: list[Any] = [0] * labels.dim()
    index[dim] = slice(None)
    return labels[tuple(index)].numpy()


def _spread(narrow: Tensor, wide: Tensor) -> bool:
    """Whether a one-channel tensor is broadcast over several channels."""
    aligned = narrow.reshape((1,) * (wide.dim() - narrow.dim()) + tuple(narrow.shape))
    return any(
        ours == 1 and theirs > 1 and _varies(wide, dim)
        for dim, (ours, theirs) in enumerate(zip(aligned.shape[-wide.dim() :], wide.shape, strict=True))
    )


def _unique(labels: Any) -> Atoms:
    if isinstance(labels, Tensor):
        channels = _channels(labels) if labels.dim() > 1 else None
        return np.unique(channels if channels is not None else labels.numpy())
    return np.unique(np.concatenate([_unique(item) for item in _items(labels) if item is not None]))


def _items(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return list(value) if isinstance(value, list | tuple) else [value]


def holds_tensor(value: Any) -> bool:
    return any(isinstance(item, Tensor) for item in _items(value))


def _changed(module: nn.Module) -> bool:
    """Whether parametrizations compute the weights (weight norm, spectral norm, masks of other tools)."""
    return torch.nn.utils.parametrize.is_parametrized(module) or any(
        hasattr(module, name) for name in ("weight_orig", "weight_g")
    )


def _describe(node: fx.Node) -> str:
    """An operation as a person would name it: what it is, and the module whose forward calls it."""
    target: Any = node.target
    name = target if isinstance(target, str) else getattr(target, "__name__", str(target))
    stack: dict[str, tuple[str, Callable[..., Any]]] = node.meta.get("nn_module_stack") or {}
    owner = [path for path, _ in stack.values() if path and path != name]
    return f"{name} in {owner[-1]}" if owner else name


def _fixed_sizes(node: fx.Node, value: Tensor) -> list[int]:
    """The output dimensions of a reshape whose size is written as a number in the code."""
    if node.target in (torch.flatten, "flatten"):
        return []
    sizes = node.args[1:] or (node.kwargs.get("shape"),)
    if len(sizes) == 1 and isinstance(sizes[0], list | tuple):
        sizes = tuple(sizes[0])
    if len(sizes) != value.dim():
        return []
    return [dim for dim, size in enumerate(sizes) if isinstance(size, int) and size != -1]


def _view_blocks(before: tuple[int, ...], after: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """Match runs of input dimensions to the runs of output dimensions that hold the same elements."""
    blocks: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before) or j < len(after):
        ins, outs = [i] if i < len(before) else [], [j] if j < len(after) else []
        i, j = i + len(ins), j + len(outs)
        while (a := prod(before[d] for d in ins)) != (b := prod(after[d] for d in outs)):
            if a < b:
                ins.append(i)
                i += 1
            else:
                outs.append(j)
                j += 1
        blocks.append((ins, outs))
    return blocks
