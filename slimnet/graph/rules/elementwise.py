"""Operations element by element, of one tensor or several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slimnet.graph import operations as ops
from slimnet.graph.findings import Value
from slimnet.graph.labels import spreads, unique, varies, varying
from slimnet.graph.record import tensors_in
from slimnet.graph.step import Step

_BOOLEAN = {
    "eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or", "logical_xor", "logical_not", "isnan",
    "isinf", "isfinite",
}  # fmt: skip


_OF_SEVERAL = {"log_sigmoid_forward", "native_dropout"}
"""What they return is several tensors."""


def elementwise(step: Step) -> Any:
    tensors = tensors_in((step.args, step.kwargs))
    if len(tensors) == 1 and step.op not in _OF_SEVERAL and (alone := step.labels(tensors[0])) is not None:
        return step.emit(alone, _dtype(step, tensors))
    shape = _broadcast(tensors)
    if step.in_place and tuple(shape) != tuple(step.args[0].shape):
        return step.opaque(f"{step.where} is not known")
    known = [
        (tensor, value)
        for tensor in tensors
        if (value := step.value(tensor)) is not None and value.labels is not None
    ]
    labels = _combined(step, known, shape)
    fixed = [t for t in tensors if t.numel() > 1 and all(t is not tensor for tensor, _ in known)]
    if any(_meets(tensor, labels) for tensor in fixed):
        step.flow.block_labels([labels], f"{step.where} combines channels with another tensor")
    if step.op in _OF_SEVERAL:
        return step.emit_all(step.shapes(), lambda shape: labels if shape == tuple(labels.shape) else None)
    return step.emit(labels, _dtype(step, tensors))


def _broadcast(tensors: Sequence[Tensor]) -> tuple[int, ...]:
    first, *others = [tuple(tensor.shape) for tensor in tensors]
    return first if all(other == first for other in others) else np.broadcast_shapes(first, *others)


def _combined(step: Step, known: list[tuple[Tensor, Value]], shape: Sequence[int]) -> Tensor:
    """The labels of what comes of several labelled tensors, after tying them."""
    activations = [(tensor, value) for tensor, value in known if not value.parametric]
    (first, value), *others = activations or known
    assert value.labels is not None
    labels = value.labels
    for tensor, other in others:
        labels = _tied(step, labels, other.labels)
        if step.op in ops.ADDS and activations and other.labels is not None:
            start = step.flow.fork(step.flow.number(first), step.flow.number(tensor))
            step.flow.couple(other.labels, start)
    labels = labels.expand(tuple(shape))
    if activations:
        for tensor, vector in known:
            if vector.parametric and vector.labels is not None:
                _tie_vector(step, tensor, vector.labels.expand(tuple(shape)), labels)
    return labels


def _tied(step: Step, left: Tensor, right: Any) -> Tensor:
    shape = _broadcast((left, right))
    for narrow, wide in ((left, right), (right, left)):
        if spreads(narrow, wide):
            # One channel, never removed, may meet many that are.
            step.flow.block_labels([narrow], f"{step.where} spreads it over other channels")
            if len(unique(narrow)) > 1:
                step.flow.block_labels([wide], f"{step.where} spreads one channel over several")
            return wide.expand(shape)
    step.flow.tie_labels(left.expand(shape), right.expand(shape))
    return left.expand(shape)


def _tie_vector(step: Step, tensor: Tensor, vector: Tensor, labels: Tensor) -> None:
    """Tie the entries of a parameter to the channels that they meet; keep those that meet positions."""
    if varying(vector) == varying(labels):
        step.flow.tie_labels(vector, labels)
        return
    step.flow.block_labels([vector], f"{step.where} uses it along another dimension")
    if _meets(tensor, labels):
        step.flow.block_labels([labels], f"{step.where} combines channels with another tensor")


def _dtype(step: Step, tensors: Sequence[Tensor]) -> torch.dtype:
    dtype = tensors[0].dtype
    if step.op in _BOOLEAN:
        return torch.bool
    if step.op == "_to_copy":
        return step.kwargs.get("dtype") or dtype
    if dtype.is_floating_point and all(tensor.dtype == dtype for tensor in tensors):
        return dtype
    return tensors_in(step.shapes())[0].dtype


def fill(step: Step) -> Any:
    labels = step.labels(step.args[0])
    if labels is None:
        return step.opaque(f"{step.where} is not known")
    return step.emit(labels, step.kwargs.get("dtype"))


def copy(step: Step) -> Any:
    target, source = step.args[:2]
    labels, own = step.labels(source), step.value(target)
    is_view = target._is_view() if own is None else own.root != step.flow.number(target)
    if labels is None or is_view:
        why = f"{step.where} writes it into a part of another tensor"
        step.flow.block_labels(step.labelled(), why)
        if own is not None:
            step.note([(target, own.labels)])
        return target
    made = labels.expand(tuple(target.shape))
    step.note([(target, made)])
    return target


def _meets(tensor: Tensor, labels: Tensor) -> bool:
    """Whether a tensor of a fixed size has an entry per channel."""
    missing = labels.dim() - tensor.dim()
    return any(size > 1 and varies(labels, dim + missing) for dim, size in enumerate(tensor.shape))
