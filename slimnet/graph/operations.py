"""The operations that are understood, by what they do to channels.

A target is what torch.fx records: a function, the name of a tensor's method, or a module's class.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

POINTWISE_MODULES = (
    nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish,
    nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Sigmoid, nn.LogSigmoid, nn.Tanh, nn.Softplus, nn.Softsign,
    nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d,
)  # fmt: skip
AVERAGE_POOL_MODULES = (
    nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d,
)  # fmt: skip
SPATIAL_MODULES = (
    *AVERAGE_POOL_MODULES, nn.Upsample,
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d,
    nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
    nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d, nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d,
    nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReflectionPad3d,
    nn.ReplicationPad1d, nn.ReplicationPad2d, nn.ReplicationPad3d,
    nn.CircularPad1d, nn.CircularPad2d, nn.CircularPad3d,
)  # fmt: skip

POINTWISE = {
    torch.relu, torch.relu_, F.relu, F.relu_, F.relu6, F.leaky_relu, F.leaky_relu_, F.elu, F.elu_, F.selu,
    F.celu, F.gelu, F.silu, F.mish, F.hardswish, F.hardsigmoid, F.hardtanh, F.hardtanh_, F.sigmoid, F.tanh,
    F.softplus, F.softsign, F.logsigmoid, F.dropout, F.dropout2d, torch.sigmoid, torch.tanh,
    torch.clamp, torch.clamp_min,
    torch.clone, torch.abs, torch.sqrt, torch.exp, torch.square, operator.neg, operator.pow, torch.pow,
    "relu", "relu_", "sigmoid", "sigmoid_", "tanh", "clamp", "clamp_", "clamp_min", "clamp_min_",
    "contiguous", "clone", "detach", "to",
    "float", "double", "half", "bfloat16", "abs", "sqrt", "exp", "square", "pow", "neg",
}  # fmt: skip
RELUS = {torch.relu, torch.relu_, F.relu, F.relu_, "relu", "relu_"}
AVERAGE_POOLS = {
    F.avg_pool1d, F.avg_pool2d, F.avg_pool3d,
    F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d,
}  # fmt: skip
SPATIAL = AVERAGE_POOLS | {
    F.max_pool1d, F.max_pool2d, F.max_pool3d, torch.max_pool1d, torch.max_pool2d, torch.max_pool3d,
    F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d, F.interpolate, F.upsample, F.pad,
}  # fmt: skip
AVERAGES = {torch.mean, "mean"}
REDUCTIONS = {*AVERAGES, torch.sum, torch.amax, "sum", "amax"}
ADDS = {
    operator.add, operator.iadd, operator.sub, operator.isub, torch.add, torch.sub,
    "add", "add_", "sub", "sub_",
}  # fmt: skip
PRODUCTS = {
    operator.mul, operator.imul, operator.truediv, torch.mul, torch.div,
    "mul", "mul_", "div", "div_",
}  # fmt: skip
CONCATS = {torch.cat, torch.concat, torch.concatenate}
FLATTENS = {torch.flatten, "flatten"}
RESHAPES = {torch.reshape, "reshape", "view"}
TRANSPOSES = {torch.transpose, torch.permute, "transpose", "permute"}
SQUEEZES = {torch.squeeze, torch.unsqueeze, "squeeze", "unsqueeze"}
CHUNKS = {torch.chunk, "chunk"}
MOVES = CONCATS | FLATTENS | RESHAPES | TRANSPOSES | SQUEEZES | CHUNKS | {operator.getitem, "expand_as"}

# What a tensor can be asked without telling how many channels it has.
FACTS = {
    "dim", "ndim", "ndimension", "dtype", "device", "is_cuda", "layout", "requires_grad", "is_floating_point",
}  # fmt: skip


def attribute(node: fx.Node) -> str | None:
    """The name of the method or attribute that a node asks its first argument for."""
    if node.op == "call_method":
        return str(node.target)
    return str(node.args[1]) if node.target is getattr else None


def in_place(node: fx.Node, module: nn.Module | None) -> bool:
    """Whether a node overwrites its first argument."""
    if module is not None:
        return bool(getattr(module, "inplace", False))
    if node.target in (operator.iadd, operator.isub, operator.imul):
        return True
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return bool(node.kwargs.get("inplace")) or (name.endswith("_") and not name.endswith("__"))


def describe(node: fx.Node) -> str:
    """An operation in words: its name, and the module whose forward calls it."""
    target: Any = node.target
    name = target if isinstance(target, str) else getattr(target, "__name__", str(target))
    stack: dict[str, tuple[str, Any]] = node.meta.get("nn_module_stack") or {}
    owner = [path for path, _ in stack.values() if path and path != name]
    return f"{name} in {owner[-1]}" if owner else name


def is_reparametrized(module: nn.Module) -> bool:
    """Whether something computes a layer's weights: weight norm, spectral norm, masks of other tools."""
    hooked = not module._parameters.keys().isdisjoint(("weight_orig", "weight_g"))
    return hooked or nn.utils.parametrize.is_parametrized(module)
