"""Layers that PyTorch trains slowly on a processor in channels_last, and quicker ways to compute the same.

oneDNN is slow to differentiate a 1x1 convolution with a stride in bfloat16, and any convolution of few pixels
and many channels, as at the end of a ResNet: as products of matrices these take a third to two thirds of the
time. And the gradient of a global average comes back in the other memory format; a layer that meets it beside
a channels_last tensor works element by element.

One way is not for speed: oneDNN of torch 2.14 writes past the end of its memory when it differentiates a 1x1
convolution with a stride and at most 7 input channels in float32, as pruned residual streams have them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Output pixels per channel up to which a product is quicker; what a larger kernel reads is copied first.
POINTWISE_PIXELS = 8
WINDOW_PIXELS = 1
LARGEST_WINDOW = 9  # taps
FEW_CHANNELS = 15  # up to which float32 does without oneDNN there; seen to fail up to 7

Pair = tuple[int, int]


@contextmanager
def quick_layers(model: nn.Module) -> Iterator[None]:
    """Have such layers of `model` computed by the quicker ways meanwhile, where they run on a processor."""
    swapped: list[tuple[nn.Module, type[nn.Module]]] = []
    try:
        for module in model.modules():
            kind = type(module)  # exactly, for a subclass may compute something else
            if kind in _QUICK:
                module.__class__ = _QUICK[kind]
                swapped.append((module, kind))
        yield
    finally:
        for module, kind in swapped:
            module.__class__ = kind


class QuickConv2d(nn.Conv2d):
    """A convolution that is a matrix product where that pays, in bfloat16, or where torch's own may crash.

    Without groups or dilation.
    """

    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W, as `torch.nn.Conv2d`."""
        if not (_is_channels_last(x) and self._is_plain(x)):
            return super().forward(x)
        if self.bias is None and _is_bfloat16(x) and self._pays(x):
            return self._product(x)
        if not _is_bfloat16(x) and self._may_crash():
            y = self._product(x)
            return y if self.bias is None else y + self.bias.view(1, -1, 1, 1)
        return super().forward(x)

    def _product(self, x: Tensor) -> Tensor:
        return cast(Tensor, _Product.apply(x, self.weight, cast(Pair, self.stride), cast(Pair, self.padding)))

    def _is_plain(self, x: Tensor) -> bool:
        plain = self.groups == 1 and self.dilation == (1, 1)
        padded = self.padding_mode == "zeros" and not isinstance(self.padding, str)
        return plain and padded and x.shape[1] == self.in_channels and len(x) > 0

    def _may_crash(self) -> bool:
        strided = self.kernel_size == (1, 1) and self.stride != (1, 1)
        return strided and self.in_channels <= FEW_CHANNELS

    def _pays(self, x: Tensor) -> bool:
        pointwise = self.kernel_size == (1, 1)
        if pointwise and self.stride != (1, 1):
            return True
        pixels = len(x) * (x.shape[2] // self.stride[0]) * (x.shape[3] // self.stride[1])
        limit = (POINTWISE_PIXELS if pointwise else WINDOW_PIXELS) * min(self.in_channels, self.out_channels)
        return pixels <= limit and self.kernel_size[0] * self.kernel_size[1] <= LARGEST_WINDOW


class QuickAverage(nn.AdaptiveAvgPool2d):
    """A pooling whose gradient is channels_last where it is the mean over all pixels."""

    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W, as `torch.nn.AdaptiveAvgPool2d`."""
        if _is_channels_last(x) and self.output_size in (1, (1, 1)):
            return cast(Tensor, _Average.apply(x))
        return super().forward(x)


_QUICK: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv2d: QuickConv2d,
    nn.AdaptiveAvgPool2d: QuickAverage,
}


def _is_channels_last(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)


def _is_bfloat16(x: Tensor) -> bool:
    """Whether a convolution of `x` is computed in bfloat16; float32's own kernels are the quicker ones."""
    if torch.is_autocast_enabled("cpu"):
        return torch.get_autocast_dtype("cpu") == torch.bfloat16
    return x.dtype == torch.bfloat16


class _Average(torch.autograd.Function):
    """The mean over height and width, N x C x 1 x 1, whose gradient is channels_last."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.shape = x.shape
        return F.adaptive_avg_pool2d(x, 1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        n, c, h, w = ctx.shape
        each = (grad / (h * w)).reshape(n, 1, 1, c)
        gradient: Tensor = each.expand(n, h, w, c).contiguous().permute(0, 3, 1, 2)
        return gradient


class _Product(torch.autograd.Function):
    """A convolution as one matrix product: all that each output pixel reads, times the weights."""

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.bfloat16)  # type: ignore[untyped-decorator]
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
        height, width = padding
        nhwc = x.permute(0, 2, 3, 1)
        padded = F.pad(nhwc, (0, 0, width, width, height, height)) if height or width else nhwc
        outgoing, incoming, *kernel = weight.shape
        windows = padded.unfold(1, kernel[0], stride[0]).unfold(2, kernel[1], stride[1])
        n, rows, columns = windows.shape[:3]
        read = windows.permute(0, 1, 2, 4, 5, 3).reshape(n * rows * columns, -1)
        matrix = weight.permute(0, 2, 3, 1).reshape(outgoing, -1)
        ctx.save_for_backward(read, matrix)
        ctx.padded, ctx.stride, ctx.padding = padded.shape, stride, padding
        ctx.windows = (n, rows, columns, *kernel, incoming)
        # Not a view of the product: what follows may change it in place.
        y = torch.empty(n, outgoing, rows, columns, dtype=x.dtype, memory_format=torch.channels_last)
        torch.mm(read, matrix.t(), out=y.permute(0, 2, 3, 1).view(-1, outgoing))
        return y

    @staticmethod
    @once_differentiable
    @torch.amp.custom_bwd(device_type="cpu")  # type: ignore[untyped-decorator]
    def backward(  # type: ignore[override]
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None, None]:
        read, matrix = ctx.saved_tensors
        pixels = grad.permute(0, 2, 3, 1).reshape(-1, len(matrix))
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = _gather((pixels @ matrix).view(ctx.windows), ctx.padded, ctx.stride, ctx.padding)
        if ctx.needs_input_grad[1]:
            grad_weight = (pixels.t() @ read).view(-1, *ctx.windows[3:]).permute(0, 3, 1, 2)
        return grad_x, grad_weight, None, None


def _gather(windows: Tensor, padded: torch.Size, stride: Pair, padding: Pair) -> Tensor:
    """The sum of windows, N x rows x columns x kernel x C, where they overlap, as N x C x H x W."""
    _, rows, columns, *kernel, _ = windows.shape
    # One tap alone adds nothing up, and loses nothing in bfloat16.
    exact = windows.dtype if kernel == [1, 1] else torch.promote_types(windows.dtype, torch.float32)
    total = windows.new_zeros(padded, dtype=exact)
    for i, j in itertools.product(range(kernel[0]), range(kernel[1])):
        down = slice(i, i + stride[0] * (rows - 1) + 1, stride[0])
        right = slice(j, j + stride[1] * (columns - 1) + 1, stride[1])
        total[:, down, right] += windows[:, :, :, i, j]
    height, width = padding
    inner = total[:, height : padded[1] - height, width : padded[2] - width]
    return inner.to(windows.dtype).contiguous().permute(0, 3, 1, 2)
