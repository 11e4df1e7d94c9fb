"""Layers that PyTorch trains slowly on a processor in channels_last, and quicker ways to the same numbers.

oneDNN is slow to differentiate a 1x1 convolution with a stride, and any convolution of few pixels and many
channels, as at the end of a ResNet: as products of matrices these take a third to two thirds of the time.
And the gradient of a global average comes back in the other memory format; a layer that meets it beside a
channels_last tensor works element by element.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Output pixels per channel up to which a product is quicker; what a larger kernel reads is copied first.
POINTWISE_LIMIT = 8
LIMIT = 1

Pair = tuple[int, int]


@contextmanager
def quick_layers(model: nn.Module) -> Iterator[None]:
    """Have such layers of `model` computed by the quicker ways meanwhile, where they meet channels_last."""
    swapped: list[nn.Module] = []
    for module in model.modules():
        forward = _quick_forward(module)
        if forward is not None and "forward" not in vars(module):
            vars(module)["forward"] = MethodType(forward, module)
            swapped.append(module)
    try:
        yield
    finally:
        for module in swapped:
            del vars(module)["forward"]


def _quick_forward(module: nn.Module) -> Callable[..., Tensor] | None:
    # By type, for a subclass may compute something else.
    if type(module) is nn.AdaptiveAvgPool2d and module.output_size in (1, (1, 1)):
        return _average
    if type(module) is nn.Conv2d and _is_plain(module):
        return _convolve
    return None


def _is_plain(conv: nn.Conv2d) -> bool:
    plain = conv.groups == 1 and conv.bias is None and conv.dilation == (1, 1)
    return plain and conv.padding_mode == "zeros" and not isinstance(conv.padding, str)


def _average(pool: nn.AdaptiveAvgPool2d, x: Tensor) -> Tensor:
    if _is_channels_last(x):
        return cast(Tensor, _Average.apply(x))
    return F.adaptive_avg_pool2d(x, 1)


def _convolve(conv: nn.Conv2d, x: Tensor) -> Tensor:
    stride, padding = cast(Pair, conv.stride), cast(Pair, conv.padding)
    if _is_channels_last(x) and _pays(conv, x):
        return cast(Tensor, _Product.apply(x, conv.weight, stride, padding))
    return F.conv2d(x, conv.weight, None, stride, padding)


def _is_channels_last(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)


def _pays(conv: nn.Conv2d, x: Tensor) -> bool:
    pointwise = conv.kernel_size == (1, 1)
    if pointwise and conv.stride != (1, 1):
        return True
    pixels = len(x) * (x.shape[2] // conv.stride[0]) * (x.shape[3] // conv.stride[1])
    limit = POINTWISE_LIMIT if pointwise else LIMIT
    return pixels <= limit * min(conv.in_channels, conv.out_channels)


class _Average(torch.autograd.Function):
    """The mean over height and width, N x C x 1 x 1, whose gradient is channels_last."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.shape = x.shape
        return F.adaptive_avg_pool2d(x, 1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        n, c, h, w = ctx.shape
        share = (grad / (h * w)).view(n, 1, 1, c)
        gradient: Tensor = share.expand(n, h, w, c).contiguous().permute(0, 3, 1, 2)
        return gradient


class _Product(torch.autograd.Function):
    """A convolution as one matrix product: all that each output pixel reads, times the weights."""

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.bfloat16)  # type: ignore[untyped-decorator]
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
        height, width = padding
        nhwc = x.permute(0, 2, 3, 1)
        padded = F.pad(nhwc, (0, 0, width, width, height, height)) if height or width else nhwc
        windows = _windows(padded, cast(Pair, weight.shape[2:]), stride)
        read = windows.reshape(-1, windows[0, 0, 0].numel())
        matrix = weight.permute(0, 2, 3, 1).flatten(1)
        ctx.save_for_backward(read, matrix)
        ctx.padded, ctx.windows, ctx.stride, ctx.padding = padded.shape, windows.shape, stride, padding
        return (read @ matrix.t()).view(*windows.shape[:3], -1).permute(0, 3, 1, 2)

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        read, matrix = ctx.saved_tensors
        rows = grad.permute(0, 2, 3, 1).reshape(-1, len(matrix))
        grad_weight = (rows.t() @ read).view(-1, *ctx.windows[3:]).permute(0, 3, 1, 2)
        grad_read = (rows @ matrix).view(ctx.windows)
        padded = grad_read.new_zeros(ctx.padded)
        kernel = ctx.windows[3:5]
        windows = _windows(padded, kernel, ctx.stride)
        for i in range(kernel[0]):  # tap by tap, for the windows overlap
            for j in range(kernel[1]):
                windows[:, :, :, i, j] += grad_read[:, :, :, i, j]
        height, width = ctx.padding
        inner = padded[:, height : len(padded[0]) - height, width : len(padded[0, 0]) - width]
        return inner.contiguous().permute(0, 3, 1, 2), grad_weight, None, None


def _windows(x: Tensor, kernel: Pair, stride: Pair) -> Tensor:
    """A view of what each output pixel reads of `x`, N x H x W x C: N x rows x columns x kernel x C."""
    return x.unfold(1, kernel[0], stride[0]).unfold(2, kernel[1], stride[1]).permute(0, 1, 2, 4, 5, 3)
