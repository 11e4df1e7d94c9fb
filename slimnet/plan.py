"""Which channels stay: scores from the scaling factors, a threshold, and a floor under every layer.

Network Slimming (Liu et al., ICCV 2017, arXiv 1708.06519): the scaling factors |γ| of BatchNorm rank all
channels of the network at once, and one global threshold decides.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from slimnet.errors import SlimnetError
from slimnet.graph import ChannelGraph, ChannelGroup

ThresholdOver = Literal["prunable", "all"]
MIN_CHANNELS = 3  # the seed experiment's floor


@dataclass(frozen=True)
class LayerCut:
    """The input and output channels of one layer that stay, as sorted indices."""

    inputs: NDArray[np.int64]
    outputs: NDArray[np.int64]


@dataclass(frozen=True)
class PruningPlan:
    """The channels kept per group.

    Attributes:
        graph: what was traced.
        kept: group name -> (kept,) sorted positions in `group.units`; a group not named keeps all.
        threshold: the largest score removed (for threshold_over="all": the threshold itself).
        prunable_channels: channels that the plan could choose from.
        removed_channels: channels that it removes.
    """

    graph: ChannelGraph = field(repr=False)
    kept: dict[str, NDArray[np.int64]] = field(repr=False)
    threshold: float
    prunable_channels: int
    removed_channels: int

    @property
    def ratio(self) -> float:
        """The share of prunable channels that is removed."""
        return self.removed_channels / self.prunable_channels

    def cuts(self) -> dict[str, LayerCut]:
        """For every layer that loses channels, which of its channels stay."""
        stays = np.ones(self.graph.unit_count, dtype=bool)
        for group in self.graph.groups:
            if group.name in self.kept:
                stays[group.units] = False
                stays[group.units[self.kept[group.name]]] = True
        cuts = {}
        for name, units in self.graph.layers.items():
            inputs, outputs = stays[units.inputs], stays[units.outputs]
            if not (inputs.all() and outputs.all()):
                cuts[name] = LayerCut(np.flatnonzero(inputs), np.flatnonzero(outputs))
        return cuts


def scaling_factors(graph: ChannelGraph) -> dict[str, nn.Parameter]:
    """The γ of every BatchNorm that scores a prunable group, by layer name: what the penalty acts on.

    Raises:
        SlimnetError: the network has none.
    """
    names = dict.fromkeys(name for group in graph.groups if group.prunable for name in group.scales)
    gammas = {name: graph.model.get_submodule(name).weight for name in graph.layers if name in names}
    found = {name: gamma for name, gamma in gammas.items() if isinstance(gamma, nn.Parameter)}
    if not found:
        raise SlimnetError(_nothing_to_prune(graph))
    return found


def plan(
    graph: ChannelGraph,
    *,
    ratio: float,
    threshold_over: ThresholdOver = "prunable",
    min_channels: int = MIN_CHANNELS,
    streams: bool = False,
) -> PruningPlan:
    """Choose the channels to keep by one threshold on |γ| over the whole network.

    Args:
        graph: from `trace(model, ...)`; the scaling factors of that model are read.
        ratio: share of channels to remove, 0 <= ratio < 1.
        threshold_over: "prunable" removes exactly that share of the prunable channels, as far as
            `min_channels` allows; "all" takes the threshold over every BatchNorm channel, unprunable ones
            included, as the seed experiment did (the share of prunable channels then differs).
        min_channels: units that stay in every group, so that no layer is ever emptied.
        streams: prune coupled groups (residual streams) too.

    Raises:
        SlimnetError: a ratio or minimum out of range, γ that is not finite, or nothing to prune.
    """
    if not 0 <= ratio < 1:
        raise SlimnetError(f"ratio is {ratio}; it is a share of at least 0 and below 1")
    if min_channels < 1:
        raise SlimnetError(f"min_channels is {min_channels}; a layer needs at least 1 channel")
    groups = [group for group in graph.groups if not group.blocked and (streams or not group.coupled)]
    if not groups:
        raise SlimnetError(_nothing_to_prune(graph))
    scores = _unit_scores(graph)

    # The best of each group are out of reach; the rest compete.
    candidates = np.concatenate([_candidates(group, scores, min_channels) for group in groups])
    channels = np.zeros(graph.unit_count, dtype=np.int64)
    for group in groups:
        channels[group.units] = group.unit_channels
    total = int(channels.sum())
    ranked = candidates[np.argsort(scores[candidates], kind="stable")]
    if threshold_over == "all":
        every = np.sort(np.concatenate([_gamma(graph.model, name) for name in _norms(graph)]))
        threshold = float(every[int(len(every) * ratio)]) if ratio > 0 else 0.0
        removed = ranked[scores[ranked] <= threshold] if ratio > 0 else ranked[:0]
    else:
        # 1e-9 keeps 0.3 * 10 from counting as less than 3.
        removed = ranked[np.cumsum(channels[ranked]) <= ratio * total + 1e-9]
        threshold = float(scores[removed[-1]]) if len(removed) else 0.0

    goes = np.zeros(graph.unit_count, dtype=bool)
    goes[removed] = True
    kept = {group.name: np.flatnonzero(~goes[group.units]) for group in groups if goes[group.units].any()}
    return PruningPlan(graph, kept, threshold, total, int(channels[removed].sum()))


def _unit_scores(graph: ChannelGraph) -> NDArray[np.float64]:
    """|γ| per unit, averaged where several scaling factors belong to one."""
    total, count = np.zeros(graph.unit_count), np.zeros(graph.unit_count)
    for name in _norms(graph):
        units = graph.layers[name].outputs
        np.add.at(total, units, _gamma(graph.model, name))
        np.add.at(count, units, 1)
    return total / np.maximum(count, 1)


def _candidates(group: ChannelGroup, scores: NDArray[np.float64], minimum: int) -> NDArray[np.int64]:
    """The units of a group that may go: all but the `minimum` with the highest scores."""
    order = np.argsort(-scores[group.units], kind="stable")
    return group.units[np.sort(order[minimum:])]


def _norms(graph: ChannelGraph) -> list[str]:
    return [name for name in graph.layers if isinstance(graph.model.get_submodule(name), _BatchNorm)]


def _gamma(model: nn.Module, name: str) -> NDArray[np.float64]:
    weight = model.get_submodule(name).weight
    if not isinstance(weight, torch.Tensor):
        return np.ones(model.get_submodule(name).num_features)  # type: ignore[call-overload,no-any-return]
    values: NDArray[np.float64] = weight.detach().abs().double().cpu().numpy()
    if not np.isfinite(values).all():
        raise SlimnetError(f"{name} has scaling factors that are not finite; the training diverged")
    return values


def _nothing_to_prune(graph: ChannelGraph) -> str:
    reasons = dict.fromkeys(f"{group.name}: {group.reason}" for group in graph.groups)
    return "no channel of this network can be pruned: " + "; ".join(list(reasons)[:3])
