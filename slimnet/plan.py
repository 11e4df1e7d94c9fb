"""Which channels stay: a ranking, how far down it to cut, and a floor under every layer.

Network Slimming (Liu et al., ICCV 2017, arXiv 1708.06519): the scaling factors |γ| of BatchNorm rank all
channels of the network at once, and one global threshold decides. The threshold may come from a share of
channels, or from a budget of parameters, multiply-accumulates or milliseconds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import gcd
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from slimnet.budget import CostModel, Stays, cost_model
from slimnet.errors import SlimnetError
from slimnet.graph import ChannelGraph, ChannelGroup
from slimnet.latency import measure_latency
from slimnet.ranking import Floats, Score, Units, gamma_magnitudes, norm_layers, removal_order, unit_scores
from slimnet.surgery import prune

ThresholdOver = Literal["prunable", "all", "layer"]
MIN_CHANNELS = 3  # the seed experiment's floor
FILL_TRIES = 500  # units looked at to use up what a budget leaves over
LATENCY_SECONDS = 0.3  # of measuring per candidate of a latency budget


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

    def table(self) -> list[tuple[str, int, int]]:
        """(layer, output channels before, after) for every layer that produces channels."""
        cuts = self.cuts()
        norms = set(norm_layers(self.graph))
        return [
            (name, len(units.outputs), len(cuts[name].outputs) if name in cuts else len(units.outputs))
            for name, units in self.graph.layers.items()
            if name not in norms
        ]

    def __str__(self) -> str:
        rows = self.table()
        width = max(len(name) for name, _, _ in rows)
        lines = [f"{name:{width}}  {before:6} -> {after:6}" for name, before, after in rows]
        return "\n".join([*lines, f"{self.ratio:.1%} of {self.prunable_channels:,} prunable channels removed"])

    def save(self, path: str | Path) -> None:
        """Write the plan as JSON; it applies to every network of the same structure."""
        content = {
            "format": "slimnet plan",
            "version": 1,
            "layers": {name: list(map(len, (u.inputs, u.outputs))) for name, u in self.graph.layers.items()},
            "kept": {name: kept.tolist() for name, kept in self.kept.items()},
            "threshold": self.threshold,
            "prunable_channels": self.prunable_channels,
            "removed_channels": self.removed_channels,
        }
        path = Path(path)
        aside = path.with_name(f".{path.name}.part")
        try:
            aside.write_text(json.dumps(content) + "\n", encoding="utf-8")
            aside.replace(path)
        except OSError as error:
            raise SlimnetError(f"cannot write {path}: {error.strerror}") from error


def load_plan(path: str | Path, graph: ChannelGraph) -> PruningPlan:
    """Read a plan for the network that `graph` is of.

    Raises:
        SlimnetError: no such file, no plan, or a plan for another network, naming the first layer that
            disagrees.
    """
    try:
        content: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
        if content.get("format") != "slimnet plan":
            raise ValueError("it is no slimnet plan")
        if content["version"] > 1:
            raise ValueError("it was written by a newer slimnet; upgrade")
        layers, kept = content["layers"], content["kept"]
    except OSError as error:
        raise SlimnetError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise SlimnetError(f"{path} cannot be used as a plan: {error}") from error
    own = {name: [len(units.inputs), len(units.outputs)] for name, units in graph.layers.items()}
    for name in [*layers, *own]:
        if layers.get(name) != own.get(name):
            raise SlimnetError(
                f"{path} is a plan for another network: {name} has (in, out) channels {layers.get(name)} in the "
                f"plan and {own.get(name)} here"
            )
    return PruningPlan(
        graph,
        {name: np.array(positions, dtype=np.int64) for name, positions in kept.items()},
        content["threshold"],
        content["prunable_channels"],
        content["removed_channels"],
    )


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
    cost_aware: Literal["params", "macs"] | None = None,
    min_channels: int = MIN_CHANNELS,
    round_to: int = 1,
    streams: bool = False,
    seed: int = 0,
) -> PruningPlan:
    """Choose the channels to keep, by a share of channels or by one budget.

    Args:
        graph: from `trace(model, ...)`; the scaling factors of that model are read.
        ratio: share of prunable channels to remove, 0 <= ratio < 1.
        params: the most parameters that may remain.
        macs: the most multiply-accumulates per image.
        latency_ms: the longest time for the example's shape, measured on this machine (median).
        score: "gamma", "gamma-weight" or "random"; see `slimnet.ranking.unit_scores`.
        threshold_over: "prunable" removes the lowest scores of the whole network, exactly the share asked for
            as far as `min_channels` allows; "layer" the same share of every group; "all" takes the threshold
            over every BatchNorm channel, unprunable ones included, as the seed experiment did (the share of
            prunable channels then differs).
        cost_aware: rank by score per parameter or multiply-accumulate that a channel frees.
        min_channels: units that stay in every group, so that no layer is ever emptied.
        round_to: widths of pruned layers become multiples of this, upwards.
        streams: prune coupled groups (residual streams) too.
        seed: of score "random".

    Raises:
        SlimnetError: not exactly one of ratio and the budgets, a value out of range, a budget below the
            floor (which it names), γ that is not finite, or nothing to prune.
    """
    budget = _one_target(ratio=ratio, params=params, macs=macs, latency_ms=latency_ms)
    if min_channels < 1 or round_to < 1:
        raise SlimnetError(f"min_channels is {min_channels} and round_to {round_to}; both are at least 1")
    if threshold_over == "all" and ratio is None:
        raise SlimnetError('threshold_over="all" goes with a ratio; a budget finds its own threshold')
    groups = _choose_groups(graph, streams)
    costs = cost_model(graph)
    scores = unit_scores(graph, score, seed)
    ranked = removal_order(
        groups,
        scores,
        min_channels,
        per_layer=threshold_over == "layer",
        freed=costs.freed(cost_aware) if cost_aware else None,
    )

    def stays_after(count: int) -> Stays:
        stays = np.ones(graph.unit_count, dtype=bool)
        stays[ranked[:count]] = False
        return _rounded(stays, groups, scores, round_to) if round_to > 1 else stays

    threshold = None
    if ratio is not None:
        if threshold_over == "all":
            threshold = _seed_threshold(graph, ratio)
            stays = stays_after(int(np.searchsorted(scores[ranked], threshold, side="right")) if ratio else 0)
        else:
            stays = stays_after(_count_for_ratio(ratio, ranked, groups, graph.unit_count))
    elif budget == "latency_ms":
        stays = _within(latency_ms, "ms", lambda s: _latency(_plan(graph, groups, s, scores)), stays_after, len(ranked), 0.02)
    else:
        measure: Callable[[Stays], float] = costs.params if budget == "params" else costs.macs
        limit = float(params if params is not None else macs)  # type: ignore[arg-type]
        stays = _within(limit, "parameters" if budget == "params" else "MACs", measure, stays_after, len(ranked), 0.0)
        if round_to == 1:
            stays = _filled(stays, ranked, measure, limit)
    return _plan(graph, groups, stays, scores, threshold)


def _one_target(**targets: float | None) -> str:
    """Which of ratio and the budgets is given."""
    given = {name: value for name, value in targets.items() if value is not None}
    if len(given) != 1:
        raise SlimnetError(f"give exactly one of {', '.join(targets)}; given: {', '.join(given) or 'none'}")
    (name, value), = given.items()
    if name == "ratio" and not 0 <= value < 1:
        raise SlimnetError(f"ratio is {value}; it is a share of at least 0 and below 1")
    if name != "ratio" and not value > 0:
        raise SlimnetError(f"{name} is {value}; a budget is above 0")
    return name


def _choose_groups(graph: ChannelGraph, streams: bool) -> list[ChannelGroup]:
    groups = [group for group in graph.groups if not group.blocked and (streams or not group.coupled)]
    if not groups:
        reasons = dict.fromkeys(f"{group.name}: {group.reason}" for group in graph.groups)
        raise SlimnetError("no channel of this network can be pruned: " + "; ".join(list(reasons)[:3]))
    return groups


def _count_for_ratio(ratio: float, ranked: Units, groups: Sequence[ChannelGroup], unit_count: int) -> int:
    """How many units of the ranking make up a share of the channels."""
    channels = _unit_channels(groups, unit_count)
    # 1e-9 keeps 0.3 * 10 from counting as less than 3.
    return int(np.searchsorted(np.cumsum(channels[ranked]), ratio * channels.sum() + 1e-9, side="right"))


def _seed_threshold(graph: ChannelGraph, ratio: float) -> float:
    """The seed experiment's threshold: the |γ| at `ratio` of all BatchNorm channels in ascending order."""
    every = np.sort(np.concatenate([gamma_magnitudes(graph, name) for name in norm_layers(graph)]))
    return float(every[int(len(every) * ratio)])


def _unit_channels(groups: Sequence[ChannelGroup], unit_count: int) -> NDArray[np.int64]:
    channels = np.zeros(unit_count, dtype=np.int64)
    for group in groups:
        channels[group.units] = group.unit_channels
    return channels


def _rounded(stays: Stays, groups: Sequence[ChannelGroup], scores: Floats, multiple: int) -> Stays:
    """Bring back the best removed units of each group until its layers' widths are multiples."""
    stays = stays.copy()
    for group in groups:
        per_layer = group.unit_channels // len(group.producers)
        step = multiple // gcd(multiple, max(1, per_layer))
        kept = int(stays[group.units].sum())
        missing = min(group.size, -(-kept // step) * step) - kept
        gone = group.units[~stays[group.units]]
        stays[gone[np.argsort(-scores[gone], kind="stable")][:missing]] = True
    return stays


def _within(
    limit: float | None,
    unit: str,
    measure: Callable[[Stays], float],
    stays_after: Callable[[int], Stays],
    most: int,
    slack: float,
) -> Stays:
    """The fewest removals whose cost is within the limit; cost falls as more is removed.

    Raises:
        SlimnetError: even removing everything that may go is not enough; `slack` allows for noise there.
    """
    assert limit is not None
    floor = measure(stays_after(most))
    if floor > limit * (1 + slack):
        raise SlimnetError(
            f"a budget of {limit:,.6g} {unit} cannot be met: what can be pruned ends at {floor:,.6g} {unit}; "
            f"lower min_channels, or prune the residual streams too (streams=True)"
        )
    low, high = 0, most
    while low < high:
        middle = (low + high) // 2
        if measure(stays_after(middle)) <= limit:
            high = middle
        else:
            low = middle + 1
    return stays_after(low)


def _filled(stays: Stays, ranked: Units, measure: Callable[[Stays], float], limit: float) -> Stays:
    """Bring back removed units, the best first, that still fit into the budget."""
    stays = stays.copy()
    for unit in ranked[~stays[ranked]][::-1][:FILL_TRIES]:
        stays[unit] = True
        if measure(stays) > limit:
            stays[unit] = False
    return stays


def _latency(candidate: PruningPlan) -> float:
    """Milliseconds of the network that a plan leads to."""
    model = candidate.graph.model
    parameter = next(model.parameters())
    example = torch.zeros(candidate.graph.input_shape, dtype=parameter.dtype, device=parameter.device)
    return measure_latency(prune(model, candidate, absorb=False), example, seconds=LATENCY_SECONDS).median_ms


def _plan(
    graph: ChannelGraph,
    groups: Sequence[ChannelGroup],
    stays: Stays,
    scores: Floats,
    threshold: float | None = None,
) -> PruningPlan:
    channels = _unit_channels(groups, graph.unit_count)
    gone = ~stays
    if threshold is None:
        threshold = float(scores[gone].max()) if gone.any() else 0.0
    kept = {group.name: np.flatnonzero(stays[group.units]) for group in groups if gone[group.units].any()}
    return PruningPlan(graph, kept, threshold, int(channels.sum()), int(channels[gone].sum()))
