"""What each operation does to channels: one rule for each of its kinds (`slimnet.graph.operations`).

A rule labels what an operation returns, ties atoms that must go together, and blocks those that must stay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import gcd, prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from slimnet.graph import operations as ops
from slimnet.graph.counts import Count, counted
from slimnet.graph.findings import Findings, Value
from slimnet.graph.labels import Atoms, channels, compact, expand, spreads, unique, varies, view_blocks
from slimnet.graph.record import Call, Parameter, Ref, overwrites, tensors_in

OPEN = 2**62  # beyond this a slice has no end
_BOOLEAN = {
    "eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or", "logical_xor", "logical_not", "isnan",
    "isinf", "isfinite",
}  # fmt: skip


class Step:
    """One operation, while it is followed."""

    def __init__(
        self, flow: Findings, op: str, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.flow, self.op, self.function, self.args, self.kwargs = flow, op, function, args, kwargs
        self.in_place = overwrites(function)
        self.layer = ""

    @property
    def where(self) -> str:
        """The operation in words."""
        return self.flow.context.describe(self.op, self.flow.modules)

    # What it takes

    def labels(self, tensor: Any) -> Tensor | None:
        """The labels of an argument; None of one that has no channels to remove."""
        value = self.value(tensor)
        return None if value is None else value.labels

    def value(self, tensor: Any) -> Value | None:
        index = self.flow.number(tensor) if isinstance(tensor, Tensor) else None
        return None if index is None else self.flow.record.values[index]

    def labelled(self) -> list[Tensor]:
        """The labels of all arguments that have some."""
        return [
            labels
            for tensor in tensors_in((self.args, self.kwargs))
            if (labels := self.labels(tensor)) is not None
        ]

    def bound(self) -> dict[str, Any]:
        """The arguments by name."""
        schema = getattr(self.function, "_schema", None)
        if schema is None:
            return dict(self.kwargs)
        names = [argument.name for argument in schema.arguments]
        given = {a.name: a.default_value for a in schema.arguments if a.has_default_value()}
        return given | dict(zip(names, self.args, strict=False)) | self.kwargs

    # What it returns

    def emit(self, labels: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Zeros with these labels, or the overwritten tensor itself."""
        source = self.args[0] if isinstance(self.args[0], Tensor) else tensors_in((self.args, self.kwargs))[0]
        result = source if self.in_place else self.flow.fake(tuple(labels.shape), source, dtype)
        self.note([(result, labels)])
        return result

    def emit_all(self, results: Any, label: Callable[[tuple[int, ...]], Tensor | None]) -> Any:
        """Zeros for each tensor of `results`, with the labels that `label` has for its shape."""
        noted: list[tuple[Tensor, Tensor | None]] = []

        def make(item: Any) -> Any:
            if isinstance(item, list | tuple):
                made = [make(each) for each in item]
                return made if isinstance(item, list) else tuple(made)
            if not isinstance(item, Tensor):
                return item
            like = self.args[0] if isinstance(self.args[0], Tensor) else tensors_in(self.args)[0]
            fake = self.flow.fake(tuple(item.shape), like, item.dtype)
            noted.append((fake, label(tuple(item.shape))))
            return fake

        made = make(results)
        self.note(noted)
        return made

    def note(self, results: Sequence[tuple[Tensor, Tensor | None]]) -> None:
        """Record the call and number what it makes."""
        flow = self.flow
        inputs: list[int] = []

        def refer(item: Any) -> Any:
            if isinstance(item, Tensor):
                index = flow.number(item, layer=bool(self.layer))
                if index is not None:
                    inputs.append(index)
                if name := flow.parameter(item):
                    return Parameter(name)
                return item if index is None else Ref(index)
            if type(item) in (list, tuple) and item and type(item[0]) is not int:
                return type(item)(map(refer, item))
            return item

        args, kwargs = tuple(map(refer, self.args)), {key: refer(item) for key, item in self.kwargs.items()}
        values = flow.record.values
        shares = self.op in ops.ALIASES or self.in_place
        root = values[inputs[0]].root if shares and inputs else -1
        if self.in_place and inputs:
            flow.overwritten(root, inputs[0])
        outputs = [flow.add(tensor, labels, inputs, root) for tensor, labels in results]
        if self.op in ops.ALIASES:
            flow.views.setdefault(root, []).extend(outputs)
        flow.record.calls.append(
            Call(
                self.op,
                self.function,
                args,
                kwargs,
                tuple(inputs),
                tuple(outputs),
                self.in_place,
                self.layer,
            )
        )

    def shapes(self) -> Any:
        """What the operation returns, without contents."""

        def bare(item: Any) -> Any:
            if isinstance(item, Tensor):
                return torch.empty_strided(
                    tuple(item.shape), _dense(item.shape), dtype=item.dtype, device="meta"
                )
            if isinstance(item, list | tuple):
                made = [bare(each) for each in item]
                return made if isinstance(item, list) else tuple(made)
            return item

        try:
            return self.function(
                *bare(tuple(self.args)), **{key: bare(item) for key, item in self.kwargs.items()}
            )
        except (NotImplementedError, RuntimeError):
            return self.computed()

    def computed(self) -> Any:
        """What the operation returns for the zeros that stand for activations; nothing is overwritten."""
        args = self.args
        if self.in_place and isinstance(args[0], Tensor) and self.flow.number(args[0]) is not None:
            args = (args[0].clone(), *args[1:])
        return self.function(*args, **self.kwargs)

    # The step

    def follow(self) -> Any:
        """Follow it by its rule."""
        return RULES.get(self.op, Step.unknown)(self)

    def compute(self) -> Any:
        """An operation on parameters without channels alone: it is computed, and keeps their layers whole."""
        for tensor in tensors_in((self.args, self.kwargs)):
            name = self.flow.parameter(tensor)
            if name and tensor.dim() > 1:
                self.flow.pin(name, "its tensors are used outside of it")
        if self.in_place and self.flow.parameter(self.args[0]):
            return self.args[0]  # nothing of the network's is changed
        result = self.function(*self.args, **self.kwargs)
        self.note([(tensor, None) for tensor in tensors_in(result)])
        return result

    def opaque(self, why: str) -> Any:
        """Block everything that an operation reads, and everything that it returns."""
        flow = self.flow
        for tensor in tensors_in((self.args, self.kwargs)):
            name = flow.parameter(tensor)
            if name and tensor.dim() > 1:
                flow.pin(name, why)
        flow.block_labels(self.labelled(), why)
        if self.in_place and flow.number(self.args[0]) is not None:
            self.note([(self.args[0], flow.constant(tuple(self.args[0].shape), why))])
            return self.args[0]
        result = self.computed()
        if self.in_place:
            return result
        # What does not come from this operation alone is another view of an argument.
        return (
            self.emit_all(result, lambda shape: flow.constant(shape, why)) if tensors_in(result) else result
        )

    def unknown(self) -> Any:
        if self.op in ("_local_scalar_dense", "item", "is_nonzero", "equal"):
            self.flow.block_labels(self.labelled(), f"{self.where} makes a number of it")
            return self.function(*self.args, **self.kwargs)
        return self.opaque(f"{self.where} is not known")

    # Layers

    def convolution(self) -> Any:
        x, weight, _, stride, padding, dilation, transposed, extra, groups = self.args
        name = self.flow.layer_of(weight, "weight", _ConvNd)
        if not name or x.dim() != weight.dim() or x.dtype != weight.dtype or x.device != weight.device:
            return self.opaque(self._unowned())
        if transposed and groups > 1:
            return self.opaque(f"{name} is a grouped transposed convolution")
        count = weight.shape[1] if transposed else weight.shape[0]
        spans = list(zip(x.shape[2:], weight.shape[2:], stride, padding, dilation, extra, strict=True))
        if transposed:
            sizes = [
                (size - 1) * step - 2 * pad + gap * (k - 1) + more + 1
                for size, k, step, pad, gap, more in spans
            ]
        else:
            sizes = [(size + 2 * pad - gap * (k - 1) - 1) // step + 1 for size, k, step, pad, gap, _ in spans]
        reads = weight.shape[0] if transposed else weight.shape[1] * groups
        if min(sizes, default=1) < 1 or x.shape[1] != reads:
            return self.computed()  # which says what is wrong
        shape = (x.shape[0], count, *sizes)
        incoming = self._incoming(x, 1)
        if incoming is None:
            return self.opaque(f"{name} reads channels of another dimension")
        swept = x.shape if transposed else shape
        outgoing = self.flow.produce(name, incoming, count, prod(swept[2:]), groups)
        self.layer = name
        return self.emit(expand(outgoing, shape, 1), x.dtype)

    def linear(self) -> Any:
        given = dict(zip(("input", "weight", "bias"), self.args, strict=False)) | self.kwargs
        x, weight = given["input"], given["weight"]
        self.args, self.kwargs = (x, weight, given.get("bias")), {}
        name = self.flow.layer_of(weight, "weight", nn.Linear)
        if not name or x.dtype != weight.dtype or x.device != weight.device:
            return self.opaque(self._unowned())
        if x.shape[-1] != weight.shape[1]:
            return self.computed()
        incoming = self._incoming(x, -1)
        if incoming is None:
            return self.opaque(f"{name} reads channels of another dimension")
        shape = (*x.shape[:-1], weight.shape[0])
        outgoing = self.flow.produce(name, incoming, weight.shape[0], prod(shape[1:-1]), 1)
        self.layer = name
        return self.emit(expand(outgoing, shape, -1), x.dtype)

    def _incoming(self, x: Tensor, dim: int) -> Atoms | None:
        """The atoms that a layer reads; new ones, never removed, where no layer made them."""
        labels = self.labels(x)
        if labels is None:
            fixed = self.flow.constant(tuple(x.shape), "it is the network's input", dim % x.dim())
            return channels(fixed, dim)
        return channels(labels, dim)

    def _unowned(self) -> str:
        """Why a layer's weights are not its own."""
        path = self.flow.context.modules[-1] if self.flow.context.modules else ""
        module = self.flow.model.get_submodule(path)
        if ops.is_reparametrized(module):
            pruned = hasattr(module, "weight_mask")
            return f"{path} has a mask of torch.nn.utils.prune" if pruned else f"{path} has a parametrization"
        return f"{self.where} takes weights that are not a layer's own"

    def norm(self) -> Any:
        x, *tensors = [item for item in self.args if isinstance(item, Tensor)] + [
            item for item in self.kwargs.values() if isinstance(item, Tensor)
        ]
        atoms = self._incoming(x, 1)
        if atoms is None:
            return self.opaque(f"{self.where} reads channels of another dimension")
        name = self.flow.norm_of(tensors, _NormBase)
        if name:
            self.flow.normalise(name, atoms)
            self.layer = name
        else:
            for tensor in tensors:
                labels = self.labels(tensor)
                entries = None if labels is None else channels(labels, 0)
                if entries is None or len(entries) != len(atoms):
                    return self.opaque(f"{self.where} combines channels with another tensor")
                self.flow.tie(atoms, entries)
        labels = self.labels(x)
        made = expand(atoms, tuple(x.shape), 1) if labels is None else labels
        if self.op == "instance_norm":
            return self.emit(made, x.dtype)
        result = self.flow.fake(tuple(x.shape), x)
        self.note([(result, made)])
        return (result, *([x.new_empty(0)] * (len(self.function._schema.returns) - 1)))

    def group_norm(self) -> Any:
        x, groups = self.args[0], self.args[6]
        labels = self.labels(x)
        name = self.flow.norm_of([t for t in self.args[1:3] if isinstance(t, Tensor)], nn.GroupNorm)
        atoms = self._incoming(x, 1)
        if atoms is None or not name:
            return self.opaque(f"{self.where} mixes channels")
        self.flow.normalise(name, atoms)
        self.layer = name
        rows = atoms.reshape(groups, -1)
        if groups == 1:
            self.flow.block(atoms, f"{self.where} averages over all channels")
        else:  # a group of channels that is normalised together goes or stays whole
            self.flow.tie(rows, np.broadcast_to(rows[:, :1], rows.shape))
        made = expand(atoms, tuple(x.shape), 1) if labels is None else labels
        result = self.flow.fake(tuple(x.shape), x)
        self.note([(result, made)])
        return (result, x.new_empty(0), x.new_empty(0))

    def layer_norm(self) -> Any:
        x, dims = self.args[0], len(self.args[1])
        labels = self.labels(x)
        if labels is None:
            return self.opaque(f"{self.where} is not known")
        for tensor in self.args[2:4]:
            own = self.labels(tensor)
            self.flow.block_labels([] if own is None else [own], f"{self.where} averages over all channels")
        if any(varies(labels, x.dim() - 1 - dim) for dim in range(dims)):
            self.flow.block_labels([labels], f"{self.where} averages over all channels")
        result = self.flow.fake(tuple(x.shape), x)
        self.note([(result, labels)])
        return (result, x.new_empty(0), x.new_empty(0))

    # Element by element

    def elementwise(self) -> Any:
        tensors = tensors_in((self.args, self.kwargs))
        shape = np.broadcast_shapes(*(tuple(tensor.shape) for tensor in tensors))
        if self.in_place and tuple(shape) != tuple(self.args[0].shape):
            return self.opaque(f"{self.where} is not known")
        known = [
            (tensor, value)
            for tensor in tensors
            if (value := self.value(tensor)) is not None and value.labels is not None
        ]
        labels = self._combined(known, shape)
        fixed = [t for t in tensors if t.numel() > 1 and all(t is not tensor for tensor, _ in known)]
        if any(_meets(tensor, labels) for tensor in fixed):
            self.flow.block_labels([labels], f"{self.where} combines channels with another tensor")
        if self.op in ("log_sigmoid_forward", "native_dropout"):
            return self.emit_all(
                self.shapes(), lambda shape: labels if shape == tuple(labels.shape) else None
            )
        return self.emit(labels, self._dtype(tensors))

    def _combined(self, known: list[tuple[Tensor, Value]], shape: Sequence[int]) -> Tensor:
        """The labels of what comes of several labelled tensors, after tying them."""
        activations = [(tensor, value) for tensor, value in known if not value.parametric]
        (first, value), *others = activations or known
        assert value.labels is not None
        labels = value.labels
        for tensor, other in others:
            labels = self._tied(labels, other.labels, adds=self.op in ops.ADDS and bool(activations))
            if self.op in ops.ADDS and activations and other.labels is not None:
                start = self.flow.fork(self.flow.number(first), self.flow.number(tensor))
                self.flow.couple(other.labels, start)
        labels = labels.expand(tuple(shape))
        if activations:
            for _, vector in known:
                if vector.parametric and vector.labels is not None:
                    self._tie_vector(vector.labels.expand(tuple(shape)), labels)
        return labels

    def _tied(self, left: Tensor, right: Any, adds: bool) -> Tensor:
        shape = np.broadcast_shapes(tuple(left.shape), tuple(right.shape))
        for narrow, wide in ((left, right), (right, left)):
            if spreads(narrow, wide):
                # One channel, never removed, may meet many that are.
                self.flow.block_labels([narrow], f"{self.where} spreads it over other channels")
                if len(unique(narrow)) > 1:
                    self.flow.block_labels([wide], f"{self.where} spreads one channel over several")
                return wide.expand(shape)
        self.flow.tie_labels(left.expand(shape), right.expand(shape))
        return left.expand(shape)

    def _tie_vector(self, vector: Tensor, labels: Tensor) -> None:
        """Tie the entries of a parameter to the channels that they meet; keep those that meet positions."""
        along = [dim for dim in range(vector.dim()) if varies(vector, dim)]
        if along == [dim for dim in range(labels.dim()) if varies(labels, dim)]:
            self.flow.tie_labels(vector, labels)
            return
        self.flow.block_labels([vector], f"{self.where} uses it along another dimension")
        if any(varies(labels, dim) for dim in along):
            self.flow.block_labels([labels], f"{self.where} combines channels with another tensor")

    def _dtype(self, tensors: Sequence[Tensor]) -> torch.dtype:
        dtype = tensors[0].dtype
        if self.op in _BOOLEAN:
            return torch.bool
        if self.op == "_to_copy":
            return self.kwargs.get("dtype") or dtype
        if dtype.is_floating_point and all(tensor.dtype == dtype for tensor in tensors):
            return dtype
        return tensors_in(self.shapes())[0].dtype

    def fill(self) -> Any:
        labels = self.labels(self.args[0])
        if labels is None:
            return self.opaque(f"{self.where} is not known")
        return self.emit(labels, self.kwargs.get("dtype"))

    def copy(self) -> Any:
        target, source = self.args[:2]
        labels, own = self.labels(source), self.value(target)
        is_view = target._is_view() if own is None else own.root != self.flow.number(target)
        if labels is None or is_view:
            why = f"{self.where} writes it into a part of another tensor"
            self.flow.block_labels(self.labelled(), why)
            if own is not None:
                self.note([(target, own.labels)])
            return target
        made = labels.expand(tuple(target.shape))
        self.note([(target, made)])
        return target

    # Positions

    def spatial(self) -> Any:
        x = self.args[0]
        labels = self.labels(x)
        results = self.shapes()
        out = tensors_in(results)[0]
        along = next((int(c) for c in self.op if c.isdigit()), 2)
        atoms = None if labels is None else channels(labels, x.dim() - along - 1)
        dim = out.dim() - along - 1
        if atoms is None or x.dim() != out.dim() or len(atoms) != out.shape[dim]:
            return self.opaque(f"{self.where} mixes channels")
        return self.emit_all(results, lambda shape: expand(atoms, shape, dim))

    def pad(self) -> Any:
        x, pads = self.args[:2]
        labels = self.labels(x)
        assert labels is not None
        padded = [x.dim() - 1 - at // 2 for at, size in enumerate(pads) if size]
        if any(varies(labels, dim) for dim in padded):
            return self.opaque(f"{self.where} pads channels")
        return self.emit_all(self.shapes(), lambda shape: _stretched(labels, shape))

    def reduce(self) -> Any:
        if len(tensors_in((self.args, self.kwargs))) > 1:
            return self.elementwise()
        x, bound = self.args[0], self.bound()
        labels = self.labels(x)
        assert labels is not None
        dims = bound.get("dim")
        over = (
            list(range(x.dim()))
            if dims is None or dims == []
            else [dims]
            if isinstance(dims, int)
            else list(dims)
        )
        over = sorted({dim % max(1, x.dim()) for dim in over}, reverse=True)
        if any(varies(labels, dim) for dim in over):
            return self.opaque(f"{self.where} mixes channels")
        for dim in over:
            labels = labels.narrow(dim, 0, 1) if bound.get("keepdim") else labels.select(dim, 0)
        return self.emit_all(self.shapes(), lambda shape: labels)

    def along(self) -> Any:
        bound = self.bound()
        labels = self.labels(self.args[0])
        dims = bound.get("dim", bound.get("dims", bound.get("dimension")))
        over = [dims] if isinstance(dims, int) else list(dims or [])
        if labels is None or not over or any(varies(labels, dim) for dim in over):
            halves = self.op == "glu" and labels is not None and channels(labels, over[0]) is not None
            return (
                self._gated(labels, over[0])
                if halves and labels is not None
                else self.opaque(f"{self.where} mixes channels")
            )
        return self.emit_all(
            self.shapes(), lambda shape: _stretched(labels, shape) if len(shape) == labels.dim() else None
        )

    def _gated(self, labels: Tensor, dim: int) -> Any:
        left, right = labels.chunk(2, dim)
        self.flow.tie_labels(left, right)
        return self.emit(left)

    # Moves

    def move(self) -> Any:
        """Move the labels as the tensor is moved."""
        known = tensors_in(self.args)
        if self.labels(known[0]) is None and len(known) == 1:
            return self.opaque(f"{self.where} is not known")

        def replace(item: Any) -> Any:
            if isinstance(item, Tensor):
                labels = self.labels(item)
                return (
                    self.flow.constant(tuple(item.shape), f"{self.where} joins channels to it")
                    if labels is None
                    else labels
                )
            if isinstance(item, list | tuple):
                return [replace(each) for each in item]
            return item

        moved = self.function(*(replace(item) for item in self.args), **self.kwargs)
        if isinstance(moved, Tensor):
            return self.emit(moved)
        results = [self.flow.fake(tuple(labels.shape), known[0]) for labels in moved]
        self.note(list(zip(results, moved, strict=True)))
        return results if isinstance(moved, list) else tuple(results)

    def join(self) -> Any:
        parts = self.args[0] if self.args else self.kwargs["tensors"]
        parts = [part for part in parts if part.shape != (0,)] or list(parts)
        dim = self.args[1] if len(self.args) > 1 else self.kwargs.get("dim", 0)
        dim = dim % parts[0].dim()
        why = f"{self.where} joins channels to another tensor"
        known = [self.labels(part) for part in parts]
        shape = list(parts[0].shape)
        shape[dim] = sum(part.shape[dim] for part in parts)
        dims = {d for labels in known if labels is not None for d in range(labels.dim()) if varies(labels, d)}
        if dims <= {dim}:
            pieces = [
                self.flow.constant(tuple(part.shape), why, dim) if labels is None else labels
                for part, labels in zip(parts, known, strict=True)
            ]
            atoms = [channels(labels, dim) for labels in pieces]
            if not dims:  # nothing varies: whatever is at an index is of one channel
                return self._emit_joined(torch.cat(pieces, dim), parts)
            return self._emit_joined(
                expand(np.concatenate([a for a in atoms if a is not None]), tuple(shape), dim), parts
            )
        first = next(labels for labels in known if labels is not None)
        for labels in known:
            if labels is None:
                self.flow.block_labels([first], why)
            elif labels is not first:
                size = min(first.shape[dim], labels.shape[dim])
                self.flow.tie_labels(first.narrow(dim, 0, size), labels.narrow(dim, 0, size))
        if any(labels is not None and varies(labels, dim) for labels in known):
            pieces = [
                self.flow.constant(tuple(p.shape), why) if lab is None else lab
                for p, lab in zip(parts, known, strict=True)
            ]
            return self._emit_joined(torch.cat(pieces, dim), parts)
        return self._emit_joined(first.narrow(dim, 0, 1).expand(shape), parts)

    def _emit_joined(self, labels: Tensor, parts: Sequence[Tensor]) -> Tensor:
        like = next(part for part in parts if self.labels(part) is not None)
        result = self.flow.fake(tuple(labels.shape), like)
        self.note([(result, labels)])
        return result

    def stack(self) -> Any:
        parts = self.args[0]
        dim = self.args[1] if len(self.args) > 1 else self.kwargs.get("dim", 0)
        known = [self.labels(part) for part in parts]
        why = f"{self.where} joins channels to another tensor"
        first, *others = [
            self.flow.constant(tuple(part.shape), why) if labels is None else labels
            for part, labels in zip(parts, known, strict=True)
        ]
        for other in others:
            self.flow.tie_labels(first, other)
        return self._emit_joined(torch.stack([first] * len(parts), dim), parts)

    def view(self) -> Any:
        """Follow a view: it scales with its channels if the numbers that it was asked for by do."""
        x = self.args[0]
        labels = self.labels(x)
        assert labels is not None
        shape = tuple(self.shapes().shape)
        if not labels.numel():
            return self.opaque(f"{self.where} is of nothing")
        sizes = self._asked(shape)
        moved = labels.reshape(shape)
        for ins, outs in view_blocks(tuple(x.shape), shape):
            if not any(varies(labels, dim) for dim in ins):
                continue
            fixed = [dim for dim in outs if isinstance(sizes[dim], int)]
            if len(outs) - len(fixed) != 1:
                if not self._is_literal() and sum(shape[dim] > 1 for dim in outs) == 1:
                    continue  # a function of torch that adds dimensions
                self.flow.block_labels([labels], f"{self.where} fixes the number of channels")
                continue
            # (C,) seen as (a, b) with a fixed: physical and original views agree if every row of a
            # keeps the same positions of b.
            for dim in fixed:
                first = moved.narrow(dim, 0, 1).expand(shape)
                if varies(moved, dim):
                    self.flow.tie_labels(moved, first)
                moved = first  # whose units are theirs
            asked = next(sizes[dim] for dim in outs if dim not in fixed)
            if asked is not None:
                self.flow.same_size(
                    asked, unique(labels), f"{self.where} takes the number of channels from elsewhere"
                )
        return self.emit(moved)

    def _is_literal(self) -> bool:
        return self.flow.context.name in (
            "view",
            "reshape",
            "unflatten",
            "resize",
            "view_copy",
            "reshape_copy",
        )

    def _asked(self, shape: tuple[int, ...]) -> list[Any]:
        """What each output dimension was asked for by.

        None where it follows from the others, its size where that is written down, or the atoms it counts.
        """
        name = self.flow.context.name
        if name == "flatten":
            return [None] * len(shape)
        args, kwargs = self.flow.context.arguments
        if name in ("view", "reshape"):
            given = args[1:] or (kwargs.get("shape", kwargs.get("size")),)
        elif name == "unflatten":
            dim, sizes = (*args[1:], *kwargs.values())[:2]
            at = dim % args[0].dim()
            given = (*args[0].shape[:at], *sizes, *args[0].shape[at + 1 :])
            # The other dimensions are as they were.
            given = tuple(
                size if at <= d < at + len(sizes) or not isinstance(size, int) else -1
                for d, size in enumerate(given)
            )
        elif name in ("view_as", "reshape_as") and (other := self.labels(args[1])) is not None:
            return [unique(other) if varies(other, dim) else size for dim, size in enumerate(shape)]
        else:
            return list(shape)
        if len(given) == 1 and not isinstance(given[0], int):
            given = tuple(given[0]) if isinstance(given[0], list | tuple) else ()
        if len(given) != len(shape):
            return list(shape)
        return [_asked_size(size) for size in given]

    def grow(self) -> Any:
        """expand and repeat: as a move, but a written number of channels stays."""
        x = self.args[0]
        labels = self.labels(x)
        assert labels is not None
        sizes = list(self.args[1])
        missing = len(sizes) - x.dim()
        context = self.flow.context
        if self.op == "expand" and context.name == "expand":
            given: Any = context.arguments[0][1:]
            given = given[0] if len(given) == 1 and isinstance(given[0], list | tuple) else given
            for dim in range(x.dim()):
                if varies(labels, dim) and dim + missing < len(given):
                    size = given[dim + missing]
                    if isinstance(size, Count):
                        self.flow.same_size(
                            size.atoms,
                            unique(labels),
                            f"{self.where} takes the number of channels from elsewhere",
                        )
                    elif size != -1:
                        self.flow.block_labels([labels], f"{self.where} fixes the number of channels")
        moved = labels.expand(sizes) if self.op == "expand" else labels.repeat(sizes)
        return self.emit(moved)

    def pick(self) -> Any:
        """select, unbind: one place of a dimension, which is known by its position."""
        bound = self.bound()
        dim = bound.get("dim", 0)
        labels = self.labels(self.args[0])
        assert labels is not None
        if varies(labels, dim):
            self._need_rigid(labels, dim)
        return self.move()

    def _need_rigid(self, labels: Tensor, dim: int) -> None:
        """Block what is picked by position, unless all positions of that dimension go or stay together."""
        (labels,) = compact(labels)
        rows = labels.movedim(dim, 0).reshape(labels.shape[dim], -1).numpy()
        self.flow.rigid(rows, unique(labels), f"{self.where} picks channels by position")

    def slice(self) -> Any:
        x, bound = self.args[0], self.bound()
        labels = self.labels(x)
        assert labels is not None
        dim, step = bound.get("dim", 0) % x.dim(), bound.get("step", 1)
        size = x.shape[dim]
        if varies(labels, dim):
            start = bound.get("start") or 0
            end = size if bound.get("end") is None else bound["end"]
            self._cut(labels, dim, start, min(end, size), step)
        return self.move()

    def _cut(self, labels: Tensor, dim: int, start: int, end: int, step: int) -> None:
        """What a slice of channels asks of them."""
        size = labels.shape[dim]
        if (start, end, step) == (0, size, 1):
            return
        why = f"{self.where} picks channels by position"
        if start < 0 or end < 0 or channels(labels, dim) is None:
            self.flow.block_labels([labels], why)
            return
        if step > 1:
            if size % step or start >= step or end != size:
                self.flow.block_labels([labels], why)
                return
            self._tie_parts(labels, dim, step, neighbours=True)
            return
        counts = {int.__index__(count) for count in counted(self.flow.context.arguments)}
        bounds = {bound for bound in (start, end) if bound not in (0, size)}
        if counts:
            part = gcd(size, *bounds)
            if bounds <= counts and part > 0:
                self._tie_parts(labels, dim, part, neighbours=False)
            else:
                self.flow.block_labels([labels], why)
            return
        # Written numbers: what lies before them keeps its place.
        before = labels.narrow(dim, 0, end if end < size else start)
        self._need_rigid_or(before, labels, dim, why)

    def _need_rigid_or(self, before: Tensor, labels: Tensor, dim: int, why: str) -> None:
        (labels,) = compact(labels)
        rows = labels.movedim(dim, 0).reshape(labels.shape[dim], -1).numpy()
        self.flow.rigid(rows, unique(before), why)

    def _tie_parts(self, labels: Tensor, dim: int, size: int, *, neighbours: bool) -> None:
        """Tie equal parts of `size` channels: position by position, or all that lie next to each other."""
        atoms = channels(labels, dim)
        assert atoms is not None
        rows = atoms.reshape(-1, size)
        first = rows[:, :1] if neighbours else rows[:1]
        self.flow.tie(rows, np.broadcast_to(first, rows.shape))

    def split(self) -> Any:
        """chunk, split: pieces of channels, equal if their size is that of a fraction."""
        bound = self.bound()
        labels = self.labels(self.args[0])
        assert labels is not None
        dim = bound.get("dim", 0)
        if varies(labels, dim):
            pieces = torch.split(labels, self.args[1], dim)
            context = self.flow.context
            scales = context.name in ("chunk", "tensor_split", "unsafe_chunk") or bool(
                counted(context.arguments)
            )
            if scales and len({piece.shape for piece in pieces}) == 1:
                for piece in pieces[1:]:
                    # After pruning the pieces are again equal only if all keep the same positions.
                    self.flow.tie_labels(pieces[0], piece)
            elif scales:
                self.flow.block_labels([labels], f"{self.where} cuts channels into unequal pieces")
            else:
                self._need_rigid(labels, dim)
        return self.move()

    def pixel_shuffle(self) -> Any:
        x, factor = self.args[:2]
        labels = self.labels(x)
        atoms = None if labels is None else channels(labels, x.dim() - 3)
        if atoms is None:
            return self.opaque(f"{self.where} mixes channels")
        if self.op == "pixel_unshuffle":
            made = np.repeat(atoms, factor * factor)
        else:
            rows = atoms.reshape(-1, factor * factor)
            self.flow.tie(rows, np.broadcast_to(rows[:, :1], rows.shape))
            made = rows[:, 0].copy()
        return self.emit_all(self.shapes(), lambda shape: expand(made, shape, len(shape) - 3))

    def channel_shuffle(self) -> Any:
        x, groups = self.args[:2]
        labels = self.labels(x)
        atoms = None if labels is None else channels(labels)
        if atoms is None:
            return self.opaque(f"{self.where} mixes channels")
        rows = atoms.reshape(groups, -1)
        self.flow.tie(rows, np.broadcast_to(rows[:1], rows.shape))
        return self.emit(expand(rows.T.reshape(-1).copy(), tuple(x.shape)))

    def index(self) -> Any:
        x, index = self.args[:2]
        labels = self.labels(x)
        if labels is None or any(self.flow.number(item) is not None for item in index if item is not None):
            return self.opaque(f"{self.where} picks by what is computed")
        if any(item is not None and varies(labels, dim) for dim, item in enumerate(index)) or any(
            item is not None and item.dtype in (torch.bool, torch.uint8) and item.dim() > 1 for item in index
        ):
            return self.opaque(f"{self.where} picks channels by position")
        return self.move()


def _asked_size(size: Any) -> Any:
    if isinstance(size, Count):
        return size.atoms
    return None if size == -1 else size


def _meets(tensor: Tensor, labels: Tensor) -> bool:
    """Whether a tensor of a fixed size has an entry per channel."""
    missing = labels.dim() - tensor.dim()
    return any(size > 1 and varies(labels, dim + missing) for dim, size in enumerate(tensor.shape))


def _stretched(labels: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Labels of another size in dimensions along which they do not differ."""
    for dim, size in enumerate(shape):
        if labels.shape[dim] != size:
            labels = labels.narrow(dim, 0, 1)
    return labels.expand(shape)


def _dense(shape: Sequence[int]) -> list[int]:
    strides = [1] * len(shape)
    for dim in range(len(shape) - 2, -1, -1):
        strides[dim] = strides[dim + 1] * max(1, shape[dim + 1])
    return strides


RULES: dict[str, Callable[[Step], Any]] = {
    **dict.fromkeys(ops.ALONG, Step.along),
    **dict.fromkeys(ops.MOVES, Step.move),
    **dict.fromkeys(ops.POINTWISE | ops.COMBINATIONS, Step.elementwise),
    **dict.fromkeys(ops.FILLS, Step.fill),
    **dict.fromkeys(ops.REDUCTIONS, Step.reduce),
    **dict.fromkeys(ops.SPATIAL, Step.spatial),
    **dict.fromkeys(ops.VIEWS, Step.view),
    **dict.fromkeys(ops.CONVOLUTIONS, Step.convolution),
    **dict.fromkeys(ops.LINEAR, Step.linear),
    **dict.fromkeys(ops.NORMS, Step.norm),
    **dict.fromkeys(("cat", "concat"), Step.join),
    **dict.fromkeys(("select", "unbind"), Step.pick),
    **dict.fromkeys(("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes"), Step.split),
    **dict.fromkeys(("expand", "repeat"), Step.grow),
    **dict.fromkeys(("pixel_shuffle", "pixel_unshuffle"), Step.pixel_shuffle),
    **dict.fromkeys(("channel_shuffle", "native_channel_shuffle"), Step.channel_shuffle),
    "native_group_norm": Step.group_norm,
    "native_layer_norm": Step.layer_norm,
    "stack": Step.stack,
    "slice": Step.slice,
    "constant_pad_nd": Step.pad,
    "copy": Step.copy,
    "index": Step.index,
}
