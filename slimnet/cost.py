"""What a network costs: parameters and multiply-accumulates."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from slimnet.modes import evaluating


def count_params(model: nn.Module) -> int:
    """The number of parameters, shared ones once.

    Example:
        >>> slimnet.count_params(torch.nn.Linear(10, 5))
        55
    """
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: nn.Module, example_input: Tensor) -> int:
    """Multiply-accumulates per image in convolutions and linear layers (biases not counted).

    Args:
        model: left as it was, its training mode included.
        example_input: (N, ...) on the model's device; the count is divided by N.

    Example:
        >>> slimnet.count_macs(torch.nn.Conv2d(3, 8, 3, padding=1), torch.zeros(1, 3, 32, 32))
        221184
    """
    macs = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal macs
        if isinstance(module, nn.Linear):
            macs += output.numel() * module.in_features
        elif isinstance(module, _ConvNd):
            # Every position of the smaller side (a transposed conv's input) meets the whole kernel once.
            positions = inputs[0] if module.transposed else output
            macs += positions.shape[0] * positions.shape[2:].numel() * module.weight.numel()

    layers = [module for module in model.modules() if isinstance(module, nn.Linear | _ConvNd)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    try:
        with torch.no_grad(), evaluating(model):
            model(example_input)
    finally:
        for hook in hooks:
            hook.remove()
    return macs // example_input.shape[0]
