"""Plans that meet a budget: counted costs are the real ones, and whole channels come as close as they can."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.models as tm
from torch import nn

import slimnet
from slimnet.pruning.budget import cost_model
from slimnet.pruning.plan import load_plan

Scatter = Callable[..., nn.Module]
EXAMPLE = torch.zeros(1, 3, 32, 32, dtype=torch.float64)
NETWORKS = {
    "own": lambda: slimnet.models.resnet([2, 2], 8),
    "mobilenet_v2": lambda: tm.mobilenet_v2(weights=None, width_mult=0.25),
    "densenet": lambda: tm.DenseNet(8, (2, 2), 16, num_classes=10),
    "resnext": lambda: tm.ResNet(tm.resnet.Bottleneck, [1, 1, 1, 1], groups=8, width_per_group=2),
}


@pytest.fixture(params=list(NETWORKS))
def model(request: pytest.FixtureRequest, scatter: Scatter) -> nn.Module:
    return scatter(NETWORKS[request.param]())


@pytest.fixture
def own(scatter: Scatter) -> nn.Module:
    return scatter(NETWORKS["own"]())


@pytest.mark.parametrize("streams", [False, True])
def test_counted_costs_are_those_of_the_pruned_network(model: nn.Module, streams: bool) -> None:
    graph = slimnet.trace(model, EXAMPLE)
    costs = cost_model(graph)
    for ratio in (0.0, 0.4, 0.9):
        plan = slimnet.plan(graph, ratio=ratio, streams=streams)
        stays = np.ones(graph.unit_count, dtype=bool)
        for group in graph.groups:
            if group.name in plan.kept:
                stays[np.delete(group.units, plan.kept[group.name])] = False
        smaller = slimnet.prune(model, plan)
        assert costs.params(stays) == slimnet.count_params(smaller)
        assert costs.macs(stays) == slimnet.count_macs(smaller, EXAMPLE)


@pytest.mark.parametrize(
    "options", [{}, {"streams": True}, {"score": "gamma-weight"}, {"cost_aware": "params"}]
)
def test_parameter_budget_is_met_from_below_and_closely(model: nn.Module, options: dict[str, Any]) -> None:
    graph = slimnet.trace(model, EXAMPLE)
    floor = slimnet.prune(model, slimnet.plan(graph, ratio=0.999, min_channels=1))
    budget = (slimnet.count_params(floor) + slimnet.count_params(model)) // 2
    plan = slimnet.plan(graph, params=budget, min_channels=1, **options)
    left = slimnet.count_params(slimnet.prune(model, plan))
    dearest = cost_model(graph).freed("params").max()
    assert budget - dearest < left <= budget


def test_mac_budget_is_met_from_below_and_closely(model: nn.Module) -> None:
    graph = slimnet.trace(model, EXAMPLE)
    budget = int(0.85 * slimnet.count_macs(model, EXAMPLE))
    plan = slimnet.plan(graph, macs=budget, min_channels=1)
    left = slimnet.count_macs(slimnet.prune(model, plan), EXAMPLE)
    assert 0.97 * budget < left <= budget


def test_latency_budget_is_met() -> None:
    model = slimnet.models.resnet([1, 1], 32).eval()
    graph = slimnet.trace(model, torch.zeros(8, 3, 32, 32))
    dense = slimnet.measure_latency(model, torch.zeros(8, 3, 32, 32)).median_ms
    plan = slimnet.plan(graph, latency_ms=10 * dense)
    assert plan.removed_channels == 0
    with pytest.raises(slimnet.SlimnetError, match=r"1e-06 ms cannot be met: pruning ends at .* ms"):
        slimnet.plan(graph, latency_ms=1e-6)


@pytest.mark.parametrize("budget", ["params", "macs"])
def test_budget_below_the_floor_names_the_floor(own: nn.Module, budget: str) -> None:
    graph = slimnet.trace(own, EXAMPLE)
    least = slimnet.prune(own, slimnet.plan(graph, ratio=0.999))
    floor = slimnet.count_params(least) if budget == "params" else slimnet.count_macs(least, EXAMPLE)
    with pytest.raises(slimnet.SlimnetError, match=f"cannot be met: pruning ends at {floor:,} "):
        slimnet.plan(graph, **{budget: floor - 1})
    assert slimnet.plan(graph, **{budget: floor}).removed_channels > 0


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ({}, "give a ratio, or budgets: params, macs, latency_ms; given: none"),
        ({"ratio": 0.5, "params": 10}, "given: ratio, params"),
        ({"macs": 0}, "macs is 0"),
        ({"params": 10, "threshold_over": "all"}, "goes with a ratio"),
        ({"ratio": 0.5, "round_to": 0}, "round_to 0"),
    ],
)
def test_targets_that_make_no_sense(own: nn.Module, targets: dict[str, Any], message: str) -> None:
    with pytest.raises(slimnet.SlimnetError, match=message):
        slimnet.plan(slimnet.trace(own, EXAMPLE), **targets)


def test_widths_are_rounded_up_to_multiples(own: nn.Module) -> None:
    graph = slimnet.trace(own, EXAMPLE)
    for target in ({"ratio": 0.6}, {"params": int(0.7 * slimnet.count_params(own))}):
        smaller = slimnet.prune(own, slimnet.plan(graph, round_to=4, **target))
        assert all(width % 4 == 0 for width in smaller.widths)
        assert slimnet.count_params(smaller) < slimnet.count_params(own)


def test_each_layer_loses_the_same_fraction(own: nn.Module) -> None:
    plan = slimnet.plan(slimnet.trace(own, EXAMPLE), ratio=0.5, threshold_over="layer", min_channels=1)
    losses = {after / before for layer, before, after in plan.table() if layer.endswith(("conv1", "conv2"))}
    assert losses <= {0.5, 1.0}


def test_scores_that_readers_weigh_do_not_change_when_gamma_and_weights_trade_scale(own: nn.Module) -> None:
    def widths(**options: Any) -> list[int]:
        graph = slimnet.trace(own, EXAMPLE)
        return slimnet.prune(own, slimnet.plan(graph, ratio=0.5, **options)).widths

    before = widths(score="gamma-weight"), widths()
    block = own.stages[0][0]
    with torch.no_grad():  # act(kx) = k·act(x): the network stays the same
        for tensor in (block.bn1.weight, block.bn1.bias):
            tensor *= 100
        block.conv2.weight /= 100
    assert widths(score="gamma-weight") == before[0]
    assert widths() != before[1]


def test_random_scores_follow_from_the_seed(own: nn.Module) -> None:
    graph = slimnet.trace(own, EXAMPLE)
    tables = [slimnet.plan(graph, ratio=0.5, score="random", seed=seed).table() for seed in (1, 1, 2)]
    assert tables[0] == tables[1] != tables[2]


def test_plan_is_printed_saved_and_applied_to_a_network_of_the_same_structure(
    own: nn.Module, scatter: Scatter, tmp_path: Path
) -> None:
    plan = slimnet.plan(slimnet.trace(own, EXAMPLE), ratio=0.5)
    assert "stages.0.0.conv1" in str(plan)
    assert "50.0% of 96 prunable channels removed" in str(plan)
    plan.save(tmp_path / "plan.json")
    twin = scatter(NETWORKS["own"](), seed=1)
    again = load_plan(tmp_path / "plan.json", slimnet.trace(twin, EXAMPLE))
    assert slimnet.prune(twin, again).widths == slimnet.prune(own, plan).widths
    other = slimnet.models.resnet([2, 2], 12)
    with pytest.raises(slimnet.SlimnetError, match=r"another network: conv1 has .* \[3, 8\] in the plan"):
        load_plan(tmp_path / "plan.json", slimnet.trace(other, EXAMPLE.float()))


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"format": "slimnet plan", "version": 99}'])
def test_what_is_no_plan_is_refused(own: nn.Module, tmp_path: Path, content: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(content)
    with pytest.raises(slimnet.SlimnetError, match=r"plan\.json cannot be used as a plan"):
        load_plan(path, slimnet.trace(own, EXAMPLE))
