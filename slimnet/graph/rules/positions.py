"""Operations over positions: pools, padding, reductions, softmax."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from slimnet.graph.labels import channels, expand, varies
from slimnet.graph.record import tensors_in
from slimnet.graph.rules.elementwise import elementwise
from slimnet.graph.step import Step

_SAME_DTYPE = {"mean", "sum", "amax", "amin"}  # of floating point


def spatial(step: Step) -> Any:
    x = step.args[0]
    labels = step.labels(x)
    results = step.shapes()
    out = tensors_in(results)[0]
    along = next((int(c) for c in step.op if c.isdigit()), 2)
    atoms = None if labels is None else channels(labels, x.dim() - along - 1)
    dim = out.dim() - along - 1
    if atoms is None or x.dim() != out.dim() or len(atoms) != out.shape[dim]:
        return step.opaque(f"{step.where} mixes channels")
    for other in tensors_in((step.args[1:], step.kwargs)):
        own = step.labels(other)
        if (
            own is not None
            and labels is not None
            and other.shape == x.shape
            and step.op.startswith("max_unpool")
        ):
            step.flow.tie_labels(labels, own)  # where each maximum was
        elif own is not None:
            step.flow.block_labels([own], f"{step.where} goes by it")
    return step.emit_all(results, lambda shape: expand(atoms, shape, dim))


def pad(step: Step) -> Any:
    x, pads = step.args[:2]
    labels = step.labels(x)
    assert labels is not None
    padded = [x.dim() - 1 - at // 2 for at, size in enumerate(pads) if size]
    if any(varies(labels, dim) for dim in padded):
        return step.opaque(f"{step.where} pads channels")
    return step.emit_all(step.shapes(), lambda shape: _stretched(labels, shape))


def reduce(step: Step) -> Any:
    if len(tensors_in((step.args, step.kwargs))) > 1:
        return elementwise(step)
    x, bound = step.args[0], step.bound()
    labels = step.labels(x)
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
        return step.opaque(f"{step.where} mixes channels")
    for dim in over:
        labels = labels.narrow(dim, 0, 1) if bound.get("keepdim") else labels.select(dim, 0)
    if step.op in _SAME_DTYPE and x.is_floating_point() and bound.get("dtype") is None:
        return step.emit(labels)
    return step.emit_all(step.shapes(), lambda shape: labels)


def along(step: Step) -> Any:
    bound = step.bound()
    labels = step.labels(step.args[0])
    dims = bound.get("dim", bound.get("dims", bound.get("dimension")))
    over = [dims] if isinstance(dims, int) else list(dims or [])
    if labels is None or not over or any(varies(labels, dim) for dim in over):
        halves = step.op == "glu" and labels is not None and channels(labels, over[0]) is not None
        return (
            _gated(step, labels, over[0])
            if halves and labels is not None
            else step.opaque(f"{step.where} mixes channels")
        )
    results = step.shapes()
    if any(tensor.dim() != labels.dim() for tensor in tensors_in(results)):
        return step.opaque(f"{step.where} is not known")
    return step.emit_all(results, lambda shape: _stretched(labels, shape))


def _gated(step: Step, labels: Tensor, dim: int) -> Any:
    left, right = labels.chunk(2, dim)
    step.flow.tie_labels(left, right)
    return step.emit(left)


def _stretched(labels: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Labels of another size in dimensions along which they do not differ."""
    for dim, size in enumerate(shape):
        if labels.shape[dim] != size:
            labels = labels.narrow(dim, 0, 1)
    return labels.expand(shape)
