"""Convs, linear layers and norms."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from slimnet.graph import operations as ops
from slimnet.graph.labels import Atoms, channels, expand, unique, varies
from slimnet.graph.step import Step


def convolution(step: Step) -> Any:
    x, weight, _, stride, padding, dilation, transposed, extra, groups = step.args
    name = step.flow.layer_of(weight, "weight", _ConvNd)
    if name and step.flow.modules[name].transposed != transposed:
        name = ""  # another layer's, as in a tied decoder
    if not name or x.dim() != weight.dim() or x.dtype != weight.dtype or x.device != weight.device:
        return step.opaque(_unowned(step))
    if transposed and groups > 1:
        return step.opaque(f"{name} is a grouped transposed convolution")
    count = weight.shape[1] if transposed else weight.shape[0]
    dims = len(weight.shape[2:])
    per_dim = [
        list(given) * dims if len(given) == 1 else given for given in (stride, padding, dilation, extra)
    ]
    spans = list(zip(x.shape[2:], weight.shape[2:], *per_dim, strict=True))
    if transposed:
        sizes = [
            (size - 1) * hop - 2 * pad + gap * (k - 1) + more + 1 for size, k, hop, pad, gap, more in spans
        ]
    else:
        sizes = [(size + 2 * pad - gap * (k - 1) - 1) // hop + 1 for size, k, hop, pad, gap, _ in spans]
    reads = weight.shape[0] if transposed else weight.shape[1] * groups
    if min(sizes, default=1) < 1 or x.shape[1] != reads:
        return step.computed()  # which says what is wrong
    shape = (x.shape[0], count, *sizes)
    incoming = _incoming(step, x, 1)
    if incoming is None:
        return step.opaque(f"{name} reads channels of another dimension")
    swept = x.shape if transposed else shape
    outgoing = step.flow.produce(name, incoming, count, prod(swept[2:]), groups)
    step.layer = name
    return step.emit(expand(outgoing, shape, 1), x.dtype)


def linear(step: Step) -> Any:
    given = dict(zip(("input", "weight", "bias"), step.args, strict=False)) | step.kwargs
    x, weight = given["input"], given["weight"]
    step.args, step.kwargs = (x, weight, given.get("bias")), {}
    name = step.flow.layer_of(weight, "weight", nn.Linear)
    cast = torch.is_autocast_enabled(x.device.type)
    if not name or (x.dtype != weight.dtype and not cast) or x.device != weight.device:
        return step.opaque(_unowned(step))
    if x.shape[-1] != weight.shape[1]:
        return step.computed()
    incoming = _incoming(step, x, -1)
    if incoming is None:
        return step.opaque(f"{name} reads channels of another dimension")
    shape = (*x.shape[:-1], weight.shape[0])
    outgoing = step.flow.produce(name, incoming, weight.shape[0], prod(shape[1:-1]), 1)
    step.layer = name
    dtype = torch.get_autocast_dtype(x.device.type) if cast else x.dtype
    return step.emit(expand(outgoing, shape, -1), dtype)


def _incoming(step: Step, x: Tensor, dim: int) -> Atoms | None:
    """The atoms that a layer reads; new ones, never removed, where no layer made them."""
    labels = step.labels(x)
    if labels is None:
        fixed = step.flow.constant(tuple(x.shape), "it is the network's input")
        return channels(fixed, dim)
    return channels(labels, dim)


def _unowned(step: Step) -> str:
    """Why a layer's weights are not its own."""
    path = step.flow.context.modules[-1] if step.flow.context.modules else ""
    module = step.flow.modules[path]
    if ops.is_reparametrized(module):
        pruned = hasattr(module, "weight_mask")
        return f"{path} has a mask of torch.nn.utils.prune" if pruned else f"{path} has a parametrization"
    return f"{step.where} takes weights that are not a layer's own"


def norm(step: Step) -> Any:
    x, *tensors = [item for item in step.args if isinstance(item, Tensor)] + [
        item for item in step.kwargs.values() if isinstance(item, Tensor)
    ]
    atoms = _incoming(step, x, 1)
    if atoms is None:
        return step.opaque(f"{step.where} reads channels of another dimension")
    name = step.flow.norm_of(tensors, _NormBase)
    if name:
        step.flow.normalise(name, atoms)
        step.layer = name
    else:
        for tensor in tensors:
            labels = step.labels(tensor)
            entries = None if labels is None else channels(labels, 0)
            if entries is None or len(entries) != len(atoms):
                return step.opaque(f"{step.where} combines channels with another tensor")
            step.flow.tie(atoms, entries)
    labels = step.labels(x)
    made = expand(atoms, tuple(x.shape), 1) if labels is None else labels
    if step.op == "instance_norm":
        return step.emit(made, x.dtype)
    return _with_statistics(step, x, made, (x.shape[1],))


def group_norm(step: Step) -> Any:
    x, groups = step.args[0], step.args[6]
    labels = step.labels(x)
    name = step.flow.norm_of([t for t in step.args[1:3] if isinstance(t, Tensor)], nn.GroupNorm)
    atoms = _incoming(step, x, 1)
    if atoms is None or name not in step.flow.context.modules[-1:]:  # it has its groups from elsewhere
        return step.opaque(f"{step.where} mixes channels")
    step.flow.normalise(name, atoms)
    step.layer = name
    rows = atoms.reshape(groups, -1)
    if groups == 1:
        step.flow.block(atoms, f"{step.where} averages over all channels")
    else:  # a group of channels that is normalised together goes or stays whole
        step.flow.tie(rows, np.broadcast_to(rows[:, :1], rows.shape))
    made = expand(atoms, tuple(x.shape), 1) if labels is None else labels
    return _with_statistics(step, x, made, (x.shape[0], groups))


def layer_norm(step: Step) -> Any:
    x, dims = step.args[0], len(step.args[1])
    labels = step.labels(x)
    if labels is None:
        return step.opaque(f"{step.where} is not known")
    for tensor in step.args[2:4]:
        own = step.labels(tensor)
        step.flow.block_labels([] if own is None else [own], f"{step.where} averages over all channels")
    if any(varies(labels, x.dim() - 1 - dim) for dim in range(dims)):
        step.flow.block_labels([labels], f"{step.where} averages over all channels")
    return _with_statistics(step, x, labels, (*x.shape[: x.dim() - dims], *[1] * dims))


def _with_statistics(step: Step, x: Tensor, labels: Tensor, shape: tuple[int, ...]) -> Any:
    """What a norm returns: its output, and the statistics that it went by, of a shape, for a gradient."""
    result, others = step.flow.fake(tuple(x.shape), x), len(step.function._schema.returns) - 1
    if not torch.is_grad_enabled():
        step.note([(result, labels)])
        return (result, *[x.new_empty(0)] * others)
    statistics = [x.new_zeros(shape) for _ in range(others)]  # in memory: kernels of gradients look there
    fixed = step.flow.constant(shape, f"{step.where} returns statistics")
    step.note([(result, labels), *((each, fixed) for each in statistics)])
    return (result, *statistics)


def scripted(step: Step) -> Any:
    """A scripted module, which is kept as it is."""
    path = step.flow.context.module
    step.flow.scripted.setdefault(path, []).extend(unique(labels) for labels in step.labelled())
    return step.opaque(f"{path} is scripted by torch.jit")
