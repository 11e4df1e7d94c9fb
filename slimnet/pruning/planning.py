"""Which channels stay: a ranking, how far down it to cut, and a floor under every layer.

Network Slimming (Liu et al., ICCV 2017, arXiv 1708.06519): the scaling factors |γ| of BatchNorm rank all
channels of the network at once, and one global threshold decides. The threshold may come from a fraction of
channels, or from a budget of parameters, multiply-accumulates or milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from numbers import Integral, Real
from typing import get_args

import numpy as np
import torch
from torch import nn

from slimnet.errors import SlimnetError
from slimnet.graph import ChannelGraph, ChannelGroup
from slimnet.latency import measure_latency
from slimnet.pruning.blocks import find_branches
from slimnet.pruning.budget import Stays, cost_model
from slimnet.pruning.options import MIN_CHANNELS, CostAware, Score, ThresholdOver
from slimnet.pruning.plan import PruningPlan
from slimnet.pruning.scores import gamma_magnitudes, norm_layers, removal_order, unit_scores, unit_shifts
from slimnet.pruning.selection import Candidates
from slimnet.pruning.surgery import prune

LATENCY_SECONDS = 0.3  # of measuring per candidate of a latency budget


def scaling_factors(graph: ChannelGraph, *, streams: bool = False) -> dict[str, nn.Parameter]:
    """The γ of every BatchNorm that scores a prunable group, by layer name: what the penalty acts on.

    Raises:
        SlimnetError: the network has none.
    """
    scaled = {name for group in _choose_groups(graph, streams) for name in group.scales}
    gammas = {name: graph.model.get_submodule(name).weight for name in graph.layers if name in scaled}
    return {name: gamma for name, gamma in gammas.items() if isinstance(gamma, nn.Parameter)}


def plan(
    graph: ChannelGraph,
    *,
    ratio: float | None = None,
    params: int | None = None,
    macs: int | None = None,
    latency_ms: float | None = None,
    score: Score = "gamma",
    threshold_over: ThresholdOver = "prunable",
    cost_aware: CostAware | None = None,
    cost_power: float = 1.0,
    layer_floor: float = 0.0,
    min_channels: int = MIN_CHANNELS,
    round_to: int = 1,
    streams: bool = False,
    drop_blocks: bool = False,
    seed: int = 0,
) -> PruningPlan:
    """Choose the channels to keep, by a fraction of channels or by one budget.

    Args:
        graph: from `trace(model, ...)`; the scaling factors of that model are read.
        ratio: fraction of prunable channels to remove, 0 <= ratio < 1.
        params: the most parameters that may remain.
        macs: the most multiply-accumulates per image.
        latency_ms: the longest time for the example's shape, measured on this machine (median).
        score: "gamma", "gamma-weight" or "random"; see `slimnet.pruning.scores.unit_scores`.
        threshold_over: "prunable" removes the lowest scores of the whole network, exactly the fraction asked
            for as far as `min_channels` allows; "layer" the same fraction of every group; "all" takes the
            threshold over every BatchNorm channel, unprunable ones included, as the seed experiment did (the
            fraction of prunable channels then differs).
        cost_aware: rank by score per parameter or multiply-accumulate that a channel frees.
        cost_power: the exponent of that cost; 0.5 divides scores by its square root.
        layer_floor: from 0 to 1: every group keeps at least this fraction of what an even cut leaves it, in
            which every group loses the same fraction; so small budgets starve no layer.
        min_channels: units that stay in every group, so that no layer is ever emptied.
        round_to: widths of pruned layers become multiples of this, upwards.
        streams: prune coupled groups (residual streams) too.
        drop_blocks: drop whole identity blocks, where one of their inner layers would lose all channels.
        seed: of score "random".

    Raises:
        SlimnetError: not exactly one of ratio and the budgets, a value out of range, a budget below the
            floor (which it names), γ that is not finite, or nothing to prune.

    Example:
        >>> model = slimnet.models.resnet([1], width=8)
        >>> graph = slimnet.trace(model, torch.zeros(1, 3, 8, 8))
        >>> slimnet.plan(graph, ratio=0.25).removed_channels
        4
        >>> within = slimnet.plan(graph, params=1200)
        >>> slimnet.count_params(slimnet.prune(model, within)) <= 1200
        True
    """
    target, value = _one_target(ratio=ratio, params=params, macs=macs, latency_ms=latency_ms)
    _check_choice("score", score, get_args(Score))
    _check_choice("threshold_over", threshold_over, get_args(ThresholdOver))
    _check_choice("cost_aware", cost_aware, (None, *get_args(CostAware)))
    for name, number in {"min_channels": min_channels, "round_to": round_to}.items():
        if not isinstance(number, Integral):
            raise SlimnetError(f"{name} is {number!r}; it is a whole number")
    if min_channels < 1 or round_to < 1:
        raise SlimnetError(f"min_channels is {min_channels} and round_to {round_to}; both are at least 1")
    if not (isinstance(layer_floor, Real) and 0 <= layer_floor <= 1):
        raise SlimnetError(f"layer_floor is {layer_floor!r}; it is a number from 0 to 1")
    if layer_floor and threshold_over != "prunable":
        raise SlimnetError(f'layer_floor goes with threshold_over="prunable", not with {threshold_over!r}')
    if not (isinstance(cost_power, Real) and cost_power >= 0):
        raise SlimnetError(f"cost_power is {cost_power!r}; it is a number of at least 0")
    if threshold_over == "all" and ratio is None:
        raise SlimnetError('threshold_over="all" goes with a ratio; a budget finds its own threshold')
    groups = _choose_groups(graph, streams)
    blocks = _inner_groups(graph, groups) if drop_blocks else {}
    inner = {group.name for inside in blocks.values() for group in inside}
    scores, shifts = unit_scores(graph, score, seed), unit_shifts(graph)
    freed = np.maximum(cost_model(graph).freed(cost_aware), 1) ** cost_power if cost_aware else None

    def candidates(floors: Sequence[int], per_layer: bool) -> Candidates:
        kept = [0 if group.name in inner else floor for group, floor in zip(groups, floors, strict=True)]
        ranked = removal_order(groups, scores, shifts, kept, per_layer=per_layer, freed=freed)
        return Candidates(groups, scores, ranked, blocks, min_channels, round_to)

    floors = [min_channels] * len(groups)
    if layer_floor:
        even = _stays(graph, candidates(floors, per_layer=True), target, value)
        floors = [max(min_channels, ceil(layer_floor * even[group.units].sum() - 1e-9)) for group in groups]
    found = candidates(floors, per_layer=threshold_over == "layer")
    if ratio is not None and threshold_over == "all":
        threshold = _seed_threshold(graph, ratio) if ratio else -1.0
        count = int(np.searchsorted(scores[found.ranked], threshold, side="right"))
        return _plan(graph, found, found.stays_after(count), max(0.0, threshold))
    return _plan(graph, found, _stays(graph, found, target, value))


def _stays(graph: ChannelGraph, candidates: Candidates, target: str, value: float) -> Stays:
    """What remains of the candidates for a ratio or a budget, which `target` names."""
    if target == "ratio":
        return candidates.stays_after(candidates.count_for(value))
    if target == "latency_ms":
        return candidates.within(value, "ms", lambda s: _latency(_plan(graph, candidates, s)), slack=0.02)
    costs = cost_model(graph)
    unit, measure = ("parameters", costs.params) if target == "params" else ("MACs", costs.macs)
    stays = candidates.within(value, unit, measure)
    return candidates.filled(stays, value, measure) if candidates.round_to == 1 else stays


def _one_target(**targets: float | None) -> tuple[str, float]:
    """Which of ratio and the budgets is given, and what it is."""
    given = {name: value for name, value in targets.items() if value is not None}
    if len(given) != 1:
        raise SlimnetError(f"give exactly one of {', '.join(targets)}; given: {', '.join(given) or 'none'}")
    ((name, value),) = given.items()
    if not isinstance(value, Real) or isinstance(value, bool):
        raise SlimnetError(f"{name} is {value!r}; it is a number")
    if name == "ratio" and not 0 <= value < 1:
        raise SlimnetError(f"ratio is {value}; it is a fraction of at least 0 and below 1")
    if name != "ratio" and not value > 0:
        raise SlimnetError(f"{name} is {value}; a budget is above 0")
    return name, value


def _check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    if value not in choices:
        raise SlimnetError(f"{name} is {value!r}; it is one of {', '.join(map(repr, choices))}")


def _choose_groups(graph: ChannelGraph, streams: bool) -> list[ChannelGroup]:
    groups = [group for group in graph.groups if not group.blocked and (streams or not group.coupled)]
    if not groups:
        reasons = dict.fromkeys(f"{group.name}: {group.reason}" for group in graph.groups)
        raise SlimnetError("no channel of this network can be pruned: " + "; ".join(list(reasons)[:3]))
    return groups


def _inner_groups(graph: ChannelGraph, groups: Sequence[ChannelGroup]) -> dict[str, list[ChannelGroup]]:
    """The groups inside each block that can be dropped, by the block's name."""
    inner = {}
    for branch in find_branches(graph.record):
        inside = [
            group for group in groups if not group.coupled and set(group.producers) <= set(branch.layers)
        ]
        if inside:
            inner[branch.name] = inside
    return inner


def _seed_threshold(graph: ChannelGraph, ratio: float) -> float:
    """The seed experiment's threshold: the |γ| at `ratio` of all BatchNorm channels in ascending order."""
    every = np.sort(np.concatenate([gamma_magnitudes(graph, name) for name in norm_layers(graph)]))
    return float(every[int(len(every) * ratio)])


def _latency(candidate: PruningPlan) -> float:
    """Milliseconds of the network that a plan leads to."""
    model = candidate.graph.model
    parameter = next(model.parameters())
    example = candidate.graph.example.zeros(parameter)
    return measure_latency(prune(model, candidate, absorb=False), example, seconds=LATENCY_SECONDS).median_ms


def _plan(
    graph: ChannelGraph, candidates: Candidates, stays: Stays, threshold: float | None = None
) -> PruningPlan:
    channels, gone = candidates.channels, ~stays
    if threshold is None:
        threshold = float(candidates.scores[gone].max()) if gone.any() else 0.0
    kept = {
        group.name: np.flatnonzero(stays[group.units])
        for group in candidates.groups
        if gone[group.units].any()
    }
    dropped = tuple(name for name, inside in candidates.blocks.items() if not stays[inside[0].units].any())
    return PruningPlan(graph, kept, threshold, int(channels.sum()), int(channels[gone].sum()), dropped)
