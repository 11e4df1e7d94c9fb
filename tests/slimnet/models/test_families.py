"""Networks of each family are pruned, saved and loaded from the file alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import slimnet
from slimnet import models
from slimnet.models.catalogue import SIZES, WIDTHS, WITH_STEM
from slimnet.models.families import FAMILIES

EXAMPLE = torch.randn(2, 3, 16, 16, dtype=torch.float64)
CASES: dict[str, Callable[[], models.ResNet | models.VGG | models.MobileNet]] = {
    "resnet": lambda: models.resnet([2, 1], 8),
    "basic-resnet": lambda: models.basic_resnet([2, 2], 8, stem="cifar-maxpool"),
    "vgg": lambda: models.vgg([1, 2, 2], 8),
    "mobilenet": lambda: models.mobilenet([1, 2, 2], 16),
    "resnet20": models.resnet20,
}

Scatter = Callable[..., nn.Module]


def test_every_family_is_in_the_catalogue() -> None:
    assert FAMILIES.keys() == WIDTHS.keys() >= {*WITH_STEM, *(size.family for size in SIZES.values())}


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("ratio", [0.4, 0.9])
@pytest.mark.parametrize("name", CASES)
def test_masked_equals_physical_which_loads_from_its_file_alone(
    name: str, ratio: float, streams: bool, scatter: Scatter, tmp_path: Path
) -> None:
    model = scatter(CASES[name]())
    plan = slimnet.plan(slimnet.trace(model, EXAMPLE), ratio=ratio, streams=streams, min_channels=1)
    for absorb in (False, True):
        smaller = slimnet.prune(model, plan, absorb=absorb)
        slimnet.save(tmp_path / "smaller.pt", smaller)
        loaded = slimnet.load(tmp_path / "smaller.pt")
        assert isinstance(loaded, type(model))
        assert loaded.architecture == smaller.architecture
        assert sum(loaded.widths) < sum(model.widths)
        with torch.no_grad():
            expected = slimnet.mask(model, plan, absorb=absorb)(EXAMPLE)
            torch.testing.assert_close(smaller(EXAMPLE), expected, rtol=0, atol=1e-10)
            assert torch.equal(loaded(EXAMPLE), smaller(EXAMPLE))


@pytest.mark.parametrize("name", CASES)
def test_widths_of_a_pruned_network_build_one_of_its_size(name: str) -> None:
    model = CASES[name]().double()
    plan = slimnet.plan(slimnet.trace(model, EXAMPLE), ratio=0.5, score="random", streams=True)
    smaller = slimnet.prune(model, plan, absorb=False)
    arguments = dict(smaller.architecture)
    again = FAMILIES[arguments.pop("name")](**arguments)
    assert again.widths == smaller.widths
    assert {key: value.shape for key, value in again.state_dict().items()} == {
        key: value.shape for key, value in smaller.state_dict().items()
    }


@pytest.mark.parametrize("name", ["basic-resnet", "resnet20", "vgg", "mobilenet"])
def test_all_convs_are_prunable_with_the_streams(name: str) -> None:
    model = CASES[name]().double()
    graph = slimnet.trace(model, EXAMPLE)
    plan = slimnet.plan(graph, ratio=0.999, streams=True, min_channels=1)
    assert set(slimnet.prune(model, plan).widths) == {1}


def test_a_dropped_basic_block_leaves_a_constant(scatter: Scatter, tmp_path: Path) -> None:
    """The first of all, which is an identity block here."""
    model = scatter(CASES["basic-resnet"]())
    with torch.no_grad():
        model.stages[0][0].bn1.weight *= 1e-9
    plan = slimnet.plan(slimnet.trace(model, EXAMPLE), ratio=0.3, streams=True, drop_blocks=True)
    assert "stages.0.0" in plan.dropped
    smaller = slimnet.prune(model, plan)
    slimnet.save(tmp_path / "smaller.pt", smaller)
    loaded = slimnet.load(tmp_path / "smaller.pt")
    assert loaded.widths == smaller.widths
    assert smaller.widths[1:3] == [0, smaller.widths[0]]
    with torch.no_grad():
        expected = slimnet.mask(model, plan, absorb=True)(EXAMPLE)
        torch.testing.assert_close(loaded(EXAMPLE), expected, rtol=0, atol=1e-10)


def test_a_dropped_inverted_residual_leaves_a_constant(scatter: Scatter, tmp_path: Path) -> None:
    model = scatter(CASES["mobilenet"]())
    with torch.no_grad():
        model.stages[1][1].bn1.weight *= 1e-9
        model.stages[1][1].bn2.weight *= 1e-9
    plan = slimnet.plan(slimnet.trace(model, EXAMPLE), ratio=0.3, streams=True, drop_blocks=True)
    assert "stages.1.1" in plan.dropped
    smaller = slimnet.prune(model, plan)
    slimnet.save(tmp_path / "smaller.pt", smaller)
    loaded = slimnet.load(tmp_path / "smaller.pt")
    assert loaded.widths == smaller.widths
    assert smaller.widths[5] == 0
    with torch.no_grad():
        expected = slimnet.mask(model, plan, absorb=True)(EXAMPLE)
        torch.testing.assert_close(loaded(EXAMPLE), expected, rtol=0, atol=1e-10)
