"""Identity blocks dropped: the network stays exact, loads again, trains, and is pruned again."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision.models as tm
from torch import nn

import slimnet
from slimnet.models.building import describe
from slimnet.models.stand_ins import Constant
from slimnet.networks import redraw

Scatter = Callable[..., nn.Module]
EXAMPLE = torch.randn(2, 3, 32, 32, dtype=torch.float64)
# A network, the norm inside an identity block whose channels are as good as off, and the block.
CASES = {
    "own": (lambda: slimnet.models.resnet([2, 3], 8), "stages.1.1.bn2", "stages.1.1"),
    "resnet18": (lambda: tm.resnet18(weights=None), "layer2.1.bn1", "layer2.1"),
    "mobilenet_v2": (lambda: tm.mobilenet_v2(weights=None), "features.5.conv.1.1", "features.5.conv"),
}


@pytest.fixture(params=list(CASES))
def case(request: pytest.FixtureRequest, scatter: Scatter) -> tuple[nn.Module, nn.Module, str]:
    """A network with a dead block, a fresh one of its class, the block's name."""
    make, norm, block = CASES[request.param]
    model = scatter(make())
    with torch.no_grad():
        model.get_submodule(norm).weight *= 1e-9
        if request.param == "mobilenet_v2":  # the depthwise conv shares its channels with the one before
            model.get_submodule("features.5.conv.0.1").weight.mul_(1e-9)
    return model, make().double(), block


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("absorb", [False, True])
def test_dropped_block_is_exact_and_loads_again(
    case: tuple[nn.Module, nn.Module, str], streams: bool, absorb: bool, tmp_path: Path
) -> None:
    model, fresh, block = case
    plan = slimnet.plan(slimnet.trace(model, EXAMPLE), ratio=0.3, streams=streams, drop_blocks=True)
    assert block in plan.dropped
    smaller = slimnet.prune(model, plan, absorb=absorb)
    slimnet.save(tmp_path / "smaller.pt", smaller)
    own = hasattr(model, "architecture")
    loaded = slimnet.load(tmp_path / "smaller.pt", model=None if own else fresh)
    with torch.no_grad():
        expected = slimnet.mask(model, plan, absorb=absorb)(EXAMPLE)
        assert (smaller(EXAMPLE) - expected).abs().max() < 1e-10
        assert torch.equal(loaded(EXAMPLE), smaller(EXAMPLE))


def test_blocks_stay_unless_asked_for(case: tuple[nn.Module, nn.Module, str]) -> None:
    model, _, _ = case
    assert slimnet.plan(slimnet.trace(model, EXAMPLE), ratio=0.3).dropped == ()


def test_widths_say_that_a_block_is_gone(scatter: Scatter) -> None:
    make, norm, _ = CASES["own"]
    model = scatter(make())
    with torch.no_grad():
        model.get_submodule(norm).weight.zero_()
    plan = slimnet.plan(slimnet.trace(model, EXAMPLE), ratio=0.2, drop_blocks=True)
    assert "stages.1.1 dropped" in str(plan)
    smaller = slimnet.prune(model, plan)
    assert smaller.widths[10:13] == [0, 0, 64]
    graph = slimnet.trace(smaller, EXAMPLE)
    again = slimnet.prune(smaller, slimnet.plan(graph, ratio=0.3))
    smaller.train()
    smaller(EXAMPLE).sum().backward()
    assert slimnet.count_params(again) < slimnet.count_params(smaller) < slimnet.count_params(model)


def test_nothing_trained_is_left_where_a_block_was_when_weights_are_drawn_anew(
    case: tuple[nn.Module, nn.Module, str],
) -> None:
    model, fresh, _ = case
    smaller = slimnet.prune(
        model, slimnet.plan(slimnet.trace(model, EXAMPLE), ratio=0.3, drop_blocks=True), absorb=False
    )
    described = [smaller]
    if not hasattr(model, "architecture"):
        name = "resnet18" if isinstance(fresh, tm.ResNet) else "mobilenet_v2"
        described.append(describe(copy.deepcopy(smaller), {"name": f"torchvision/{name}"}))
    for network in described:
        constants = [layer for layer in redraw(network, seed=1).modules() if isinstance(layer, Constant)]
        assert constants
        assert not any(constant.value.any() for constant in constants)


def test_budget_counts_a_dropped_block(scatter: Scatter) -> None:
    make, norm, _ = CASES["own"]
    model = scatter(make())
    with torch.no_grad():
        model.get_submodule(norm).weight.zero_()
    budget = int(0.6 * slimnet.count_params(model))
    plan = slimnet.plan(slimnet.trace(model, EXAMPLE), params=budget, drop_blocks=True)
    assert 0.97 * budget < slimnet.count_params(slimnet.prune(model, plan)) <= budget
