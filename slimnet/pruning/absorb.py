"""Absorption: what a removed channel still emits, moved into the layers that read it.

A channel whose γ is 0 does not output 0 but act(β), and one whose γ is small outputs act(N(β, γ²)). The mean
of that is carried through the traced network as a map, so that a conv with zero padding sees it exactly where
its taps lie inside the image; what a reader makes of the removed channels, averaged over positions, goes into
its bias or the following BatchNorm's running mean. Exact at γ = 0 for 1x1 convs, linear layers and convs
without padding.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from slimnet.graph import operations as ops
from slimnet.graph.flow import holds_tensor, norm_behind
from slimnet.modes import evaluating
from slimnet.pruning.plan import PruningPlan

# Abscissae and weights of E[f(z)], z ~ N(0, 1), for activations without a closed form.
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(64)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


@dataclass(frozen=True)
class Moments:
    """Mean and variance of an activation, each of its shape for a batch of one."""

    mean: Tensor
    var: Tensor


def absorb_constants(model: nn.Module, plan: PruningPlan) -> None:
    """Move the mean output of the channels that `plan` removes into what reads them; changes `model`."""
    cuts = plan.cuts()
    env: dict[fx.Node, Any] = {}
    parameter = next(model.parameters())
    example = torch.zeros((1, *plan.graph.input_shape[1:]), dtype=parameter.dtype, device=parameter.device)
    with torch.no_grad(), evaluating(model):
        for node in plan.graph.nodes.nodes:
            if node.op == "output":
                return
            if node.op == "placeholder":
                env[node] = node.args[0] if env else Moments(example, torch.ones_like(example))
                continue
            module = model.get_submodule(str(node.target)) if node.op == "call_module" else None
            env[node] = _moments(model, node, module, env)
            if ops.in_place(node, module):
                env[node.args[0]] = env[node]
            if isinstance(module, _ConvNd | nn.Linear) and str(node.target) in cuts:
                _absorb_into(model, node, module, env, cuts[str(node.target)].inputs)


def _absorb_into(
    model: nn.Module,
    node: fx.Node,
    layer: _ConvNd | nn.Linear,
    env: dict[fx.Node, Any],
    kept: NDArray[np.int64],
) -> None:
    """Add the response of a layer to its removed input channels to its bias or to the BatchNorm behind it."""
    channel_dim = -1 if isinstance(layer, nn.Linear) else 1
    gone = env[node.all_input_nodes[0]].mean.clone()
    if getattr(layer, "groups", 1) > 1 or len(kept) == gone.shape[channel_dim]:
        return  # a conv group is removed with its inputs
    gone.index_fill_(channel_dim, torch.from_numpy(kept).to(gone.device), 0)
    response = layer(gone) - layer(torch.zeros_like(gone))
    shift = response.movedim(channel_dim, 0).flatten(1).mean(1)
    norm = norm_behind(model, node)
    if layer.bias is not None:
        layer.bias += shift
    elif norm is not None:
        norm.running_mean -= shift
    else:
        layer.bias = nn.Parameter(shift)


def _moments(model: nn.Module, node: fx.Node, module: nn.Module | None, env: dict[fx.Node, Any]) -> Any:
    """Carry mean and variance over one operation; sizes and other plain values are computed as they are."""
    if node.op == "get_attr":
        value = operator.attrgetter(str(node.target))(model)
        return Moments(value, torch.zeros_like(value)) if isinstance(value, Tensor) else value
    if node.target is operator.getitem and isinstance(env[node.all_input_nodes[0]], list | dict):
        return env[node.all_input_nodes[0]][node.args[1]]
    run = _operation(node, module)
    sources = [env[source] for source in node.all_input_nodes if isinstance(env[source], Moments)]
    if sources and (isinstance(module, ops.POINTWISE_MODULES) or node.target in ops.POINTWISE):
        return _activate(run, node, env)
    mean = _apply(run, node, env, lambda moments: moments.mean)
    if not sources or not holds_tensor(mean):
        return mean
    if isinstance(module, _BatchNorm):
        return _normalise(module, sources[0], mean)
    if isinstance(module, _ConvNd | nn.Linear):
        return Moments(mean, _through_squares(module, sources[0].var))
    if node.target in ops.ADDS:
        return Moments(mean, sum(source.var for source in sources).expand_as(mean))
    if node.target in ops.PRODUCTS and len(sources) == 2:
        a, b = sources
        return Moments(mean, a.mean.square() * b.var + b.mean.square() * a.var + a.var * b.var)
    if node.target in _LINEAR or isinstance(module, (nn.Flatten, nn.ChannelShuffle, *ops.SPATIAL_MODULES)):
        var = _apply(run, node, env, lambda moments: moments.var)
        if node.target in ops.AVERAGE_POOLS | ops.AVERAGES or isinstance(module, ops.AVERAGE_POOL_MODULES):
            var = var * min(1.0, mean.numel() / sources[0].mean.numel())  # positions taken as independent
        return _pair(mean, var)
    # Of other operations only the mean is followed; what varies is given the variance of the input.
    varies = any(bool(source.var.any()) for source in sources)
    fill = torch.ones_like if varies else torch.zeros_like
    return _pair(
        mean, fx.node.map_aggregate(mean, lambda item: fill(item) if isinstance(item, Tensor) else item)
    )


_LINEAR = ops.MOVES | ops.SPATIAL | ops.REDUCTIONS


def _normalise(norm: _BatchNorm, source: Moments, mean: Tensor) -> Moments:
    """β and γ², which is what BatchNorm is for; what never varies it only scales and shifts."""
    shape = [1, -1] + [1] * (mean.dim() - 2)
    beta = norm.bias if norm.bias is not None else mean.new_zeros(norm.num_features)
    gamma = norm.weight if norm.weight is not None else mean.new_ones(norm.num_features)
    fitted = Moments(beta.reshape(shape).expand_as(mean), gamma.square().reshape(shape).expand_as(mean))
    constant = source.var == 0
    if norm.running_mean is None or not constant.any():
        return fitted
    return Moments(torch.where(constant, mean, fitted.mean), torch.where(constant, 0.0, fitted.var))


def _pair(mean: Any, var: Any) -> Any:
    if isinstance(mean, Tensor):
        return Moments(mean, var)
    if isinstance(mean, dict):
        return {key: _pair(mean[key], var[key]) for key in mean}
    return [_pair(one, other) for one, other in zip(mean, var, strict=True)]


def _operation(node: fx.Node, module: nn.Module | None) -> Callable[..., Any]:
    if module is not None:
        return module
    if node.op == "call_method":
        return lambda first, *args, **kwargs: getattr(first, str(node.target))(*args, **kwargs)
    return node.target  # type: ignore[return-value]


def _apply(
    run: Callable[..., Any], node: fx.Node, env: dict[fx.Node, Any], pick: Callable[[Moments], Tensor]
) -> Any:
    """Run an operation on what `pick` takes of its arguments, copied, since it may work in place."""

    def copy(value: Any) -> Any:
        if not isinstance(value, Moments):
            return value
        return pick(value).clone(memory_format=torch.contiguous_format)

    def choose(source: fx.Node) -> Any:
        return fx.node.map_aggregate(env[source], copy)

    args, kwargs = fx.map_arg((node.args, node.kwargs), choose)
    return run(*args, **kwargs)


def _through_squares(layer: _ConvNd | nn.Linear, var: Tensor) -> Tensor:
    """The variance of a weighted sum of independent inputs: the layer with its weights squared, no bias."""
    parameters = {"weight": layer.weight.square()}
    if layer.bias is not None:
        parameters["bias"] = torch.zeros_like(layer.bias)
    return torch.func.functional_call(layer, parameters, (var,))  # type: ignore[no-any-return]


def _activate(run: Callable[..., Any], node: fx.Node, env: dict[fx.Node, Any]) -> Moments:
    """Mean and variance of act(x) for x ~ N(mean, var)."""
    activated = next(arg for arg in node.all_input_nodes if isinstance(env[arg], Moments))
    source: Moments = env[activated]
    # BatchNorm makes every position alike: compute one of them and expand.
    compact = tuple(
        slice(0, 1) if source.mean.stride(d) == 0 and source.var.stride(d) == 0 else slice(None)
        for d in range(source.mean.dim())
    )
    mean, deviation = source.mean[compact], source.var[compact].clamp(min=0).sqrt()

    def act(value: Tensor) -> Tensor:
        inputs = {arg: env[arg] for arg in node.all_input_nodes} | {activated: Moments(value, value)}
        return _apply(run, node, inputs, lambda moments: moments.mean)  # type: ignore[no-any-return]

    if isinstance(run, nn.ReLU) or node.target in ops.RELUS:
        first, second = _rectified(mean, deviation)
    else:
        first, second = torch.zeros_like(mean), torch.zeros_like(mean)
        for position, weight in zip(_NODES.tolist(), _WEIGHTS.tolist(), strict=True):
            output = act(mean + position * deviation)
            first, second = first + weight * output, second + weight * output.square()
    constant = deviation == 0
    first = torch.where(constant, act(mean), first)
    var = torch.where(constant, 0.0, (second - first.square()).clamp(min=0))
    return Moments(first.expand_as(source.mean), var.expand_as(source.mean))


def _rectified(mean: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor]:
    """E[relu(x)] = μΦ(μ/σ) + σφ(μ/σ) and E[relu(x)²] = (μ² + σ²)Φ(μ/σ) + μσφ(μ/σ) for x ~ N(μ, σ²)."""
    z = mean / deviation.clamp(min=torch.finfo(mean.dtype).tiny)
    cumulative = torch.special.ndtr(z)
    density = torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)
    first = mean * cumulative + deviation * density
    second = (mean.square() + deviation.square()) * cumulative + mean * deviation * density
    return first, second
