"""The shapes of what convs and BatchNorms compute, without computing it."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

PLAIN = {
    nn.Conv1d: 3, nn.Conv2d: 4, nn.Conv3d: 5,
    nn.BatchNorm1d: 3, nn.BatchNorm2d: 4, nn.BatchNorm3d: 5,
}  # fmt: skip
"""Layers whose shapes are known, and the dimensions of the batches that they take."""


def result_shape(module: nn.Module, *args: Any) -> tuple[int, ...] | None:
    """The shape of the output of `module` for its one argument in eval mode.

    None where only a call can tell: of any other layer, of one that something hooks into, and of an argument
    that the layer may refuse.
    """
    if type(module) not in PLAIN or len(args) != 1 or _is_hooked(module):
        return None
    (x,) = args
    if not isinstance(x, Tensor) or x.dim() != PLAIN[type(module)]:
        return None
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        statistics = module.running_mean
        fits = statistics is not None and x.shape[1] == len(statistics) == module.num_features
        return tuple(x.shape) if fits and _alike(x, statistics) else None
    if not isinstance(module, nn.modules.conv._ConvNd) or isinstance(module.padding, str):
        return None
    if x.shape[1] != module.weight.shape[1] * module.groups or not _alike(x, module.weight):
        return None
    spans = zip(
        x.shape[2:], module.weight.shape[2:], module.stride, module.padding, module.dilation, strict=True
    )
    sizes = [
        (size + 2 * pad - step * (kernel - 1) - 1) // stride + 1 for size, kernel, stride, pad, step in spans
    ]
    return (x.shape[0], module.weight.shape[0], *sizes) if min(sizes) > 0 else None


def _alike(x: Tensor, parameter: Tensor | None) -> bool:
    return parameter is not None and (x.dtype, x.device) == (parameter.dtype, parameter.device)


def _is_hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)
