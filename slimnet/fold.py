"""BatchNorm folded into the convolution before it, as every deployment does."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from slimnet.modes import evaluating

Model = TypeVar("Model", bound=nn.Module)


def fold(model: Model) -> Model:
    """A copy for inference in which each BatchNorm that alone reads a conv or linear layer is part of it.

    Outputs in eval mode stay the same up to rounding; the copy cannot be trained on or pruned.

    Args:
        model: left as it was; BatchNorms that stand elsewhere stay.
    """
    folded = copy.deepcopy(model).eval()
    with evaluating(model):
        nodes = fx.Tracer().trace(model)
    for node in nodes.nodes:
        if node.op != "call_module" or len(node.users) != 1:
            continue
        user = next(iter(node.users))
        if user.op != "call_module":
            continue
        layer, norm = folded.get_submodule(str(node.target)), folded.get_submodule(str(user.target))
        if not isinstance(norm, _BatchNorm) or norm.running_mean is None:
            continue
        if isinstance(layer, _ConvNd):
            _replace(folded, str(node.target), fuse_conv_bn_eval(layer, norm, transpose=layer.transposed))
        elif isinstance(layer, nn.Linear):
            _replace(folded, str(node.target), fuse_linear_bn_eval(layer, norm))
        else:
            continue
        _replace(folded, str(user.target), nn.Identity())
    return folded


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
