"""What is found out about channels while a network runs: layers, atoms, ties, and what is blocked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.conv import _ConvNd

from slimnet.graph import operations as ops
from slimnet.graph.labels import Atoms, channels, compact, expand, long_dims, unique, varies
from slimnet.graph.record import Call, Context
from slimnet.graph.settings import Settings, channel_counts
from slimnet.modules import named

LAYERS = (_ConvNd, nn.Linear, _NormBase, nn.GroupNorm)


@dataclass(frozen=True)
class LayerAtoms:
    """The atom of each input and output channel of one layer.

    `positions` is how often a conv or linear layer applies its weights to one image; 0 for a norm.
    """

    inputs: Atoms
    outputs: Atoms
    positions: int = 0


@dataclass(eq=False, slots=True)
class Value:
    """A tensor of the run that depends on the network's parameters.

    Attributes:
        shape: of the tensor.
        labels: None where it has no channels that could be removed.
        parameter: its name, if it is one.
        parametric: made of parameters alone.
        root: the value whose memory it shares.
        ancestors: a bit for each value that it was made from, its own included.
    """

    shape: tuple[int, ...]
    labels: Tensor | None
    parameter: str = ""
    parametric: bool = False
    root: int = -1
    ancestors: int = 0


@dataclass
class Run:
    """What was recorded.

    Attributes:
        calls: in their order.
        values: whatever the calls take and make.
        results: values that the network returned.
        unclear: values that were written into by way of another.
    """

    calls: list[Call] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    results: list[int] = field(default_factory=list)
    unclear: set[int] = field(default_factory=set)

    def forget_labels(self) -> None:
        """Keep the shapes of the values alone, once all is known of their channels."""
        self.values = [Value(value.shape, None) for value in self.values]

    def uses(self) -> Counter[str]:
        """How often each layer is called."""
        return Counter(call.layer for call in self.calls if call.layer)

    def users(self) -> list[list[Call]]:
        """For each value the calls that take it."""
        users: list[list[Call]] = [[] for _ in self.values]
        for call in self.calls:
            for index in dict.fromkeys(call.inputs):
                users[index].append(call)
        return users


class Findings:
    """Of one run of a network."""

    def __init__(self, model: nn.Module, filler: int = 0) -> None:
        self.model = model
        self._filler = filler  # what stands for activations
        self.record = Run()
        self.atom_count = 0
        self.layers: dict[str, LayerAtoms] = {}
        self.vectors: dict[str, Atoms] = {}
        self.producers: list[str] = []
        self.norms: list[str] = []
        self.coupled: list[Atoms] = []
        self.scripted: dict[str, list[Atoms]] = {}  # what scripted parts read
        self.modules = named(model)
        self._names = {
            id(tensor): f"{path}.{name}" if path else name
            for path, module in reversed(list(self.modules.items()))
            for tensors in (module._parameters, module._buffers)
            for name, tensor in tensors.items()
            if tensor is not None
        }
        self.context = Context()
        self.settings = Settings(self._atoms, self.tie, self.computes)
        self.claimed: list[Any] = []  # sizes among the arguments of the function at hand that scale
        self._blocked: list[tuple[Atoms, str]] = []
        self._same_size: list[tuple[Atoms, Atoms, str]] = []
        self._rigid_rows: list[tuple[NDArray[np.int64], Atoms, str]] = []
        self._pinned = _shared_parameters(self.modules)
        self._ties: list[tuple[Atoms, Atoms]] = []
        self._index: dict[int, int] = {}
        self._alive: list[Any] = []
        self.views: dict[int, list[int]] = {}
        self._zeros: dict[tuple[torch.dtype, torch.device], Tensor] = {}

    # What was found

    def ties(self) -> NDArray[np.int64]:
        """All ties between atoms, (2, E)."""
        for name, atoms in self.vectors.items():
            layer = self.layers.get(name.rpartition(".")[0])
            if layer is not None and len(layer.outputs) == len(atoms):
                self.tie(layer.outputs, atoms)
        if not self._ties:
            return np.zeros((2, 0), dtype=np.int64)
        return np.stack([np.concatenate([pair[side] for pair in self._ties]) for side in (0, 1)])

    def blocked(self, unit_of: NDArray[np.int64]) -> list[tuple[Atoms, str]]:
        """Atoms that can never be removed, and why, given the unit of each atom."""
        pinned = [
            (np.union1d(self.layers[name].inputs, self.layers[name].outputs), why)
            for name, why in self._pinned.items()
            if name in self.layers
        ]
        apart = [
            (np.union1d(counted, shaped), why)
            for counted, shaped, why in self._same_size
            if not np.array_equal(np.unique(unit_of[counted]), np.unique(unit_of[shaped]))
        ]
        loose = [
            (atoms, why)
            for rows, atoms, why in self._rigid_rows
            if (unit_of[rows] != unit_of[rows[:1]]).any()
        ]
        return self._blocked + pinned + apart + loose

    def gaining_bias(self) -> set[str]:
        """Layers without a bias that would be given one by absorption, as no BatchNorm is behind them."""
        users, uses, producers = self.record.users(), self.record.uses(), set(self.producers)
        found = set()
        for call in self.record.calls:
            unbiased = call.layer in producers and getattr(self.modules[call.layer], "bias", None) is None
            if unbiased and not norm_behind(self.modules, call.outputs[0], self.record, users, uses):
                found.add(call.layer)
        return found

    # Use

    def used(self, name: str) -> bool:
        """Whether a module ran, or its tensors were used by another."""
        return id(self.modules[name]) in self.context.ran or name in self._pinned

    def block_fitting(self, name: str, why: str) -> None:
        """Keep whatever a layer could take or make, which has as many channels where it looks for them."""
        module, counts = self.modules[name], channel_counts(self.modules[name])
        dims = module.weight.dim() if isinstance(module, _ConvNd) else None
        dim = -1 if isinstance(module, nn.Linear) else 1
        for value in self.record.values:
            labels = value.labels
            if labels is None or value.parametric or labels.dim() != (dims or max(2, labels.dim())):
                continue
            if labels.shape[dim] in counts and varies(labels, dim):
                self.block_labels([labels], why)

    # Numbers

    def escape(self, atoms: Atoms, sign: str, same: Atoms | None = None) -> None:
        """Block channels that are counted where the result need not scale with their number.

        Unless they are the same as others, which are blocked too if they are not.
        """
        module = self.modules.get(self.context.modules[-1]) if self.context.modules else None
        if sign in ("==", "!=") and type(module).__module__.startswith("torch.nn.modules."):
            return  # a layer of torch checks its input against its own number, which is changed with it
        why = f"{self.computes(sign)} computes with the number of channels"
        if same is None:
            self.block(atoms, why)
        else:
            self.same_size(atoms, same, why)

    def computes(self, sign: str) -> str:
        """What is computed with a number: an operator or a function, and the module whose forward does."""
        how = sign if sign.isidentifier() and sign == self.context.name else f"{sign!r}"
        return how + (f" in {self.context.module}" if self.context.module else "")

    # Values

    def knows(self, tensor: Tensor) -> bool:
        return id(tensor) in self._index or id(tensor) in self._names

    def labels(self, tensor: Any) -> Tensor | None:
        index = self._index.get(id(tensor)) if isinstance(tensor, Tensor) else None
        return None if index is None else self.record.values[index].labels

    def parameter(self, tensor: Any) -> str:
        """The name of a parameter or buffer of the network, the first of several; "" for another tensor."""
        return self._names.get(id(tensor), "")

    def number(self, tensor: Any, *, layer: bool = False) -> int | None:
        """The number of a tensor; parameters become values when something other than a layer takes them."""
        if id(tensor) in self._index:
            return self._index[id(tensor)]
        name = self.parameter(tensor)
        if not name or layer:
            return None
        owner, _, part = name.rpartition(".")
        is_weight = part == "weight" and isinstance(self.modules.get(owner), _ConvNd | nn.Linear)
        if is_weight:
            self.pin(name, "its tensors are used outside of it")
        shape = tuple(tensor.shape)
        dim = vector_dim(shape)
        labels = None
        if dim is not None and tensor.is_floating_point() and not is_weight:
            self.vectors.setdefault(name, self._atoms(shape[dim]))
            labels = expand(self.vectors[name], shape, dim)
        index = self.add(tensor, labels, ())
        self.record.values[index].parameter = name
        self.record.values[index].parametric = True
        return index

    def cast(self, tensor: Tensor, result: Tensor) -> bool:
        """Whether a tensor is a layer's own; it is what it is cast to as well, as by autocast."""
        name = self.parameter(tensor)
        owner = self.modules.get(name.rpartition(".")[0])
        if not name or not isinstance(owner, LAYERS) or ops.is_reparametrized(owner):
            return False
        self._names[id(result)] = name
        self._alive.append(result)
        return True

    def add(self, tensor: Tensor, labels: Tensor | None, inputs: Sequence[int], root: int = -1) -> int:
        """Number a tensor."""
        values = self.record.values
        index = len(values)
        ancestors = 1 << index
        parametric = bool(inputs)
        for source in inputs:
            ancestors |= values[source].ancestors
            parametric = parametric and values[source].parametric
        values.append(
            Value(tuple(tensor.shape), labels, "", parametric, index if root < 0 else root, ancestors)
        )
        self._alive.append(tensor)
        self._index[id(tensor)] = index
        return index

    def overwritten(self, root: int, index: int) -> None:
        """Note that a value is written into: what shares its memory is not what it was."""
        shared = self.views.get(root, [])
        if shared:
            self.record.unclear |= {root, *shared} - {index}

    def fake(self, shape: Sequence[int], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Zeros, or other fillers, that take no memory."""
        key = (dtype or like.dtype, like.device)
        if key not in self._zeros:
            with torch.inference_mode(False):  # it outlives such a mode within the forward
                self._zeros[key] = torch.full((), self._filler, dtype=key[0], device=key[1])
        return self._zeros[key].expand(tuple(shape))

    # Layers

    def layer_of(self, tensor: Tensor, part: str, kind: type[nn.Module] | Any) -> str:
        """The layer of a kind whose `part` a tensor is; "" where it is no layer's."""
        owner, _, name = self.parameter(tensor).rpartition(".")
        running = self.context.modules[-1] if self.context.modules else owner
        if getattr(self.modules.get(running), part, None) is tensor:
            owner = running  # the one of those that share it
        module = self.modules.get(owner)
        if name != part or not isinstance(module, kind) or ops.is_reparametrized(module):
            return ""
        return owner

    def norm_of(self, tensors: Sequence[Tensor], kind: type[nn.Module]) -> str:
        """The norm of a kind that tensors belong to, or that is running; "" where it is no module's."""
        owners = {self.parameter(tensor).rpartition(".")[0] for tensor in tensors}
        if not tensors and self.context.modules:
            owners = {self.context.modules[-1]}
        (owner, *others) = owners or {""}
        module = self.modules.get(owner)
        return owner if not others and isinstance(module, kind) else ""

    def produce(self, name: str, incoming: Atoms, count: int, positions: int, groups: int) -> Atoms:
        """The atoms that a conv or linear layer makes; the same at each of its uses."""
        known = self.layers.get(name)
        if known is not None:
            self.tie(known.inputs, incoming)
            self.layers[name] = LayerAtoms(known.inputs, known.outputs, known.positions + positions)
            return known.outputs
        outgoing = self._atoms(count)
        self.layers[name] = LayerAtoms(incoming, outgoing, positions)
        self.producers.append(name)
        if groups > 1:
            # A conv group goes or stays whole: what it reads and what it writes, together.
            reads, writes = incoming.reshape(groups, -1), outgoing.reshape(groups, -1)
            self.tie(reads, np.broadcast_to(writes[:, :1], reads.shape))
            self.tie(writes, np.broadcast_to(writes[:, :1], writes.shape))
        return outgoing

    def normalise(self, name: str, atoms: Atoms) -> None:
        """Give a norm its channels; the same at each of its uses."""
        known = self.layers.get(name)
        if known is not None:
            self.tie(known.inputs, atoms)
            return
        self.layers[name] = LayerAtoms(atoms, atoms)
        module = self.modules[name]
        if isinstance(module, _BatchNorm) and module.affine:
            self.norms.append(name)

    # Atoms, ties and blocks

    def _atoms(self, count: int) -> Atoms:
        self.atom_count += count
        return np.arange(self.atom_count - count, self.atom_count)

    def constant(self, shape: Sequence[int], why: str) -> Tensor:
        """Labels of a tensor that no layer made, or that is not followed: one atom for all, never removed."""
        atoms = self._atoms(1)
        self.block(atoms, why)
        return torch.from_numpy(atoms).reshape([1] * len(shape)).expand(tuple(shape))

    def tie(self, left: Any, right: Any) -> None:
        """Have atoms go together, one by one."""
        self._ties.append((np.ravel(left), np.ravel(right)))

    def tie_labels(self, left: Tensor, right: Tensor) -> None:
        """Tie what stands at the same place in labels of one shape."""
        for dim in long_dims(left) or range(left.dim()):
            ours, theirs = channels(left, dim), channels(right, dim)
            if ours is not None and theirs is not None:
                self.tie(ours, theirs)
                return
        left, right = compact(left, right)
        pairs = np.unique(np.stack([left.reshape(-1).numpy(), right.reshape(-1).numpy()]), axis=1)
        self.tie(pairs[0], pairs[1])

    def block(self, atoms: Atoms, why: str) -> None:
        """Keep atoms."""
        self._blocked.append((atoms, why))

    def block_labels(self, labels: Sequence[Tensor], why: str) -> None:
        """Keep all atoms of some labels."""
        self._blocked += [(unique(label), why) for label in labels]

    def same_size(self, counted: Atoms, shaped: Atoms, why: str) -> None:
        """Keep both unless what is counted turns out to be what is shaped."""
        self._same_size.append((counted, shaped, why))

    def rigid(self, rows: NDArray[np.int64], atoms: Atoms, why: str) -> None:
        """Keep atoms unless all rows (positions, others) turn out to go together."""
        self._rigid_rows.append((rows, atoms, why))

    def pin(self, parameter: str, why: str) -> None:
        """Keep the channels of the layer that a parameter belongs to."""
        self._pinned.setdefault(parameter.rpartition(".")[0], why)

    def couple(self, labels: Tensor, start: Tensor | None) -> None:
        """Note that channels meet in a residual add, and so what enters its block."""
        self.coupled += [unique(each) for each in (labels, start) if each is not None]

    def fork(self, left: int | None, right: int | None) -> Tensor | None:
        """The labels of where two values last were one: the input of a residual block."""
        assert left is not None
        assert right is not None
        values = self.record.values
        common = values[left].ancestors & values[right].ancestors
        while common:
            value = values[common.bit_length() - 1]
            if value.labels is not None and not value.parametric:
                return value.labels
            common &= ~(1 << (common.bit_length() - 1))
        return values[left].labels


def vector_dim(shape: Sequence[int]) -> int | None:
    """Along which dimension a parameter of no layer has an entry per channel; None of a single number.

    The only one that is longer than 1, or the last, as in (positions, channels); of (1, C, H, W) the second.
    """
    long = [dim for dim, size in enumerate(shape) if size > 1]
    if len(long) > 1 and len(shape) == 4 and shape[0] == 1:
        return 1 if shape[1] > 1 else None
    return long[-1] if long else None


def norm_behind(
    modules: Mapping[str, nn.Module],
    index: int,
    run: Run,
    users: Sequence[Sequence[Call]],
    uses: Mapping[str, int],
) -> str:
    """The BatchNorm with running statistics that alone reads a value, and nothing else; "" without one."""
    if len(users[index]) != 1 or index in run.results:
        return ""
    (call,) = users[index]
    if call.op not in ops.NORMS or not call.layer or call.inputs[0] != index:
        return ""
    module = modules[call.layer]
    keeps_statistics = isinstance(module, _BatchNorm) and module.running_mean is not None
    return call.layer if uses[call.layer] == 1 and keeps_statistics else ""


def _shared_parameters(modules: Mapping[str, nn.Module]) -> dict[str, str]:
    """Layers that share a parameter with another, and why that keeps their channels."""
    owner: dict[int, str] = {}
    pinned: dict[str, str] = {}
    seen: set[int] = set()
    for name, module in modules.items():
        if id(module) in seen:
            continue
        seen.add(id(module))
        for parameter in module._parameters.values():
            first = owner.setdefault(id(parameter), name) if parameter is not None else name
            if first != name:
                pinned |= dict.fromkeys((first, name), f"{first} and {name} share a parameter")
    return pinned
