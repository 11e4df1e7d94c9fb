"""Parameters and multiply-accumulates of a network as functions of the units that stay."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from slimnet.cost import count_params
from slimnet.graph import ChannelGraph

Stays = NDArray[np.bool_]


@dataclass(frozen=True)
class CostModel:
    """Counts without building: each layer's cost follows from how many of its channels stay.

    Per traced layer, (L,): `products` weights per pair of in and out channel (1x1: 1; 0 for BatchNorm),
    `per_output` other parameters per output channel, `gained` biases per output that absorption adds when
    inputs go, `positions` as in the graph. `fixed` are parameters outside the traced layers.
    """

    inputs: tuple[NDArray[np.int64], NDArray[np.int64]]  # (layer, unit) of every input channel
    outputs: tuple[NDArray[np.int64], NDArray[np.int64]]
    products: NDArray[np.int64]
    per_output: NDArray[np.int64]
    grouped: NDArray[np.int64]
    gained: NDArray[np.int64]
    positions: NDArray[np.int64]
    fixed: int
    units: int

    def params(self, stays: Stays) -> int:
        """Parameters of the network in which the units of `stays` (units,) remain."""
        inputs, outputs = self._widths(stays)
        gained = np.where(inputs < self._widths(np.ones_like(stays))[0], self.gained, 0)
        weights = self.products * inputs * outputs + (self.grouped + self.per_output + gained) * outputs
        return self.fixed + int(weights.sum())

    def macs(self, stays: Stays) -> int:
        """Multiply-accumulates per image, as `slimnet.count_macs` counts them."""
        inputs, outputs = self._widths(stays)
        return int(((self.products * inputs + self.grouped) * outputs * self.positions).sum())

    def freed(self, cost: str) -> NDArray[np.float64]:
        """What removing each unit alone from the whole network frees, (units,), in "params" or "macs"."""
        inputs, outputs = self._widths(np.ones(self.units, dtype=bool))
        scale = self.positions if cost == "macs" else np.ones_like(self.positions)
        by_input = self.products * outputs * scale
        by_output = (self.products * inputs + self.grouped) * scale
        if cost == "params":
            by_output = by_output + self.per_output
        freed = np.zeros(self.units)
        np.add.at(freed, self.inputs[1], by_input[self.inputs[0]])
        np.add.at(freed, self.outputs[1], by_output[self.outputs[0]])
        return freed

    def _widths(self, stays: Stays) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        counts = (
            np.bincount(layer, weights=stays[unit], minlength=len(self.products)).astype(np.int64)
            for layer, unit in (self.inputs, self.outputs)
        )
        inputs, outputs = counts
        return inputs, outputs


def cost_model(graph: ChannelGraph) -> CostModel:
    """The cost model of a traced network."""
    products: list[int] = []
    per_output: list[int] = []
    grouped: list[int] = []
    for name in graph.layers:
        module = graph.model.get_submodule(name)
        biased = 0 if module.bias is None else 1
        if isinstance(module, _NormBase | nn.GroupNorm):
            products.append(0)
            grouped.append(0)
            per_output.append(biased + (0 if module.weight is None else 1))
            continue
        assert isinstance(module.weight, Tensor)
        per_group, kernel = module.weight.shape[1], module.weight[0, 0].numel()
        many = isinstance(module, _ConvNd) and module.groups > 1
        products.append(0 if many else kernel)
        grouped.append(per_group * kernel if many else 0)
        per_output.append(biased)
    parameters = dict(graph.model.named_parameters(remove_duplicate=False))
    vectors = {name: units for name, units in graph.vectors.items() if name in parameters}
    for name, units in vectors.items():
        products.append(0)
        grouped.append(0)
        per_output.append(parameters[name].numel() // len(units))
    layers = list(graph.layers.values())
    none = np.zeros(0, dtype=np.int64)
    gained = [int(layer.gains_bias) for layer in layers] + [0] * len(vectors)
    traced = sum(
        sum(parameter.numel() for parameter in graph.model.get_submodule(name).parameters(recurse=False))
        for name in graph.layers
    ) + sum(parameters[name].numel() for name in vectors)
    return CostModel(
        inputs=_incidence([layer.inputs for layer in layers] + [none] * len(vectors)),
        outputs=_incidence([layer.outputs for layer in layers] + list(vectors.values())),
        products=np.array(products),
        per_output=np.array(per_output),
        grouped=np.array(grouped),
        gained=np.array(gained),
        positions=np.array([layer.positions for layer in layers] + [0] * len(vectors)),
        fixed=count_params(graph.model) - traced,
        units=graph.unit_count,
    )


def _incidence(units: list[NDArray[np.int64]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    layer = np.repeat(np.arange(len(units)), [len(some) for some in units])
    return layer, np.concatenate(units)
