from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from slimnet import ChannelGraph, PruningPlan, SlimnetError, models, plan, trace
from slimnet.pruning.planning import scaling_factors


def graph_of(network: nn.Module, size: int = 16) -> ChannelGraph:
    return trace(network, torch.zeros(1, 3, size, size))


@pytest.fixture
def graph() -> ChannelGraph:
    """Two stages, 2 * (2 * 8 + 2 * 16) = 96 prunable channels, their γ in random order and all different."""
    network = models.resnet([2, 2], 8)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    order = iter(torch.randperm(sum(norm.num_features for norm in norms)).add(1).float())
    with torch.no_grad():
        for norm in norms:
            norm.weight.copy_(torch.stack([next(order) for _ in range(norm.num_features)]) / 1000)
    return graph_of(network)


def removed_gammas(chosen: PruningPlan) -> np.ndarray[Any, Any]:
    graph = chosen.graph
    found = []
    for group in graph.groups:
        if group.name in chosen.kept:
            gone = np.setdiff1d(np.arange(group.size), chosen.kept[group.name])
            found.append(graph.model.get_submodule(group.scales[0]).weight.detach().numpy()[gone])
    return np.concatenate(found)


@pytest.mark.parametrize("ratio", [0, 0.1, 0.25, 0.3, 0.5, 0.7])
def test_exactly_the_share_goes(graph: ChannelGraph, ratio: float) -> None:
    chosen = plan(graph, ratio=ratio)
    assert chosen.prunable_channels == 96
    assert chosen.removed_channels == int(ratio * 96)
    assert chosen.ratio == pytest.approx(ratio, abs=1 / 96)
    assert bool(chosen.cuts()) == (ratio > 0)


def test_the_smallest_gammas_go(graph: ChannelGraph) -> None:
    chosen = plan(graph, ratio=0.3, min_channels=1)
    prunable = [g.scales[0] for g in graph.groups if g.prunable]
    every = np.sort(np.concatenate([graph.model.get_submodule(n).weight.detach().numpy() for n in prunable]))
    np.testing.assert_array_equal(np.sort(removed_gammas(chosen)), every[: chosen.removed_channels])
    assert chosen.threshold == pytest.approx(float(every[chosen.removed_channels - 1]))


def test_sign_of_gamma_does_not_matter(graph: ChannelGraph) -> None:
    before = plan(graph, ratio=0.5)
    with torch.no_grad():
        for gamma in scaling_factors(graph).values():
            gamma.mul_(-1)
    after = plan(graph, ratio=0.5)
    assert {name: kept.tolist() for name, kept in before.kept.items()} == {
        name: kept.tolist() for name, kept in after.kept.items()
    }


@pytest.mark.parametrize("least", [1, 3, 5])
def test_no_layer_falls_below_the_minimum(graph: ChannelGraph, least: int) -> None:
    with torch.no_grad():
        graph.model.get_submodule("stages.0.0.bn1").weight.zero_()
    chosen = plan(graph, ratio=0.99, min_channels=least)
    assert {len(kept) for kept in chosen.kept.values()} == {least}
    assert chosen.removed_channels == 96 - 8 * least


@pytest.mark.parametrize("ratio", [0.25, 0.5])
def test_a_floor_feeds_a_layer_that_scores_would_starve(graph: ChannelGraph, ratio: float) -> None:
    with torch.no_grad():
        graph.model.get_submodule("stages.0.0.bn1").weight.mul_(1e-6)
    plans = [plan(graph, ratio=ratio, layer_floor=floor, min_channels=1) for floor in (0, 0.5, 1)]
    assert {chosen.removed_channels for chosen in plans} == {int(ratio * 96)}
    none, half, full = (len(chosen.kept["stages.0.0.conv1"]) for chosen in plans)
    assert none == 1
    assert none <= half <= full <= (1 - ratio) * 8
    assert full > none


def test_a_cost_with_power_0_changes_nothing(graph: ChannelGraph) -> None:
    plain, costly = plan(graph, ratio=0.5), plan(graph, ratio=0.5, cost_aware="params", cost_power=0)
    assert {name: kept.tolist() for name, kept in plain.kept.items()} == {
        name: kept.tolist() for name, kept in costly.kept.items()
    }
    by_root = plan(graph, ratio=0.5, cost_aware="params", cost_power=0.5)
    assert {len(kept) for kept in by_root.kept.values()} != {len(kept) for kept in plain.kept.values()}


def test_layers_smaller_than_the_minimum_stay_whole(graph: ChannelGraph) -> None:
    chosen = plan(graph, ratio=0.99, min_channels=10)
    assert set(chosen.kept) == {f"stages.1.{block}.conv{conv}" for block in (0, 1) for conv in (1, 2)}


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.9])
def test_threshold_over_all_is_the_rule_of_the_seed(graph: ChannelGraph, ratio: float) -> None:
    norms = {n: m for n, m in graph.model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    every = torch.cat([norm.weight.detach().abs() for norm in norms.values()]).sort().values
    threshold = float(every[int(len(every) * ratio)])
    chosen = plan(graph, ratio=ratio, threshold_over="all", min_channels=1)
    cuts = chosen.cuts()
    for name, norm in norms.items():
        wanted = (norm.weight.detach().abs() > threshold).numpy()
        if name.endswith(("bn1", "bn2")) and name != "bn1" and wanted.any():
            kept = cuts[name].outputs if name in cuts else np.arange(norm.num_features)
            np.testing.assert_array_equal(kept, np.flatnonzero(wanted))
    assert chosen.threshold == pytest.approx(threshold)


def test_threshold_over_all_at_zero_removes_nothing(graph: ChannelGraph) -> None:
    assert plan(graph, ratio=0, threshold_over="all").removed_channels == 0


def test_streams_are_kept_unless_asked_for(graph: ChannelGraph) -> None:
    assert not any(graph[name].coupled for name in plan(graph, ratio=0.9).kept)
    chosen = plan(graph, ratio=0.9, streams=True)
    assert graph["stages.0.0.conv3"].name in chosen.kept
    cuts = chosen.cuts()
    ends = ("stages.0.0.conv3", "stages.0.0.shortcut", "stages.0.1.conv3", "stages.0.0.bn3")
    assert len({tuple(cuts[name].outputs) for name in ends}) == 1
    assert tuple(cuts["stages.1.0.conv1"].inputs) == tuple(cuts[ends[0]].outputs)


def test_stream_scores_are_means_over_its_norms(graph: ChannelGraph) -> None:
    members = graph["stages.1.0.conv3"].scales
    assert len(members) == 2
    with torch.no_grad():
        for gamma in graph.model.parameters():
            gamma.fill_(1)
        graph.model.get_submodule(members[0]).weight[:2] = torch.tensor([0.1, 0.4])
        graph.model.get_submodule(members[1]).weight[:2] = torch.tensor([0.9, 0.2])
    # 0.5 and 0.3: the second goes first, which neither the smallest nor the largest member would say.
    chosen = plan(graph, ratio=0.012, streams=True)
    assert {name: np.setdiff1d(np.arange(64), kept).tolist() for name, kept in chosen.kept.items()} == {
        graph["stages.1.0.conv3"].name: [1]
    }


def test_units_of_several_channels_do_not_block_smaller_ones() -> None:
    """Depthwise units hold two channels; the share is still met to within one unit."""
    network = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, groups=8), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 9, 1), nn.BatchNorm2d(9), nn.Conv2d(9, 2, 1),
    )  # fmt: skip
    with torch.no_grad():
        for norm in (network[1], network[3], network[6]):
            norm.weight.uniform_(0.1, 1)
    graph = graph_of(network)
    for ratio in np.linspace(0, 0.7, 30):
        chosen = plan(graph, ratio=float(ratio), min_channels=1)
        assert chosen.prunable_channels == 25
        assert 0 <= ratio * 25 - chosen.removed_channels + 1e-9 < 2


def test_equal_scores_are_cut_to_the_share() -> None:
    chosen = plan(graph_of(models.resnet([1], 8)), ratio=0.5)
    assert chosen.removed_channels == 8


def test_of_equal_scores_the_one_that_emits_least_goes_first() -> None:
    network = models.resnet([1], 8)
    norm = network.get_submodule("stages.0.0.bn1")
    with torch.no_grad():
        norm.weight[[1, 4, 6]] = 0
        norm.bias[:] = 0
        norm.bias[[1, 4, 6]] = torch.tensor([0.3, -0.1, 0.2])
    gone = [plan(graph_of(network), ratio=count / 16, min_channels=1).cuts() for count in (1, 2, 3)]
    kept = [set(cuts["stages.0.0.bn1"].outputs.tolist()) for cuts in gone]
    assert [set(range(8)) - some for some in kept] == [{4}, {4, 6}, {1, 4, 6}]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": 1.0}, r"ratio is 1\.0"),
        ({"ratio": -0.1}, r"ratio is -0\.1"),
        ({"ratio": float("nan")}, "ratio is nan"),
        ({"ratio": 0.5, "min_channels": 0}, "min_channels is 0"),
        ({"ratio": "0.5"}, "ratio is '0.5'; it is a number"),
        ({"ratio": 0.5, "min_channels": 2.5}, r"min_channels is 2\.5; it is a whole number"),
        ({"ratio": 0.5, "score": "gamma_weight"}, "score is 'gamma_weight'; it is one of 'gamma', 'gamma-w"),
        ({"ratio": 0.5, "threshold_over": "per-layer"}, "threshold_over is 'per-layer'; it is one of"),
        ({"ratio": 0.5, "layer_floor": 1.5}, "layer_floor is 1.5; it is a fraction from 0 to 1"),
        ({"ratio": 0.5, "cost_aware": "params", "cost_power": -1}, "cost_power is -1; it is at least 0"),
        ({"ratio": 0.5, "cost_aware": "flops"}, "cost_aware is 'flops'; it is one of None, 'params', 'macs'"),
    ],
)
def test_values_out_of_range_are_refused(graph: ChannelGraph, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SlimnetError, match=message):
        plan(graph, **options)


def test_diverged_scaling_factors_name_the_layer(graph: ChannelGraph) -> None:
    with torch.no_grad():
        graph.model.get_submodule("stages.1.0.bn2").weight[3] = float("nan")
    with pytest.raises(SlimnetError, match=r"stages\.1\.0\.bn2 has scaling factors that are not finite"):
        plan(graph, ratio=0.5)


def test_nothing_to_prune_says_why() -> None:
    graph = graph_of(nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 2, 1)))
    for ask in (lambda: plan(graph, ratio=0.5), lambda: scaling_factors(graph)):
        with pytest.raises(
            SlimnetError, match="no channel of this network can be pruned: 0: no BatchNorm follows"
        ):
            ask()


def test_scaling_factors_are_those_of_prunable_groups(graph: ChannelGraph) -> None:
    gammas = scaling_factors(graph)
    assert list(gammas) == [f"stages.{s}.{b}.bn{n}" for s in (0, 1) for b in (0, 1) for n in (1, 2)]
    assert all(gamma is graph.model.get_submodule(name).weight for name, gamma in gammas.items())
