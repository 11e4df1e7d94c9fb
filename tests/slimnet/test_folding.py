"""Folding keeps what a network computes, and leaves alone what it cannot fold."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

import slimnet


def disturbed(model: nn.Module) -> nn.Module:
    """The model in float64 with BatchNorms that are far from the identity."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, _BatchNorm) and module.running_var is not None:
            for tensor in (module.weight, module.bias, module.running_mean):
                if tensor is not None:
                    nn.init.normal_(tensor)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return model.double().eval()


def norms(model: nn.Module) -> int:
    return sum(isinstance(module, _BatchNorm) for module in model.modules())


class SharedNorm(nn.Module):
    """Two convs before one BatchNorm, then one conv before two."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.norm, self.other = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.shared = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.a(x)) + self.norm(self.b(x))
        return self.other(self.shared(x)) * self.shared(x)


class WeightReadTwice(nn.Module):
    """A conv whose weight is also used without it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1, bias=False), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)) + nn.functional.conv2d(x, self.conv.weight)


class ReadTwice(nn.Module):
    """A conv that something else reads beside the BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x + self.norm(x)


def test_a_resnet_is_left_without_batchnorms_and_computes_the_same() -> None:
    model = disturbed(slimnet.models.resnet([1, 1], 8))
    folded = slimnet.fold(model)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    assert norms(model) == 7
    assert norms(folded) == 0
    torch.testing.assert_close(folded(x), model(x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(4, 6, 3, padding=1, groups=2),
        nn.Conv2d(4, 4, 3, groups=4, bias=False),
        nn.ConvTranspose2d(4, 6, 3, stride=2),
    ],
    ids=lambda conv: f"{type(conv).__name__}-{conv.groups}",
)
@pytest.mark.parametrize("affine", [True, False])
def test_convs_of_every_kind(conv: nn.Conv2d, affine: bool) -> None:
    model = disturbed(nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels, affine=affine)))
    folded = slimnet.fold(model)
    x = torch.randn(2, 4, 5, 5, dtype=torch.float64)
    assert norms(folded) == 0
    torch.testing.assert_close(folded(x), model(x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "model",
    [
        SharedNorm(),
        WeightReadTwice(),
        ReadTwice(),
        nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False)),
        nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)),
        nn.Sequential(nn.ConvTranspose2d(3, 3, 2, groups=3), nn.BatchNorm2d(3)),
        nn.Sequential(
            nn.Flatten(2), nn.Linear(36, 3), nn.BatchNorm1d(3)
        ),  # normalises dimension 1, not the last
    ],
    ids=["shared", "weight read", "conv read", "no statistics", "before", "transposed with groups", "linear"],
)
def test_what_cannot_be_folded_stays_and_is_right(model: nn.Module) -> None:
    model = disturbed(model)
    folded = slimnet.fold(model)
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    assert norms(folded) == norms(model)
    torch.testing.assert_close(folded(x), model(x), rtol=1e-10, atol=1e-10)


def test_the_model_stays_as_it_was() -> None:
    model = slimnet.models.resnet([1], 4).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    folded = slimnet.fold(model)
    assert all(module.training for module in model.modules())
    assert not any(module.training for module in folded.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_what_fx_cannot_trace_is_refused_by_name() -> None:
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(slimnet.SlimnetError, match="Branching cannot be traced"):
        slimnet.fold(Branching())
