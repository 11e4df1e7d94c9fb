"""Labels: integer tensors that say for each element of an activation which atom (producer channel) it is of.

Most vary along one dimension only and are kept expanded, so that they take no memory.
"""

from __future__ import annotations

from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Atoms = NDArray[np.int64]


def expand(atoms: Atoms, shape: tuple[int, ...], dim: int = 1) -> Tensor:
    """Labels of a shape that vary along `dim` only."""
    compact = [1] * len(shape)
    compact[dim] = len(atoms)
    return torch.from_numpy(atoms).reshape(compact).expand(shape)


def compact(*labels: Tensor) -> tuple[Tensor, ...]:
    """Labels of one shape with one index of each dimension along which all of them were expanded."""
    for dim in range(labels[0].dim()):
        if labels[0].shape[dim] > 1 and all(each.stride(dim) == 0 for each in labels):
            labels = tuple(each.narrow(dim, 0, 1) for each in labels)
    return labels


def varies(labels: Tensor, dim: int) -> bool:
    """Whether labels differ along a dimension."""
    if labels.shape[dim] <= 1 or labels.stride(dim) == 0:
        return False
    (labels,) = compact(labels)
    return not bool((labels == labels.narrow(dim, 0, 1)).all())


def long_dims(labels: Tensor) -> list[int]:
    """The dimensions along which labels are not expanded."""
    return [d for d, stride in enumerate(labels.stride()) if stride and labels.shape[d] > 1]


def varying(labels: Tensor) -> list[int]:
    """The dimensions along which labels differ."""
    return [dim for dim in range(labels.dim()) if varies(labels, dim)]


def channels(labels: Tensor, dim: int = 1) -> Atoms | None:
    """The atom per index of `dim`; None where there is no such dimension, or labels differ along another."""
    if not -labels.dim() <= dim < labels.dim():
        return None
    dim = dim % labels.dim()
    shape, strides = labels.shape, labels.stride()
    if 0 in shape:
        return np.zeros(0, dtype=np.int64) if not shape[dim] else None
    for other, stride in enumerate(strides):
        if stride and other != dim and shape[other] > 1 and varies(labels, other):
            return None
    return labels.as_strided((shape[dim],), (strides[dim],)).numpy()


def unique(labels: Tensor) -> Atoms:
    """The atoms that occur, in ascending order."""
    if not labels.numel():
        return np.zeros(0, dtype=np.int64)
    one_by_one = channels(labels)
    atoms = one_by_one if one_by_one is not None else compact(labels)[0].numpy().ravel()
    ascending = bool((atoms[1:] > atoms[:-1]).all())  # mostly so, and far cheaper to see than to sort
    return atoms if ascending else np.unique(atoms)


def spreads(narrow: Tensor, wide: Tensor) -> bool:
    """Whether broadcasting `narrow` to `wide` puts one channel over several."""
    missing = wide.dim() - narrow.dim()
    return any(
        (dim < missing or narrow.shape[dim - missing] == 1) and varies(wide, dim) for dim in range(wide.dim())
    )


def view_blocks(before: tuple[int, ...], after: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
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
