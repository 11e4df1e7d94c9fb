"""Mean and variance of activations, carried through a recorded run as one number per channel.

They start at BatchNorms, whose β and γ² they are, and go through whatever operations carry them: layers,
activations, sums, products, pools and moves. Where one does not, they are not known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from slimnet.graph import operations as ops
from slimnet.graph.findings import Run
from slimnet.graph.labels import compact
from slimnet.graph.record import Call, Parameter, Ref, tensor_of
from slimnet.modules import parameters


@dataclass(frozen=True)
class Moments:
    """Mean and variance of an activation; 1 stands for each dimension along which both are alike."""

    mean: Tensor
    var: Tensor

    @cached_property
    def constant(self) -> bool:
        """Whether the variance is 0 everywhere."""
        return not bool(self.var.any())


Modules = Mapping[str, nn.Module]


class Propagation:
    """Carries moments through a run, as far as they are asked for."""

    def __init__(self, modules: Modules, run: Run) -> None:
        self.modules, self.run = modules, run
        self._made = {output: call for call in run.calls for output in call.outputs}

    def of(self, values: list[int]) -> dict[int, Moments | None]:
        """The moments of values; None where they are not known."""
        wanted, open_values = set(values), list(values)
        while open_values:
            call = self._made.get(open_values.pop())
            if call is None or call.op in ops.NORMS:
                continue
            new = set(call.inputs) - wanted
            wanted |= new
            open_values += new
        found: dict[int, Moments | None] = {}
        for call in self.run.calls:
            if wanted.isdisjoint(call.outputs):
                continue
            results = self._through(call, found)
            for index, moments in zip(call.outputs, results, strict=True):
                found[index] = None if index in self.run.unclear else moments
        return found

    def _through(self, call: Call, found: dict[int, Moments | None]) -> list[Moments | None]:
        """The moments of what a call makes."""
        unknown: list[Moments | None] = [None] * len(call.outputs)
        if call.op in ops.NORMS:
            return [self._normalised(call), *unknown[1:]]
        if call.op in _LAYERS:
            source = found.get(call.inputs[0]) if call.layer and call.inputs else None
            return unknown if source is None else [self._layer(call, source)]
        sources: list[Moments | None] = []
        for item in call.operands():
            if type(item) is Ref:
                sources.append(found.get(item.index))
            else:
                tensor = tensor_of(self.modules, item.name).detach() if type(item) is Parameter else item
                sources.append(Moments(tensor, torch.zeros_like(tensor)))
        known = [source for source in sources if source is not None]
        if len(known) < len(sources) or not known:
            return unknown
        if call.op in _POINT_BY_POINT and all(source.constant for source in known):
            return _only(call, call.run([source.mean for source in known]), zero=True)
        if call.op in _ACTIVATIONS:
            random = [place for place, source in enumerate(known) if not source.constant]
            if len(random) == 1:
                return _only(call, self._activated(call, known, random[0]))
        if call.op in _LINEAR_MAPS:
            return [self._combined(call, known)]
        if call.op in _MOVES:
            return self._moved(call, known)
        return unknown

    def _normalised(self, call: Call) -> Moments | None:
        """β and γ², which is what BatchNorm is for."""
        norm = self.modules[call.layer] if call.layer else None
        shape = self.run.values[call.outputs[0]].shape
        if not isinstance(norm, _NormBase):
            return None
        sample = norm.weight if norm.weight is not None else norm.running_mean
        if sample is None:
            sample = next(parameters([*self.modules.values()]))
        beta = norm.bias.detach() if norm.bias is not None else sample.new_zeros(shape[1])
        gamma = norm.weight.detach() if norm.weight is not None else sample.new_ones(shape[1])
        wanted = [1, -1] + [1] * (len(shape) - 2)
        return Moments(beta.reshape(wanted), gamma.square().reshape(wanted))

    def _layer(self, call: Call, source: Moments) -> Moments | None:
        """A weighted sum of inputs taken as independent."""
        layer: Any = self.modules[call.layer]
        before, after = self.run.values[call.inputs[0]].shape, self.run.values[call.outputs[0]].shape
        dim = -1 if isinstance(layer, nn.Linear) else 1
        mean, var = (per_channel(part, before, dim) for part in (source.mean, source.var))
        if mean is None or var is None:
            return None
        groups = getattr(layer, "groups", 1)
        weight = layer.weight.detach()
        if getattr(layer, "transposed", False):
            weight = weight.transpose(0, 1)  # these have no groups
        weight = weight.reshape(groups, len(weight) // groups, weight.shape[1], -1)
        squares = weight.square()
        if isinstance(layer, nn.Linear):  # of one tap, over which torch takes long to sum
            weight, squares = weight.squeeze(-1), squares.squeeze(-1)
        else:
            weight = weight @ coverage(layer, before[2:], after[2:]).to(mean)
            squares = squares.sum(-1)
        made = (weight @ mean.reshape(groups, -1, 1)).flatten()
        if layer.bias is not None:
            made = made + layer.bias.detach()
        spread = (squares @ var.reshape(groups, -1, 1)).flatten()
        wanted = [1] * len(after)
        wanted[dim] = -1
        return Moments(made.reshape(wanted), spread.reshape(wanted))

    def _activated(self, call: Call, sources: list[Moments], place: int) -> Moments:
        """Mean and variance of act(x) for x ~ N(mean, var); act may have other arguments, which are fixed."""
        source = sources[place]

        def act(value: Tensor) -> Tensor:
            tensors = [value if at == place else other.mean for at, other in enumerate(sources)]
            result = call.run(tensors)
            return result if isinstance(result, Tensor) else result[0]

        if call.op in ops.COPIES:
            return source
        deviation = source.var.clamp(min=0).sqrt()
        mean = source.mean
        if mean.shape != deviation.shape:
            mean = mean.expand(np.broadcast_shapes(tuple(mean.shape), tuple(deviation.shape)))
        if call.op in ops.RELUS:
            first, second = _rectified(mean, deviation)
        else:
            nodes, weights = _quadrature(mean.dtype, mean.device)
            points = (mean + nodes.reshape(-1, *[1] * mean.dim()) * deviation).flatten(0, 1)
            output = act(points)
            shape = (mean.shape[0], *output.shape[1:])
            output = output.reshape(len(weights), -1)
            first = (weights @ output).reshape(shape)
            second = (weights @ output.square()).reshape(shape)
        spread = (second - first.square()).clamp(min=0)
        if bool(deviation.all()):
            return Moments(first, spread)
        constant = deviation == 0
        return Moments(torch.where(constant, act(mean), first), torch.where(constant, 0.0, spread))

    def _combined(self, call: Call, sources: list[Moments]) -> Moments | None:
        """Sums of independent tensors, products of two, and quotients by a constant."""
        if len(sources) == 1:  # with a number
            (source,) = sources
            mean = call.run([source.mean])
            if call.op in ops.ADDS:
                scale = call.kwargs.get("alpha", 1) if call.op == "rsub" else 1
                return Moments(mean, source.var * scale**2)
            factor = call.run([torch.ones_like(source.mean)])
            return Moments(mean, source.var * factor.square())
        a, b = sources
        mean = call.run([a.mean, b.mean])
        if call.op in ops.ADDS:
            alpha = call.kwargs.get("alpha", 1)
            return Moments(mean, a.var + b.var * alpha**2)
        if call.op == "mul":
            return Moments(mean, a.mean.square() * b.var + b.mean.square() * a.var + a.var * b.var)
        return Moments(mean, a.var / b.mean.square()) if b.constant else None

    def _moved(self, call: Call, sources: list[Moments]) -> list[Moments | None]:
        """What is moved, pooled or averaged."""
        shapes = [self.run.values[index].shape for index in call.outputs]
        alone = len(sources) == 1 and len(shapes) == 1 and sources[0].mean.dim() >= 3
        if call.op in ops.SPATIAL and alone and _alike_over_positions(sources[0]):
            mean, var = sources[0].mean, sources[0].var
            if call.op in ops.AVERAGE_POOLS:
                before = self.run.values[call.inputs[0]].shape
                var = var * min(1.0, math.prod(shapes[0][2:]) / math.prod(before[2:]))
                if _pads(call):
                    ones = torch.ones(before, dtype=mean.dtype, device=mean.device)[:1, :1]
                    mean = mean * call.run([ones]).mean()
            return [Moments(mean, var)]
        full = [self.run.values[index].shape for index in call.inputs]
        refs = call.operands()
        wholes = []
        for item, source in zip(refs, sources, strict=True):
            shape = full[call.inputs.index(item.index)] if type(item) is Ref else source.mean.shape
            wholes.append((source.mean.expand(shape), source.var.expand(shape)))
        means, vars_ = self._whole(call, [m for m, _ in wholes]), self._whole(call, [v for _, v in wholes])
        results: list[Moments | None] = []
        for index, (mean, var) in enumerate(zip(means, vars_, strict=True)):
            if index >= len(call.outputs):
                break
            if call.op in ops.AVERAGES | ops.AVERAGE_POOLS:
                var = var * min(1.0, mean.numel() / wholes[0][0].numel())  # positions taken as independent
            results.append(Moments(*compact(mean), *compact(var)) if mean.is_floating_point() else None)
        return results + [None] * (len(call.outputs) - len(results))

    def _whole(self, call: Call, tensors: list[Tensor]) -> list[Tensor]:
        if call.op in ops.VIEWS:
            shape = self.run.values[call.outputs[0]].shape
            return [tensors[0].reshape(shape)]
        result = call.run(tensors)
        return (
            [result] if isinstance(result, Tensor) else [item for item in result if isinstance(item, Tensor)]
        )


_LAYERS = ops.CONVOLUTIONS | ops.LINEAR
_POINT_BY_POINT = ops.POINTWISE | ops.COMBINATIONS
_ACTIVATIONS = ops.POINTWISE | {"prelu", "_prelu_kernel", "maximum", "minimum"}
_LINEAR_MAPS = ops.ADDS | {"mul", "div"}
_MOVES = ops.SPATIAL | ops.REDUCTIONS | ops.MOVES | {"constant_pad_nd"}


def _only(call: Call, result: Any, zero: bool = False) -> list[Moments | None]:
    """The moments of the first of several results."""
    if zero:
        first = result if isinstance(result, Tensor) else result[0]
        result = Moments(first, torch.zeros_like(first)) if first.is_floating_point() else None
    return [result] + [None] * (len(call.outputs) - 1)


def _alike_over_positions(source: Moments) -> bool:
    return all(size == 1 for part in (source.mean, source.var) for size in part.shape[2:])


def _pads(call: Call) -> bool:
    """Whether an average pool counts zeros beyond the image."""
    return len(call.args) > 3 and any(call.args[3]) and (len(call.args) < 6 or call.args[5] is not False)


@cache
def _quadrature(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Abscissae and weights of E[f(z)], z ~ N(0, 1), for activations without a closed form."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(64)
    return (
        torch.as_tensor(nodes, dtype=dtype, device=device),
        torch.as_tensor(weights / weights.sum(), dtype=dtype, device=device),
    )


def _rectified(mean: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor]:
    """E[relu(x)] = μΦ(μ/σ) + σφ(μ/σ) and E[relu(x)²] = (μ² + σ²)Φ(μ/σ) + μσφ(μ/σ) for x ~ N(μ, σ²)."""
    z = mean / deviation.clamp(min=torch.finfo(mean.dtype).tiny)
    cumulative = torch.special.ndtr(z)
    density = torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)
    first = torch.addcmul(mean * cumulative, deviation, density)
    second = torch.addcmul(mean * first, deviation.square(), cumulative)
    return first, second


def coverage(layer: _ConvNd, before: tuple[int, ...], after: tuple[int, ...]) -> Tensor:
    """For each tap of a kernel the fraction of positions at which it lies inside the image, (taps,)."""
    kernels, steps, gaps = tuple(layer.kernel_size), tuple(layer.stride), tuple(layer.dilation)
    if layer.transposed:
        pads = tuple(int(pad) for pad in layer.padding)
        return _product(_reached, kernels, steps, gaps, pads, before, after)
    if layer.padding_mode != "zeros":
        return torch.ones(math.prod(kernels), dtype=torch.float64, device="cpu")
    pads = tuple(layer._reversed_padding_repeated_twice[-2::-2])  # those before
    return _product(_inside, kernels, steps, gaps, pads, before, after)


@cache
def _product(fractions: Callable[..., Tensor], *dims: tuple[int, ...]) -> Tensor:
    """The products of what is found for each dimension, given its numbers."""
    found = torch.ones(1, dtype=torch.float64, device="cpu")
    for numbers in zip(*dims, strict=True):
        found = torch.outer(found, fractions(*numbers)).flatten()
    return found


def _inside(kernel: int, step: int, gap: int, pad: int, size: int, positions: int) -> Tensor:
    """For each tap of one dimension of a conv the fraction of positions at which it is inside, (kernel,)."""
    place = _places(positions)[:, None] * step - pad + _places(kernel) * gap
    return ((place >= 0) & (place < size)).double().mean(0)


def _reached(kernel: int, step: int, gap: int, pad: int, size: int, positions: int) -> Tensor:
    """The same of a transposed conv: each input reaches an output at its place plus the tap."""
    place = _places(size)[:, None] * step - pad + _places(kernel) * gap
    return ((place >= 0) & (place < positions)).double().sum(0) / positions


def _places(count: int) -> Tensor:
    """0, 1, …; on the processor, whatever device is the default while this is found for the first time."""
    return torch.arange(count, device="cpu")


def per_channel(mean: Tensor, shape: tuple[int, ...], dim: int) -> Tensor | None:
    """The mean of each channel over whatever else it varies along."""
    dim = dim % len(shape)
    if mean.numel() == shape[dim] == mean.shape[dim]:
        return mean.reshape(-1)
    mean = mean.movedim(dim, 0).flatten(1).mean(1)
    return mean.expand(shape[dim]) if len(mean) == 1 else mean
