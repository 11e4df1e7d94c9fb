from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from slimnet import (
    ChannelGraph,
    PruningPlan,
    SlimnetError,
    count_macs,
    count_params,
    models,
    plan,
    prune,
    trace,
)
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
def test_exactly_the_fraction_goes(graph: ChannelGraph, ratio: float) -> None:
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
    """Depthwise units hold two channels; the fraction is still met to within one unit."""
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


def test_equal_scores_are_cut_to_the_fraction() -> None:
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
        (
            {"ratio": 0.5, "score": "gamma_weight"},
            "score is 'gamma_weight'; did you mean gamma-weight\\? It is one of 'gamma', 'gamma-w",
        ),
        (
            {"ratio": 0.5, "threshold_over": "per-layer"},
            "threshold_over is 'per-layer'; did you mean layer\\? It is one of",
        ),
        (
            {"ratio": 0.5, "threshold_over": "all", "score": np.zeros(2)},
            'threshold_over="all" goes with a ratio',
        ),
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


def kept_fractions(chosen: PruningPlan) -> list[float]:
    groups = [group for group in chosen.graph.groups if group.prunable]
    return [len(chosen.kept.get(group.name, range(group.size))) / group.size for group in groups]


@pytest.fixture
def lopsided() -> ChannelGraph:
    """Every γ of the first conv of a block is below all others, so that scores alone would empty it."""
    network = models.resnet([2, 2], 8)
    with torch.no_grad():
        for name, module in network.named_modules():
            if isinstance(module, nn.BatchNorm2d):
                level = 0.1 if name.endswith("bn1") else 1.0
                module.weight.copy_(level * (1 + torch.rand(module.num_features)))
    return graph_of(network)


@pytest.mark.parametrize("target", [{"ratio": 0.5}, {"params": 6500}])
def test_layer_floor_leads_from_scores_alone_to_the_same_fraction_everywhere(
    lopsided: ChannelGraph, target: dict[str, Any]
) -> None:
    least = [
        min(kept_fractions(plan(lopsided, **target, layer_floor=layer_floor, min_channels=1)))
        for layer_floor in (0.0, 0.5, 1.0)
    ]
    even = kept_fractions(plan(lopsided, **target, threshold_over="layer", min_channels=1))
    assert least[0] <= 1 / 8 < least[1] < least[2]
    assert least[1] >= 0.5 * min(even)
    assert least[2] >= min(even)


def test_layer_floor_keeps_the_best_of_each_layer(lopsided: ChannelGraph) -> None:
    chosen = plan(lopsided, ratio=0.5, layer_floor=0.5, min_channels=1)
    for group in lopsided.groups:
        if group.name in chosen.kept:
            gamma = lopsided.model.get_submodule(group.scales[0]).weight.detach().numpy()
            gone = np.setdiff1d(np.arange(group.size), chosen.kept[group.name])
            assert gamma[gone].max() < gamma[chosen.kept[group.name]].min()


@pytest.mark.parametrize("layer_floor", [-0.1, 1.5, "much"])
def test_layer_floor_out_of_range_is_refused(graph: ChannelGraph, layer_floor: Any) -> None:
    with pytest.raises(SlimnetError, match="layer_floor is"):
        plan(graph, ratio=0.5, layer_floor=layer_floor)
    with pytest.raises(SlimnetError, match="layer_floor goes with"):
        plan(graph, ratio=0.5, layer_floor=0.5, threshold_over="layer")


def test_the_power_of_the_cost_weighs_it(graph: ChannelGraph) -> None:
    def kept(**options: Any) -> dict[str, int]:
        return {name: len(units) for name, units in plan(graph, ratio=0.5, **options).kept.items()}

    assert kept(cost_aware="params", cost_power=0) == kept()
    assert len({str(kept(cost_aware="params", cost_power=power)) for power in (0, 0.5, 1)}) == 3
    with pytest.raises(SlimnetError, match="cost_power is -1"):
        plan(graph, ratio=0.5, cost_aware="params", cost_power=-1)


@pytest.mark.parametrize("streams", [False, True])
def test_shuffled_keeps_as_many_channels_of_each_group_and_others(graph: ChannelGraph, streams: bool) -> None:
    chosen = plan(graph, ratio=0.5, streams=streams)
    shuffled = chosen.shuffled(0)
    sizes = {group.name: len(group.units) for group in graph.groups}
    assert shuffled.kept.keys() == chosen.kept.keys()
    for name, kept in shuffled.kept.items():
        assert len(kept) == len(chosen.kept[name])
        assert kept.tolist() == sorted(set(kept.tolist()) & set(range(sizes[name])))
    assert any(kept.tolist() != chosen.kept[name].tolist() for name, kept in shuffled.kept.items())
    assert (shuffled.removed_channels, shuffled.ratio) == (chosen.removed_channels, chosen.ratio)
    again, other = ([list(kept) for kept in chosen.shuffled(seed).kept.values()] for seed in (0, 1))
    assert again == [list(kept) for kept in shuffled.kept.values()] != other


def test_shuffled_chooses_every_channel_about_as_often(graph: ChannelGraph) -> None:
    chosen = plan(graph, ratio=0.5)
    name, kept = next(iter(chosen.kept.items()))
    size = next(len(group.units) for group in graph.groups if group.name == name)
    counts = np.bincount(np.concatenate([chosen.shuffled(seed).kept[name] for seed in range(400)]))
    assert len(counts) == size
    expected = 400 * len(kept) / size
    assert np.abs(counts - expected).max() < 0.25 * expected


# Wishes


def plain() -> nn.Module:
    """No BatchNorm anywhere."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(128, 6), nn.ReLU(), nn.Linear(6, 4),
    )  # fmt: skip


def batches() -> list[tuple[Tensor, Tensor]]:
    return [(torch.randn(8, 3, 8, 8), torch.randint(4, (8,))) for _ in range(2)]


@pytest.mark.parametrize("score", ["l1", "l2", "fpgm", "lamp", "taylor", "random"])
def test_networks_without_batchnorm_are_pruned_by_other_scores(score: Any) -> None:
    network = plain()
    with torch.no_grad():
        network[0].weight[:4] *= 1e-3
        network[0].bias[:4] *= 1e-3
        network[2].weight[:, :4] *= 1e-3
    graph = trace(network, torch.zeros(1, 3, 8, 8))
    chosen = plan(graph, ratio=0.3, score=score, min_channels=1, batches=batches())
    assert chosen.removed_channels == int(0.3 * 22)
    if score not in ("random", "lamp"):
        assert set(chosen.kept["0"]) == {4, 5, 6, 7}
    assert count_params(prune(network, chosen)) < count_params(network)


def test_scores_of_ones_own() -> None:
    graph = trace(plain(), torch.zeros(1, 3, 8, 8))
    mine = np.arange(graph.unit_count, dtype=np.float64)
    by_array, by_function = (plan(graph, ratio=0.5, score=s, min_channels=1) for s in (mine, lambda _: mine))
    assert {n: k.tolist() for n, k in by_array.kept.items()} == {
        n: k.tolist() for n, k in by_function.kept.items()
    }
    assert plan(graph, ratio=0.3, score=-mine, min_channels=1).kept["5"].tolist() == [0]
    with pytest.raises(SlimnetError, match="one finite number per unit"):
        plan(graph, ratio=0.5, score=mine[1:])


def test_scores_by_gamma_say_what_a_network_without_batchnorm_needs() -> None:
    with pytest.raises(SlimnetError, match=r'such as "l2", needs no BatchNorm'):
        plan(trace(plain(), torch.zeros(1, 3, 8, 8)), ratio=0.5)


def test_taylor_needs_batches() -> None:
    with pytest.raises(SlimnetError, match="give batches="):
        plan(trace(plain(), torch.zeros(1, 3, 8, 8)), ratio=0.5, score="taylor")


def test_scaling_factors_that_are_all_alike_are_told() -> None:
    graph = graph_of(models.resnet([1], 8))
    with pytest.warns(UserWarning, match="all scaling factors are alike"):
        plan(graph, ratio=0.5)


def test_layers_that_collapse_are_told_where_nobody_asked_for_it(graph: ChannelGraph) -> None:
    bad = np.random.default_rng(0).random(graph.unit_count)
    bad[graph["stages.1.0.conv1"].units] = -1  # worth least
    with pytest.warns(
        UserWarning, match=r"1 layer keeps only 2 channels, as stages\.1\.0\.conv1; layer_floor"
    ):
        plan(graph, ratio=0.2, score=bad, min_channels=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan(graph, ratio=0.2, score=bad, min_channels=2, layer_floor=0.8)
        plan(graph, ratio=0.1, score=bad, min_channels=2, layer_ratios={"stages.1.0.conv1": 0.9})


def test_layers_are_kept_and_cut_by_name(graph: ChannelGraph) -> None:
    chosen = plan(
        graph, ratio=0.5, keep=["stages.0.0.*"], layer_ratios={"stages.1.*.conv1": 0.25}, min_channels=1
    )
    assert not any(name.startswith("stages.0.0.") for name in chosen.kept)
    kept = {name: len(chosen.kept[name]) for name in ("stages.1.0.conv1", "stages.1.1.conv1")}
    assert kept == {"stages.1.0.conv1": 12, "stages.1.1.conv1": 12}
    with pytest.raises(SlimnetError, match=r"no conv or linear layer is named stages\.0\.conv; the nearest"):
        plan(graph, ratio=0.5, keep=["stages.0.conv"])
    with pytest.raises(SlimnetError, match="keep is 'conv1'; it is a list"):
        plan(graph, ratio=0.5, keep="conv1")


def test_no_layer_loses_more_than_the_largest_ratio(graph: ChannelGraph) -> None:
    chosen = plan(graph, ratio=0.5, max_ratio=0.6, min_channels=1)
    sizes = {group.name: group.size for group in graph.groups}
    assert chosen.removed_channels == 48
    assert all(len(kept) >= sizes[name] - int(0.6 * sizes[name]) for name, kept in chosen.kept.items())


def test_budgets_are_met_together_and_in_percent(graph: ChannelGraph) -> None:
    params, macs = count_params(graph.model), count_macs(graph.model, torch.zeros(1, 3, 16, 16))
    chosen = plan(graph, params="80%", macs="60%", min_channels=1)
    smaller = prune(graph.model, chosen)
    assert count_params(smaller) <= 0.8 * params
    assert count_macs(smaller, torch.zeros(1, 3, 16, 16)) <= 0.6 * macs
    with pytest.raises(SlimnetError, match=r'macs is 0\.5, less than one; .* write macs="50%"'):
        plan(graph, macs=0.5)  # type: ignore[arg-type]
    with pytest.raises(SlimnetError, match="params is 'half'; it is a number, or a percentage"):
        plan(graph, params="half")
