"""Calls of torch's functions that come to one operation of ATen, known without asking torch.

Taking a call apart costs torch several times what following it does. So of the functions that networks call
most it is written down what ATen gets, to the last argument, on a processor and without autocast. Whatever
is unusual about a call has no shortcut, and is taken apart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Operation = tuple[Any, tuple[Any, ...]]
"""An operation of ATen and its arguments."""

aten = torch.ops.aten
_PLAIN = {Tensor, nn.Parameter}
within_transform = torch._C._functorch.peek_interpreter_stack


def shortcut(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Operation | None:
    """What a call comes to at the ATen level; None where that is not known beforehand."""
    first = args[0]
    if type(first) not in _PLAIN or not first.is_cpu or torch.is_autocast_enabled("cpu"):
        return None
    if torch.is_grad_enabled() or torch.is_inference_mode_enabled() or within_transform() is not None:
        return None  # a gradient needs more than the result; vmap and the like see operations first
    try:
        return SHORTCUTS[function](*args, **kwargs)
    except TypeError:  # other arguments
        return None


def _conv2d(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: Any = 1,
) -> Operation | None:
    steps, pads, gaps = _pair(stride), _pair(padding), _pair(dilation)
    plain = type(weight) in _PLAIN and (bias is None or type(bias) in _PLAIN) and type(groups) is int
    if not (steps and pads and gaps and plain) or x.dim() != 4 or x.is_complex():
        return None
    return aten.convolution.default, (x, weight, bias, steps, pads, gaps, False, [0, 0], groups)


def _pair(value: Any) -> list[int] | None:
    pair = [value, value] if type(value) is int else list(value) if type(value) is tuple else []
    return pair if len(pair) == 2 and type(pair[0]) is type(pair[1]) is int else None


def _batch_norm(
    x: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: Any = False,
    momentum: Any = 0.1,
    eps: Any = 1e-5,
) -> Operation | None:
    tensors = (running_mean, running_var, weight, bias)
    if type(training) is not bool or type(momentum) is not float or type(eps) is not float or x.dim() < 2:
        return None
    size = (x.shape[1],)
    if x.numel() <= (size[0] if training else 0) or eps <= 0:  # which torch refuses, or need not compute
        return None
    if not all(type(tensor) in _PLAIN and tensor.shape == size for tensor in tensors):
        return None
    args = (x, weight, bias, running_mean, running_var, training, momentum, eps)
    return aten.native_batch_norm.default, args


def _activation(name: str) -> Callable[..., Operation | None]:
    fresh, in_place = getattr(aten, name).default, getattr(aten, f"{name}_").default

    def found(x: Any, inplace: Any = False) -> Operation | None:
        return (in_place if inplace else fresh), (x,)

    return found


def _hardtanh(x: Any, min_val: Any = -1.0, max_val: Any = 1.0, inplace: Any = False) -> Operation | None:
    if type(min_val) is not float or type(max_val) is not float or (min_val, max_val) == (-1.0, 1.0):
        return None
    return (aten.hardtanh_ if inplace else aten.hardtanh).default, (x, min_val, max_val)


def _of_one(operation: Any) -> Callable[..., Operation | None]:
    return lambda x: (operation, (x,))


def _of_two(operation: Any) -> Callable[..., Operation | None]:
    return lambda x, other: (operation, (x, other)) if type(other) in _PLAIN else None


SHORTCUTS: dict[Any, Callable[..., Operation | None]] = {
    torch.conv2d: _conv2d,
    functional.batch_norm: _batch_norm,
    functional.relu: _activation("relu"),
    functional.silu: _activation("silu"),
    functional.hardswish: _activation("hardswish"),
    functional.hardsigmoid: _activation("hardsigmoid"),
    functional.hardtanh: _hardtanh,
    torch.sigmoid: _of_one(aten.sigmoid.default),
    torch.relu: _of_one(aten.relu.default),
    Tensor.add: _of_two(aten.add.Tensor),
    Tensor.add_: _of_two(aten.add_.Tensor),
    torch.add: _of_two(aten.add.Tensor),
    Tensor.mul: _of_two(aten.mul.Tensor),
    torch.mul: _of_two(aten.mul.Tensor),
}
