from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimnet import count_params, models, plan, prune, trace
from slimnet.pruning.planning import scaling_factors

Scatter = Callable[..., nn.Module]
ACTIVATIONS = [
    nn.ReLU(), nn.ReLU(inplace=True), nn.ReLU6(), nn.SiLU(), nn.Hardswish(), nn.GELU(), nn.Sigmoid(),
    nn.Identity(),
]  # fmt: skip


def images(count: int = 4, size: int = 9) -> Tensor:
    return torch.randn(count, 3, size, size, dtype=torch.float64)


def switch_off(network: nn.Module, fraction: float = 0.5) -> None:
    """Set γ of the lowest channels that can be pruned to exactly 0."""
    gammas = list(scaling_factors(trace(network, images(1))).values())
    threshold = torch.cat([gamma.detach().abs() for gamma in gammas]).quantile(fraction)
    with torch.no_grad():
        for gamma in gammas:
            gamma[gamma.abs() <= threshold] = 0


def error(network: nn.Module, *, absorb: bool, ratio: float = 0.45, x: Tensor | None = None) -> float:
    """How far the pruned network's outputs are from the dense one's, relative to their size."""
    x = images() if x is None else x
    smaller = prune(network, plan(trace(network, x[:1]), ratio=ratio, min_channels=1), absorb=absorb)
    assert count_params(smaller) < count_params(network)
    with torch.no_grad():
        dense = network(x)
        return float((smaller(x) - dense).norm() / dense.norm())


def without_padding(activation: nn.Module) -> nn.Module:
    """Every kind of reader: a conv before BatchNorm, biased, bare and depthwise ones, a linear layer."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), activation,
        nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8), activation,
        nn.Conv2d(8, 8, 1, padding="valid"), nn.BatchNorm2d(8), activation,
        nn.Conv2d(8, 8, 1, bias=False), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), activation,
        nn.Conv2d(8, 8, 2, groups=8), nn.BatchNorm2d(8), activation,
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32, 6),
    )  # fmt: skip


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda a: type(a).__name__)
def test_channels_that_are_off_go_without_a_trace(activation: nn.Module, scatter: Scatter) -> None:
    network = scatter(without_padding(activation))
    switch_off(network)
    assert error(network, absorb=True) < 1e-10
    assert error(network, absorb=False) > 1e-3


class Functional(nn.Module):
    """Activations as functions, an in-place one before a skip, squeeze-and-excitation, concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8))
        self.b = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8))
        self.gate = nn.Sequential(nn.Conv2d(8, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 8, 1))
        self.c = nn.Conv2d(16, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        y = self.b(F.silu(x))
        F.relu(x, inplace=True)
        y = F.hardswish(y)
        y = y * torch.sigmoid(self.gate(F.adaptive_avg_pool2d(y, 1)))
        return self.c(torch.cat([x, y], 1))  # type: ignore[no-any-return]


def test_functions_gates_and_overwritten_values(scatter: Scatter) -> None:
    network = scatter(Functional())
    with torch.no_grad():
        network.a[1].weight[:4] = 0
        network.b[1].weight[:4] = 0
        network.gate[1].weight[:2] = 0
        network.gate[3].weight[:4] = 0  # the gate of a channel that is off varies, and scales its constant
    assert error(network, absorb=True) < 1e-10


def test_small_gammas_are_absorbed_by_their_mean(scatter: Scatter) -> None:
    """With |γ| of .2 and inputs as BatchNorm expects them, the mean of relu is what is lost."""
    network = scatter(nn.Sequential(
        nn.Conv2d(3, 16, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 4, 1),
    ))  # fmt: skip
    x = images(64)
    with torch.no_grad():
        values = network[0](x)
        network[1].running_mean.copy_(values.mean((0, 2, 3)))
        network[1].running_var.copy_(values.var((0, 2, 3)))
        network[1].weight[:8] = 0.2
        network[1].weight[8:] = 1
    smaller = prune(network, plan(trace(network, x[:1]), ratio=0.5, min_channels=1))
    with torch.no_grad():
        bias = (network(x) - smaller(x)).mean((0, 2, 3)).abs().max()
        spread = (network(x) - smaller(x)).std()
    assert bias < 0.02 * spread + 1e-3
    assert error(network, absorb=True, ratio=0.5, x=x) < error(network, absorb=False, ratio=0.5, x=x)


@pytest.mark.parametrize("size", [2, 3, 8])
def test_zero_padding_is_weighted_by_coverage(size: int, scatter: Scatter) -> None:
    """A padded conv sees a constant only where its taps lie inside: nowhere whole on a map of 2x2."""
    network = scatter(nn.Sequential(
        nn.Conv2d(3, 16, 1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16),
    ))  # fmt: skip
    with torch.no_grad():
        network[1].weight[:8] = 0
        network[1].bias[:8].abs_().add_(0.5)
    x = images(16, size)
    chosen = plan(trace(network, x), ratio=0.5, min_channels=1)
    absorbed, dropped = prune(network, chosen), prune(network, chosen, absorb=False)
    constant = F.relu(network[1].bias[:8]).reshape(1, 8, 1, 1).expand(1, 8, size, size)
    emitted = F.conv2d(constant, network[3].weight[:, :8], padding=1)
    torch.testing.assert_close(network[4].running_mean - absorbed[4].running_mean, emitted.mean((0, 2, 3)))

    everywhere = prune(network, chosen, absorb=False)
    everywhere[4].running_mean -= (network[3].weight[:, :8].sum((2, 3)) @ constant[0, :, 0, 0]).detach()
    with torch.no_grad():
        dense = network(x)
        weighted, plain, none = (float((n(x) - dense).norm()) for n in (absorbed, everywhere, dropped))
    assert weighted < 0.95 * min(none, plain)


@pytest.mark.parametrize(
    "reader", [nn.Conv2d(8, 8, 1, padding=2, bias=False), nn.ConvTranspose2d(8, 8, 1, stride=2, bias=False)]
)
def test_one_tap_is_not_always_inside(reader: nn.Module, scatter: Scatter) -> None:
    network = scatter(
        nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), reader, nn.BatchNorm2d(8))
    )
    with torch.no_grad():
        network[1].weight[:4] = 0
        network[1].bias[:4].abs_().add_(0.5)
    x = images(16)
    absorbed = prune(network, plan(trace(network, x), ratio=0.5, min_channels=1))
    constant = F.relu(network[1].bias).reshape(1, 8, 1, 1).expand(1, 8, 9, 9).clone()
    constant[:, 4:] = 0
    emitted = network[3](constant).mean((0, 2, 3))
    torch.testing.assert_close(network[4].running_mean - absorbed[4].running_mean, emitted)


def test_a_default_device_elsewhere_leaves_later_calls_as_they_are(scatter: Scatter) -> None:
    network = scatter(nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3, padding=1)))
    chosen = plan(trace(network, images(1, 11)), ratio=0.5, min_channels=1)
    with torch.device("meta"), suppress(NotImplementedError, RuntimeError):
        prune(network, chosen)
    assert count_params(prune(network, chosen)) < count_params(network)


def test_norm_that_serves_two_layers_is_left_alone(scatter: Scatter) -> None:
    """What one of the two would absorb would be wrong for the other."""

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU())
            self.left, self.right = nn.Conv2d(8, 4, 1, bias=False), nn.Conv2d(3, 4, 1, bias=False)
            self.norm = nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([self.norm(self.left(self.a(x))), self.norm(self.right(x))], 1)

    network = scatter(Shared())
    switch_off(network)
    assert error(network, absorb=True) < 1e-10


def test_norms_without_parameters_or_statistics(scatter: Scatter) -> None:
    network = scatter(nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8, affine=False, track_running_stats=False),
        nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8, affine=False), nn.ReLU(), nn.Conv2d(8, 2, 1),
    ))  # fmt: skip
    switch_off(network)
    assert error(network, absorb=True) < 1e-10


def test_only_layers_that_lose_inputs_gain_a_bias() -> None:
    network = models.resnet([1, 1], 8)
    inner = prune(network, plan(trace(network, torch.zeros(1, 3, 16, 16)), ratio=0.5))
    assert inner.stages[0][0].shortcut.bias is None
    assert inner.stages[1][0].shortcut.bias is None
    streams = prune(network, plan(trace(network, torch.zeros(1, 3, 16, 16)), ratio=0.5, streams=True))
    assert streams.stages[1][0].shortcut.bias is not None


def test_shortcut_of_a_pruned_stream_is_not_counted_twice(scatter: Scatter) -> None:
    """The mean that leaves a layer is that of the dense network, whatever the layer has absorbed."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU())
            self.b = nn.Conv2d(4, 4, 1, bias=False)
            self.c = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
            self.d = nn.Conv2d(4, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            return self.d(self.b(x) + self.c(x))  # type: ignore[no-any-return]

    network = scatter(Two())
    with torch.no_grad():
        network.a[1].weight.zero_()
        network.c[1].weight.zero_()
    x = images()
    smaller = prune(network, plan(trace(network, x), ratio=0.5, min_channels=1, streams=True))
    with torch.no_grad():
        torch.testing.assert_close(smaller(x), network(x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_absorption_keeps_dtype_and_finite_values(dtype: torch.dtype) -> None:
    network = models.resnet([1, 1], 8).to(dtype)
    smaller = prune(
        network, plan(trace(network, torch.zeros(1, 3, 8, 8, dtype=dtype)), ratio=0.7, streams=True)
    )
    assert all(value.dtype == dtype and value.isfinite().all() for value in smaller.parameters())
