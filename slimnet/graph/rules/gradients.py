"""Gradients that a forward takes itself, as networks of energies and scores do."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from slimnet.errors import SlimnetError
from slimnet.graph.record import tensors_in
from slimnet.graph.step import Step


def gradient(step: Step) -> Any:
    """torch.autograd.grad: of each input a gradient with the same channels; nothing is computed.

    What the gradient is of is the same function of its inputs whether channels are masked or removed, and so
    its gradients are the same.
    """
    flow, given = step.flow, step.kwargs
    outputs, inputs = tensors_in(step.args[0]), step.args[1]
    weights = given.get("grad_outputs")
    weights = [weights] if isinstance(weights, Tensor) else list(weights or [])
    if not all(isinstance(item, Tensor) for item in inputs):
        raise SlimnetError(f"{step.where} takes no gradient by a tensor, and cannot be followed")
    batch = tuple(weights[0].shape[:1]) if given.get("is_grads_batched") else ()
    for output, weight in zip(outputs, weights, strict=False):
        _weigh(step, output, weight, len(batch))

    reached = 0
    for output in outputs:
        index = flow.number(output)
        reached |= 0 if index is None else flow.record.values[index].ancestors
    results: list[Tensor | None] = []
    noted: list[tuple[Tensor, Tensor | None]] = []
    for item in inputs:
        index = flow.number(item)
        unused = index is None or not reached >> index & 1
        if unused and given.get("allow_unused") and not given.get("materialize_grads"):
            results.append(None)
            continue
        shape, labels = (*batch, *item.shape), step.labels(item)
        if labels is None:
            kind = "a parameter" if flow.parameter(item) else "the network's input"
            labels = flow.constant(shape, f"it is a gradient by {kind}")
        result = flow.fake(shape, item)
        results.append(result)
        noted.append((result, labels.expand(shape)))
    step.note(noted)
    return tuple(results)


def _weigh(step: Step, output: Tensor, weight: Any, batched: int) -> None:
    """Tie the channels of an output to those of its weights, which have the same shape."""
    labels, own = step.labels(output), step.labels(weight)
    if labels is None or weight is None:
        return
    if own is None:
        step.flow.block_labels([labels], f"{step.where} combines channels with another tensor")
    else:
        step.flow.tie_labels(labels, own[0] if batched else own)
