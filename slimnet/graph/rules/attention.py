"""Products of matrices of activations, each pair of a batch alone: heads of attention are such a batch."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from slimnet.graph.labels import varies, varying
from slimnet.graph.step import Step


def product(step: Step) -> Any:
    """matmul, bmm: (..., n, k) by (..., k, m)."""
    left, right = step.args[:2]
    return _per_matrix(step, [left, right], (left.shape[-2:-1], right.shape[-1:]))


def product_sum(step: Step) -> Any:
    """baddbmm: the same, added to another tensor."""
    added, left, right = step.args[:3]
    return _per_matrix(step, [left, right], (left.shape[-2:-1], right.shape[-1:]), added)


def attention(step: Step) -> Any:
    """scaled_dot_product_attention of queries (..., L, E), keys (..., S, E) and values (..., S, V)."""
    given = dict(zip(("query", "key", "value", "attn_mask"), step.args, strict=False)) | step.kwargs
    query, key, value = given["query"], given["key"], given["value"]
    if given.get("enable_gqa"):
        return step.opaque(f"{step.where} shares heads")
    return _per_matrix(
        step, [query, key, value], (query.shape[-2:-1], value.shape[-1:]), given.get("attn_mask")
    )


def torchs(step: Step) -> Any:
    """All that nn.MultiheadAttention does, with weights of queries, keys and values in one."""
    return step.opaque(
        f"{step.where} has the width and the heads that it was built with (attention of Linear layers can "
        "lose heads)"
    )


def _per_matrix(step: Step, factors: list[Tensor], sizes: Any, added: Tensor | None = None) -> Any:
    """What becomes of a batch of matrices, which are kept or removed as wholes."""
    known = [labels for factor in factors if (labels := step.labels(factor)) is not None]
    alone = all(dim < labels.dim() - 2 for labels in known for dim in varying(labels))
    batch = known[0].shape[:-2] if known else ()
    shape = (*batch, *sizes[0], *sizes[1])
    if len(known) < len(factors) or not alone or any(k.shape[:-2] != batch for k in known):
        return step.opaque(f"{step.where} mixes channels")
    first, *others = (each[..., :1, :1].expand(shape) for each in known)
    for other in others:
        step.flow.tie_labels(first, other)
    if added is not None and not _added(step, added, first):
        return step.opaque(f"{step.where} combines channels with another tensor")
    return step.emit(first)


def _added(step: Step, added: Tensor, labels: Tensor) -> bool:
    """Tie what is added to the matrices that it is added to; False where that cannot be."""
    own, missing = step.labels(added), labels.dim() - added.dim()
    met = any(added.shape[dim - missing] > 1 for dim in varying(labels) if dim >= missing)
    if own is None or not varying(own):
        return not met
    if any(varies(own, dim) for dim in range(max(0, own.dim() - 2), own.dim())):
        return False
    step.flow.tie_labels(labels, own[..., :1, :1].expand(labels.shape))
    return True
