"""Operations that move elements: views, slices, splits, joins, shuffles."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import partial
from math import gcd
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slimnet.graph.counts import Count, sizes_in
from slimnet.graph.labels import Atoms, channels, compact, expand, unique, varies, varying, view_blocks
from slimnet.graph.record import substitute, tensors_in
from slimnet.graph.settings import Setting
from slimnet.graph.step import Step


def move(step: Step) -> Any:
    """Move the labels as the tensor is moved."""
    known = tensors_in(step.args)
    if step.labels(known[0]) is None and len(known) == 1:
        return step.opaque(f"{step.where} is not known")

    moved = step.function(*substitute(tuple(step.args), partial(_followed, step)), **step.kwargs)
    if isinstance(moved, Tensor):
        return step.emit(moved)
    results = [step.flow.fake(tuple(labels.shape), known[0]) for labels in moved]
    step.note(list(zip(results, moved, strict=True)))
    return results if isinstance(moved, list) else tuple(results)


def _followed(step: Step, tensor: Tensor) -> Tensor:
    """The labels of a tensor; blocked ones of what has none."""
    labels = step.labels(tensor)
    if labels is None:
        return step.flow.constant(tuple(tensor.shape), f"{step.where} joins channels to another tensor")
    return labels


def join(step: Step) -> Any:
    parts = step.args[0] if step.args else step.kwargs["tensors"]
    parts = [part for part in parts if part.shape != (0,)] or list(parts)
    dim = step.args[1] if len(step.args) > 1 else step.kwargs.get("dim", 0)
    dim = dim % parts[0].dim()
    why = f"{step.where} joins channels to another tensor"
    known = [step.labels(part) for part in parts]
    shape = list(parts[0].shape)
    shape[dim] = sum(part.shape[dim] for part in parts)
    dims = {each for labels in known if labels is not None for each in varying(labels)}
    if dims <= {dim}:
        pieces = [_followed(step, part) for part in parts]
        atoms = [channels(labels, dim) for labels in pieces]
        if not dims:  # nothing varies: whatever is at an index is of one channel
            return _emit_joined(step, torch.cat(pieces, dim), parts)
        return _emit_joined(
            step, expand(np.concatenate([a for a in atoms if a is not None]), tuple(shape), dim), parts
        )
    first = next(labels for labels in known if labels is not None)
    for labels in known:
        if labels is None:
            step.flow.block_labels([first], why)
        elif labels is not first:
            size = min(first.shape[dim], labels.shape[dim])
            step.flow.tie_labels(first.narrow(dim, 0, size), labels.narrow(dim, 0, size))
    if dim in dims:
        return _emit_joined(step, torch.cat([_followed(step, part) for part in parts], dim), parts)
    return _emit_joined(step, first.narrow(dim, 0, 1).expand(shape), parts)


def _emit_joined(step: Step, labels: Tensor, parts: Sequence[Tensor]) -> Tensor:
    like = next(part for part in parts if step.labels(part) is not None)
    result = step.flow.fake(tuple(labels.shape), like)
    step.note([(result, labels)])
    return result


def stack(step: Step) -> Any:
    parts = step.args[0]
    dim = step.args[1] if len(step.args) > 1 else step.kwargs.get("dim", 0)
    first, *others = [_followed(step, part) for part in parts]
    for other in others:
        step.flow.tie_labels(first, other)
    return _emit_joined(step, torch.stack([first] * len(parts), dim), parts)


def view(step: Step) -> Any:
    """Follow a view: it scales with its channels if the numbers that it was asked for by do."""
    x = step.args[0]
    labels = step.labels(x)
    assert labels is not None
    shape = tuple(step.shapes().shape)
    if not labels.numel():
        return step.opaque(f"{step.where} is of nothing")
    sizes = _asked(step, shape)
    moved = labels.reshape(shape)
    for ins, outs in view_blocks(tuple(x.shape), shape):
        if not any(varies(labels, dim) for dim in ins):
            continue
        scaling = _scaling(sizes, outs, len(shape) - 1)
        if scaling is None:
            if not _is_literal(step) and sum(varies(moved, dim) for dim in outs) == 1:
                continue  # a function of torch that adds dimensions, or takes them apart as they were
            step.flow.block_labels([labels], f"{step.where} fixes the number of channels")
            continue
        # (C,) seen as (a, b) with a fixed: physical and original views agree if every row of a
        # keeps the same positions of b.
        for dim in outs:
            if dim == scaling:
                continue
            first = moved.narrow(dim, 0, 1).expand(shape)
            if varies(moved, dim):
                step.flow.tie_labels(moved, first)
            moved = first  # whose units are theirs
        _measure(step, sizes[scaling], labels, channels(moved, scaling))
    return step.emit(moved)


def _scaling(sizes: Sequence[Any], outs: Sequence[int], last: int) -> int | None:
    """Which of the dimensions that channels are seen as changes with their number; None if none does.

    It is the one without a written number. Where a module's attribute says how often the last dimension is
    cut, (N, L, heads, -1), it is a number of heads, and these go whole.
    """
    free = [dim for dim in outs if sizes[dim] is None or type(sizes[dim]) is Count]
    named = [dim for dim in outs if type(sizes[dim]) is Setting]
    heads = len(outs) > 1 and outs[-1] == last and sizes[last] is None and bool(named)
    if len(free) == 1 and not heads:
        return free[0]
    return named[0] if named and len(free) <= 1 else None


def _measure(step: Step, size: Any, labels: Tensor, atoms: Atoms | None) -> None:
    """Have the number by which a dimension of channels was asked for change with them."""
    flow, why = step.flow, f"{step.where} takes the number of channels from elsewhere"
    if size is None:
        return
    if type(size) is Setting and atoms is not None and flow.settings.is_whole(size):
        flow.tie(size.atoms, atoms)
    else:
        flow.same_size(size.atoms, unique(labels), why)
    flow.claimed.append(size)


def _is_literal(step: Step) -> bool:
    return step.flow.context.name in (
        "view",
        "reshape",
        "unflatten",
        "resize",
        "view_copy",
        "reshape_copy",
    )


def _asked(step: Step, shape: tuple[int, ...]) -> list[Any]:
    """What each output dimension was asked for by.

    None where it follows from the others, its size where that is written down, or the count or setting.
    """
    name = step.flow.context.name
    if name == "flatten":
        return [None] * len(shape)
    args, kwargs = step.flow.context.arguments
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
    elif name in ("view_as", "reshape_as") and (other := step.labels(args[1])) is not None:
        return [
            Count(size, unique(other), step.flow.escape) if varies(other, dim) else size
            for dim, size in enumerate(shape)
        ]
    else:
        return list(shape)
    if len(given) == 1 and not isinstance(given[0], int):
        given = tuple(given[0]) if isinstance(given[0], list | tuple) else ()
    if len(given) != len(shape):
        return list(shape)
    return [_asked_size(size) for size in given]


def grow(step: Step) -> Any:
    """expand and repeat: as a move, but a written number of channels stays."""
    x = step.args[0]
    labels = step.labels(x)
    assert labels is not None
    sizes = list(step.args[1])
    missing = len(sizes) - x.dim()
    context = step.flow.context
    if step.op == "expand" and context.name == "expand":
        given: Any = context.arguments[0][1:]
        given = given[0] if len(given) == 1 and isinstance(given[0], list | tuple) else given
        for dim in range(x.dim()):
            if varies(labels, dim) and dim + missing < len(given):
                size = given[dim + missing]
                if type(size) is Count or type(size) is Setting:
                    _measure(step, size, labels, channels(labels, dim))
                elif size != -1:
                    step.flow.block_labels([labels], f"{step.where} fixes the number of channels")
    moved = labels.expand(sizes) if step.op == "expand" else labels.repeat(sizes)
    return step.emit(moved)


def pick(step: Step) -> Any:
    """select, unbind: one place of a dimension, which is known by its position."""
    bound = step.bound()
    dim = bound.get("dim", 0)
    labels = step.labels(step.args[0])
    assert labels is not None
    if varies(labels, dim):
        _need_rigid(step, labels, dim)
    return move(step)


def _need_rigid(step: Step, labels: Tensor, dim: int, kept: Tensor | None = None) -> None:
    """Block what is picked by position, unless all positions of that dimension go or stay together.

    `kept` are the labels that must stay; None for all.
    """
    atoms = unique(labels if kept is None else kept)
    (labels,) = compact(labels)
    rows = labels.movedim(dim, 0).reshape(labels.shape[dim], -1).numpy()
    step.flow.rigid(rows, atoms, f"{step.where} picks channels by position")


def slice(step: Step) -> Any:
    x, bound = step.args[0], step.bound()
    labels = step.labels(x)
    assert labels is not None
    dim, stride = bound.get("dim", 0) % x.dim(), bound.get("step", 1)
    size = x.shape[dim]
    if varies(labels, dim):
        start = bound.get("start") or 0
        end = size if bound.get("end") is None else bound["end"]
        _cut(step, labels, dim, start, min(end, size), stride)
    return move(step)


def _cut(step: Step, labels: Tensor, dim: int, start: int, end: int, stride: int) -> None:
    """What a slice of channels asks of them."""
    size = labels.shape[dim]
    if (start, end, stride) == (0, size, 1):
        return
    why = f"{step.where} picks channels by position"
    if start < 0 or end < 0 or channels(labels, dim) is None:
        step.flow.block_labels([labels], why)
        return
    if stride > 1:
        if size % stride or start >= stride or end != size:
            step.flow.block_labels([labels], why)
            return
        _tie_parts(step, labels, dim, stride, neighbours=True)
        return
    asked = sizes_in(step.flow.context.arguments)
    bounds = {bound for bound in (start, end) if bound not in (0, size)}
    if len(asked) == 1 and type(asked[0]) is Setting and bounds == {int.__index__(asked[0])}:
        _measure(step, asked[0], labels, channels(labels.narrow(dim, 0, bounds.pop()), dim))
        return
    counts = [count for count in asked if type(count) is Count]
    if counts:
        part = gcd(size, *bounds)
        if bounds <= {int.__index__(count) for count in counts} and part > 0:
            step.flow.claimed += counts
            _tie_parts(step, labels, dim, part, neighbours=False)
        else:
            step.flow.block_labels([labels], why)
        return
    # Written numbers: what lies before them keeps its place.
    _need_rigid(step, labels, dim, labels.narrow(dim, 0, end if end < size else start))


def _tie_parts(step: Step, labels: Tensor, dim: int, size: int, *, neighbours: bool) -> None:
    """Tie equal parts of `size` channels: position by position, or all that lie next to each other."""
    atoms = channels(labels, dim)
    assert atoms is not None
    rows = atoms.reshape(-1, size)
    first = rows[:, :1] if neighbours else rows[:1]
    step.flow.tie(rows, np.broadcast_to(first, rows.shape))


def split(step: Step) -> Any:
    """chunk, split: pieces of channels, equal if their size is that of a fraction."""
    bound = step.bound()
    labels = step.labels(step.args[0])
    assert labels is not None
    dim = bound.get("dim", 0)
    if varies(labels, dim):
        pieces = torch.split(labels, step.args[1], dim)
        context = step.flow.context
        asked = sizes_in(context.arguments)
        counts = [count for count in asked if type(count) is Count]
        scales = context.name in ("chunk", "tensor_split", "unsafe_chunk") or bool(counts)
        step.flow.claimed += counts
        if not counts and len(asked) == len(pieces) and channels(labels, dim) is not None:
            for setting, piece in zip(asked, pieces, strict=True):  # sections that are kept by a module
                _measure(step, setting, piece, channels(piece, dim))
        elif scales and len({piece.shape for piece in pieces}) == 1:
            for piece in pieces[1:]:
                # After pruning the pieces are again equal only if all keep the same positions.
                step.flow.tie_labels(pieces[0], piece)
        elif scales:
            step.flow.block_labels([labels], f"{step.where} cuts channels into unequal pieces")
        else:
            _need_rigid(step, labels, dim)
    return move(step)


def pixel_shuffle(step: Step) -> Any:
    x, factor = step.args[:2]
    labels = step.labels(x)
    atoms = None if labels is None else channels(labels, x.dim() - 3)
    if atoms is None:
        return step.opaque(f"{step.where} mixes channels")
    if step.op == "pixel_unshuffle":
        made = np.repeat(atoms, factor * factor)
    else:
        rows = atoms.reshape(-1, factor * factor)
        step.flow.tie(rows, np.broadcast_to(rows[:, :1], rows.shape))
        made = rows[:, 0].copy()
    return step.emit_all(step.shapes(), lambda shape: expand(made, shape, len(shape) - 3))


def channel_shuffle(step: Step) -> Any:
    x, groups = step.args[:2]
    labels = step.labels(x)
    atoms = None if labels is None else channels(labels)
    if atoms is None:
        return step.opaque(f"{step.where} mixes channels")
    rows = atoms.reshape(groups, -1)
    step.flow.tie(rows, np.broadcast_to(rows[:1], rows.shape))
    return step.emit(expand(rows.T.reshape(-1).copy(), tuple(x.shape)))


def index(step: Step) -> Any:
    x, index = step.args[:2]
    labels = step.labels(x)
    picks = [value for item in index if item is not None and (value := step.value(item)) is not None]
    if labels is None or any(pick.labels is not None or not pick.parametric for pick in picks):
        return step.opaque(f"{step.where} picks by what is computed")
    if any(item is not None and varies(labels, dim) for dim, item in enumerate(index)) or any(
        item is not None and item.dtype in (torch.bool, torch.uint8) and item.dim() > 1 for item in index
    ):
        return step.opaque(f"{step.where} picks channels by position")
    return step.emit(step.function(labels, index))


def _asked_size(size: Any) -> Any:
    if type(size) is Count or type(size) is Setting:
        return size
    return None if size == -1 else operator.index(size)
