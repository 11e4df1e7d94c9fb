"""BatchNorm folded into the convolution before it, as every deployment does."""

from __future__ import annotations

import copy
from collections import Counter
from typing import TypeGuard, TypeVar

from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.fusion import fuse_conv_bn_eval

from slimnet.errors import SlimnetError
from slimnet.graph.operations import is_reparametrized
from slimnet.modes import evaluating, unchanged

Model = TypeVar("Model", bound=nn.Module)


def fold(model: Model) -> Model:
    """A copy for inference in which each BatchNorm that alone reads a conv layer is part of it.

    Outputs in eval mode stay the same up to rounding; the copy cannot be trained on or pruned. BatchNorms
    that stand elsewhere stay: behind a linear layer (which dimension they normalise depends on the input),
    behind a transposed conv with groups, or where the conv or the BatchNorm is used more than once.

    Args:
        model: left as it was.

    Raises:
        SlimnetError: torch.fx cannot trace the model.

    Example:
        >>> model = slimnet.models.resnet([1], width=8).eval()
        >>> x = torch.randn(2, 3, 8, 8)
        >>> torch.allclose(slimnet.fold(model)(x), model(x), atol=1e-5)
        True
    """
    folded = copy.deepcopy(model).eval()
    with evaluating(model), unchanged(model):
        try:
            nodes = _Tracer().trace(model)
        except Exception as error:
            raise SlimnetError(
                f"{type(model).__name__} cannot be traced, and so not folded: {error}"
            ) from error
    uses = _uses(model, nodes)
    for node in nodes.nodes:
        if node.op != "call_module" or len(node.users) != 1:
            continue
        user = next(iter(node.users))
        if user.op != "call_module" or uses[str(node.target)] != 1 or uses[str(user.target)] != 1:
            continue
        layer, norm = folded.get_submodule(str(node.target)), folded.get_submodule(str(user.target))
        if _fuses(layer) and isinstance(norm, _BatchNorm) and norm.running_mean is not None:
            folded.set_submodule(str(node.target), fuse_conv_bn_eval(layer, norm, transpose=layer.transposed))
            folded.set_submodule(str(user.target), nn.Identity())
    return folded.eval()


class _Tracer(fx.Tracer):
    """torch's tracer, which takes convs and BatchNorms of a user's own class whole."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        known = isinstance(m, _ConvNd | _BatchNorm)
        return super().is_leaf_module(m, module_qualified_name) or (known and _computes_as_torch(m))


def _computes_as_torch(module: nn.Module) -> bool:
    """Whether a layer of a user's own class computes as the torch class it derives from."""
    bases = [base for base in type(module).__mro__ if base.__module__.startswith("torch.nn.modules.")]
    return all(
        getattr(type(module), name, None) is getattr(bases[0], name, None)
        for name in ("forward", "_conv_forward")
    )


def _fuses(layer: nn.Module) -> TypeGuard[_ConvNd]:
    """Whether torch can fuse a BatchNorm into it: not where a transposed conv has groups."""
    if not isinstance(layer, _ConvNd) or is_reparametrized(layer):
        return False
    return not (layer.transposed and layer.groups > 1)


def _uses(model: nn.Module, nodes: fx.Graph) -> dict[str, int]:
    """How often each called module is used: called, under any of its names, or its parameters read."""
    called = Counter(
        model.get_submodule(str(node.target)) for node in nodes.nodes if node.op == "call_module"
    )
    read = Counter(str(node.target).rpartition(".")[0] for node in nodes.nodes if node.op == "get_attr")
    names = {str(node.target) for node in nodes.nodes if node.op == "call_module"}
    return {name: called[model.get_submodule(name)] + read[name] for name in names}
