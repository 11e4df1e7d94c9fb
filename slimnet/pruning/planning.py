"""Which channels stay: a ranking, how far down it to cut, and a floor under every layer.

Network Slimming (Liu et al., ICCV 2017, arXiv 1708.06519): the scaling factors |γ| of BatchNorm rank all
channels of the network at once, and one global threshold decides. The threshold may come from a fraction of
channels, or from a budget of parameters, multiply-accumulates or milliseconds.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from math import ceil
from numbers import Integral, Real
from typing import get_args

import numpy as np
from torch import nn

from slimnet.errors import SlimnetError
from slimnet.graph import ChannelGraph, ChannelGroup
from slimnet.graph.operations import is_reparametrized
from slimnet.latency import measure_latency
from slimnet.pruning.blocks import find_branches
from slimnet.pruning.budget import Stays, cost_model
from slimnet.pruning.options import MIN_CHANNELS, NORM_SCORES, CostAware, Score, ThresholdOver
from slimnet.pruning.plan import PruningPlan
from slimnet.pruning.scores import (
    Floats,
    gamma_magnitudes,
    removal_order,
    unit_scores,
    unit_shifts,
)
from slimnet.pruning.selection import Budget, Candidates
from slimnet.pruning.surgery import prune
from slimnet.pruning.weight_scores import Batch
from slimnet.wording import after_question, did_you_mean, plural

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
    params: int | str | None = None,
    macs: int | str | None = None,
    latency_ms: float | None = None,
    score: Score | Callable[[ChannelGraph], Floats] | Floats = "gamma",
    threshold_over: ThresholdOver = "prunable",
    cost_aware: CostAware | None = None,
    cost_power: float = 1.0,
    layer_floor: float = 0.0,
    min_channels: int = MIN_CHANNELS,
    max_ratio: float = 1.0,
    keep: Sequence[str] = (),
    layer_ratios: Mapping[str, float] | None = None,
    round_to: int = 1,
    streams: bool = False,
    drop_blocks: bool = False,
    seed: int = 0,
    batches: Iterable[Batch] | None = None,
) -> PruningPlan:
    """Choose the channels to keep, by a fraction of channels or within budgets.

    Layers are named as in `model.named_modules()`; patterns may hold * and ?, as file names do.

    Args:
        graph: from `trace(model, ...)`; the scores are read from that model.
        ratio: fraction of prunable channels to remove, 0 <= ratio < 1.
        params: the most parameters that may remain, as a number or as "50%" of those of the network.
        macs: the most multiply-accumulates per image, likewise.
        latency_ms: the longest time for the example's shape, measured on this machine (median). Of params,
            macs and latency_ms several may be given; all of them are met.
        score: what a channel is worth: "gamma", "gamma-weight", "l1", "l2", "fpgm", "lamp", "taylor",
            "random", an array (units,), or a function of the graph that returns one; see
            `slimnet.pruning.scores.unit_scores`. Only the first two need BatchNorm.
        threshold_over: "prunable" removes the lowest scores of the whole network, exactly the fraction asked
            for as far as `min_channels` allows; "layer" the same fraction of every group; "all" takes the
            threshold over every BatchNorm channel, unprunable ones included, as the seed experiment did (the
            fraction of prunable channels then differs).
        cost_aware: rank by score per parameter or multiply-accumulate that a channel frees.
        cost_power: the exponent of that cost; 0.5 divides scores by its square root.
        layer_floor: from 0 to 1: every group keeps at least this fraction of what an even cut leaves it, in
            which every group loses the same fraction; so small budgets starve no layer.
        min_channels: units that stay in every group, so that no layer is ever emptied.
        max_ratio: the largest fraction of any group that goes.
        keep: layers, by name or pattern, whose output channels all stay.
        layer_ratios: for layers by name or pattern, the fraction of their output channels that goes; ratio
            and budgets are met by the others.
        round_to: widths of pruned layers become multiples of this, upwards.
        streams: prune coupled groups (residual streams) too.
        drop_blocks: drop whole identity blocks, where one of their inner layers would lose all channels.
        seed: of score "random".
        batches: images and labels, for score "taylor".

    Warns:
        UserWarning: all scaling factors are alike, so that the ranking means nothing; or layers have
            collapsed to `min_channels`.

    Raises:
        SlimnetError: neither a ratio nor a budget or both, a value out of range, a budget below the floor
            (which it names), a pattern that no layer has, γ that is not finite, or nothing to prune.

    Example:
        >>> model = slimnet.models.resnet([1], width=8)
        >>> graph = slimnet.trace(model, torch.zeros(1, 3, 8, 8))
        >>> slimnet.plan(graph, ratio=0.25, score="l2").removed_channels
        4
        >>> within = slimnet.plan(graph, params="70%", score="l2")
        >>> slimnet.count_params(slimnet.prune(model, within)) <= 0.7 * slimnet.count_params(model)
        True
    """
    if not isinstance(graph, ChannelGraph):
        raise SlimnetError(f"plan takes what trace(model, example) returns, not a {type(graph).__name__}")
    targets = _targets(graph, ratio=ratio, params=params, macs=macs, latency_ms=latency_ms)
    if isinstance(score, str):
        _check_choice("score", score, get_args(Score))
    _check_choice("threshold_over", threshold_over, get_args(ThresholdOver))
    _check_choice("cost_aware", cost_aware, (None, *get_args(CostAware)))
    for name, number in {"min_channels": min_channels, "round_to": round_to}.items():
        if not isinstance(number, Integral):
            raise SlimnetError(f"{name} is {number!r}; it is a whole number")
    if min_channels < 1 or round_to < 1:
        raise SlimnetError(f"min_channels is {min_channels} and round_to {round_to}; both are at least 1")
    for name, fraction in {"layer_floor": layer_floor, "max_ratio": max_ratio}.items():
        if not (isinstance(fraction, Real) and 0 <= fraction <= 1):
            raise SlimnetError(f"{name} is {fraction!r}; it is a number from 0 to 1")
    if layer_floor and threshold_over != "prunable":
        raise SlimnetError(f'layer_floor goes with threshold_over="prunable", not with {threshold_over!r}')
    if not (isinstance(cost_power, Real) and cost_power >= 0):
        raise SlimnetError(f"cost_power is {cost_power!r}; it is a number of at least 0")
    by_norm = isinstance(score, str) and score in NORM_SCORES
    if threshold_over == "all" and (ratio is None or not by_norm):
        raise SlimnetError(
            'threshold_over="all" goes with a ratio and scores by γ; a budget finds its own threshold'
        )
    if isinstance(keep, str):
        raise SlimnetError(f"keep is {keep!r}; it is a list of names or patterns: keep=[{keep!r}]")
    every = _choose_groups(graph, streams, by_norm=by_norm)
    groups, chosen_ratios = _by_wish(graph, every, keep, layer_ratios or {})
    blocks = _inner_groups(graph, groups) if drop_blocks else {}
    inner = {group.name for inside in blocks.values() for group in inside}
    scores, shifts = unit_scores(graph, score, seed, batches), unit_shifts(graph)
    meaningless = by_norm and _are_alike(groups, scores)
    if meaningless:
        warnings.warn(
            "all scaling factors are alike and cannot tell channels apart: the network was never trained "
            'sparse; do that first, or choose another score, such as "l2"',
            stacklevel=2,
        )
    freed = np.maximum(cost_model(graph).freed(cost_aware), 1) ** cost_power if cost_aware else None
    gone = [
        removal_order([group], scores, shifts, [min_channels])[: int(fraction * group.size + 1e-9)]
        for group, fraction in chosen_ratios
    ]
    decided = np.concatenate([np.zeros(0, dtype=np.int64), *gone])
    free = [group for group in groups if all(group is not other for other, _ in chosen_ratios)]

    def candidates(floors: Sequence[int], per_layer: bool) -> Candidates:
        kept = [0 if group.name in inner else floor for group, floor in zip(free, floors, strict=True)]
        ranked = removal_order(free, scores, shifts, kept, per_layer=per_layer, freed=freed)
        return Candidates(groups, scores, ranked, decided, blocks, min_channels, round_to)

    floors = [max(min_channels, group.size - int(max_ratio * group.size + 1e-9)) for group in free]
    if layer_floor:
        even = _stays(graph, candidates(floors, per_layer=True), targets)
        floors = [
            max(floor, ceil(layer_floor * even[group.units].sum() - 1e-9))
            for floor, group in zip(floors, free, strict=True)
        ]
    found = candidates(floors, per_layer=threshold_over == "layer")
    if ratio is not None and threshold_over == "all":
        threshold = _seed_threshold(graph, ratio) if ratio else -1.0
        count = int(np.searchsorted(scores[found.ranked], threshold, side="right"))
        chosen = _plan(graph, found, found.stays_after(count), max(0.0, threshold))
    else:
        chosen = _plan(graph, found, _stays(graph, found, targets))
    if not meaningless and (starved := _starved(free, chosen, min_channels)):
        some = f"{plural(len(starved), 'layer')} {'keeps' if len(starved) == 1 else 'keep'}"
        few = plural(min_channels, "channel")
        floors_help = threshold_over == "prunable" and not layer_floor
        more = "layer_floor 0.8 may leave them more" if floors_help else "removing less leaves them more"
        warnings.warn(f"{some} only {few}, as {starved[0]}; {more}", stacklevel=2)
    return chosen


def _stays(graph: ChannelGraph, candidates: Candidates, targets: dict[str, float]) -> Stays:
    """What remains of the candidates for a ratio, or within budgets."""
    if "ratio" in targets:
        return candidates.stays_after(candidates.count_for(targets["ratio"]))
    costs = cost_model(graph)
    budgets = []
    if "params" in targets:
        budgets.append(Budget(targets["params"], "parameters", costs.params))
    if "macs" in targets:
        budgets.append(Budget(targets["macs"], "MACs", costs.macs))
    if "latency_ms" in targets:
        latency = Budget(
            targets["latency_ms"], "ms", lambda s: _latency(_plan(graph, candidates, s)), slack=0.02
        )
        budgets.append(latency)
    stays = candidates.within(budgets)
    fills = candidates.round_to == 1 and "latency_ms" not in targets
    return candidates.filled(stays, budgets) if fills else stays


def _targets(graph: ChannelGraph, **targets: float | str | None) -> dict[str, float]:
    """A ratio, or budgets in parameters, multiply-accumulates and milliseconds."""
    given = {name: value for name, value in targets.items() if value is not None}
    if not given or ("ratio" in given and len(given) > 1):
        names = ", ".join(given) or "none"
        raise SlimnetError(f"give a ratio, or budgets: params, macs, latency_ms; given: {names}")
    return {name: _target(graph, name, value) for name, value in given.items()}


def _target(graph: ChannelGraph, name: str, value: float | str) -> float:
    if isinstance(value, str) and name in ("params", "macs"):
        return _percentage(graph, name, value)
    if not isinstance(value, Real) or isinstance(value, bool):
        raise SlimnetError(
            f"{name} is {value!r}; it is a number"
            + (', or a text like "50%"' if name in ("params", "macs") else "")
        )
    if name == "ratio" and not 0 <= value < 1:
        raise SlimnetError(f"ratio is {value}; it is a fraction of at least 0 and below 1")
    if name != "ratio" and not value > 0:
        raise SlimnetError(f"{name} is {value}; a budget is above 0")
    if name in ("params", "macs") and value < 1:
        raise SlimnetError(
            f'{name} is {value}, less than one; for {value:.0%} of the network write {name}="{value:.0%}"'
        )
    return value


def _percentage(graph: ChannelGraph, name: str, text: str) -> float:
    """A budget given as a percentage of the whole network."""
    try:
        fraction = float(text.strip().removesuffix("%")) / 100
    except ValueError:
        fraction = -1
    if not text.strip().endswith("%") or not 0 < fraction <= 1:
        raise SlimnetError(
            f'{name} is {text!r}; it is a number, or a percentage of the network such as "50%"'
        )
    costs, whole = cost_model(graph), np.ones(graph.unit_count, dtype=bool)
    return int(fraction * (costs.params(whole) if name == "params" else costs.macs(whole)))


def _by_wish(
    graph: ChannelGraph, groups: list[ChannelGroup], keep: Sequence[str], ratios: Mapping[str, float]
) -> tuple[list[ChannelGroup], list[tuple[ChannelGroup, float]]]:
    """The groups without those that are kept by name, and those with a ratio of their own."""
    layers = [name for name, layer in graph.layers.items() if layer.positions]
    for pattern in (*keep, *ratios):
        if not any(fnmatchcase(name, pattern) for name in layers):
            near = ", ".join(get_close_matches(pattern, layers, 3, 0)) or "none"
            raise SlimnetError(f"no conv or linear layer is named {pattern}; the nearest are {near}")
    for pattern, value in ratios.items():
        if not (isinstance(value, Real) and 0 <= value < 1):
            raise SlimnetError(
                f"the ratio of {pattern} is {value!r}; it is a fraction of at least 0 and below 1"
            )

    def matches(group: ChannelGroup, pattern: str) -> bool:
        return any(fnmatchcase(name, pattern) for name in group.producers)

    left = [group for group in groups if not any(matches(group, pattern) for pattern in keep)]
    if not left:
        raise SlimnetError("keep names every layer that could be pruned; leave one out")
    own = []
    for group in left:
        values = [value for pattern, value in ratios.items() if matches(group, pattern)]
        if values:
            own.append((group, min(values)))
    return left, own


def _are_alike(groups: Sequence[ChannelGroup], scores: Floats) -> bool:
    values = np.concatenate([scores[group.units] for group in groups])
    return len(values) > 1 and bool(np.ptp(values) <= 1e-3 * values.max())


def _starved(groups: Sequence[ChannelGroup], chosen: PruningPlan, least: int) -> list[str]:
    """The groups that have collapsed: of many channels only the least are left."""
    return [
        group.name
        for group in groups
        if group.size > 2 * least and len(chosen.kept.get(group.name, group.units)) == least
    ]


def _check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    if value not in choices:
        hint = did_you_mean(str(value), [choice for choice in choices if isinstance(choice, str)])
        takes = f"it is one of {', '.join(map(repr, choices))}"
        raise SlimnetError(f"{name} is {value!r}; {after_question(hint, takes)}")


def _choose_groups(graph: ChannelGraph, streams: bool, *, by_norm: bool = True) -> list[ChannelGroup]:
    groups = [
        group
        for group in graph.groups
        if not group.blocked and (group.scales or not by_norm) and (streams or not group.coupled)
    ]
    if not groups:
        reasons = dict.fromkeys(f"{group.name}: {group.reason}" for group in graph.groups)
        hint = (
            '; a score by weights, such as "l2", needs no BatchNorm'
            if by_norm and any(not group.blocked and not group.scales for group in graph.groups)
            else ""
        )
        computed = [name for name, module in graph.model.named_modules() if is_reparametrized(module)]
        if computed:
            hint += (
                f"; the weights of {', '.join(computed[:3])} are computed (weight norm, spectral norm, a "
                "mask): make them plain first, as with torch.nn.utils.parametrize.remove_parametrizations"
            )
        raise SlimnetError("no channel of this network can be pruned: " + "; ".join(list(reasons)[:3]) + hint)
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
    every = np.sort(np.concatenate([*gamma_magnitudes(graph).values()]))
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
