"""Networks that take a gradient in their forward, of energies and scores, are followed and never crash."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional

import slimnet
from slimnet import SlimnetError

pytestmark = pytest.mark.filterwarnings("ignore:auxiliary", "ignore:.*keeps only")
X = torch.rand(2, 3, 8, 8).double()
Take = Callable[["Energy", Tensor], Tensor]


class Energy(nn.Module):
    """A number for each image, and what `take` makes of it; `end` may be a linear layer, or nothing."""

    def __init__(self, take: Take, middle: nn.Module, end: nn.Module) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.SiLU())
        self.middle, self.end, self.take = middle, end, take
        self.b = nn.Sequential(nn.Conv2d(8, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Softplus())
        self.head = nn.Conv2d(6, 4, 1)
        self.auxiliary = nn.Linear(3, 1)  # it never runs, so that the network is run in training mode too

    def energies(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(self.middle(self.a(x)), 2)
        return self.end(self.head(self.b(x)).mean((2, 3))).square().sum(1)  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            return self.take(self, x.detach().requires_grad_())


def score(net: Energy, x: Tensor) -> Tensor:
    return torch.autograd.grad(net.energies(x).sum(), x)[0]


def curved(net: Energy, x: Tensor) -> Tensor:
    (slope,) = torch.autograd.grad(net.energies(x).sum(), [x], create_graph=True)
    slope, none = torch.autograd.grad(
        slope.square().sum(), (x, torch.ones(1).requires_grad_()), allow_unused=True
    )
    assert none is None
    return slope


def batched(net: Energy, x: Tensor) -> Tensor:
    weights = torch.eye(len(x)).to(x)
    return torch.autograd.grad(net.energies(x), x, weights, is_grads_batched=True)[0]


def materialized(net: Energy, x: Tensor) -> Tensor:
    slope, zero = torch.autograd.grad(
        net.energies(x).sum(), (x, x.new_ones(1).requires_grad_()), materialize_grads=True
    )
    return slope + zero


def jacobian(net: Energy, x: Tensor) -> Tensor:
    return torch.autograd.functional.jacobian(net.energies, x)  # type: ignore[no-any-return,no-untyped-call]


def network(take: Take, middle: nn.Module | None = None, *, linear: bool = True) -> Energy:
    torch.manual_seed(0)
    end = nn.Linear(4, 1) if linear else nn.Identity()
    model = Energy(take, middle or nn.Identity(), end).double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight)
            nn.init.uniform_(module.running_mean)
    return model


@pytest.mark.parametrize(
    ("take", "middle"),
    [
        (score, None),
        (score, nn.GroupNorm(2, 8)),
        (score, nn.LayerNorm([8, 8])),
        (curved, None),
        (batched, None),
        (materialized, None),
        (jacobian, None),
    ],
)
def test_a_gradient_has_the_channels_of_its_input(take: Take, middle: nn.Module | None) -> None:
    model = network(take, middle)
    graph = slimnet.trace(model, X)
    assert not any(graph[name].blocked for name in ("a.0", "b.0"))
    plan = slimnet.plan(graph, ratio=0.5, score="l2", min_channels=1)
    for absorb in (False, True):
        masked, pruned = slimnet.mask(model, plan, absorb=absorb), slimnet.prune(model, plan, absorb=absorb)
        expected, found = masked(X), pruned(X)
        assert expected.any()
        scale = expected.abs().max()
        torch.testing.assert_close(found / scale, expected / scale, rtol=0, atol=1e-10)


@pytest.mark.parametrize("linear", [True, False])
def test_a_network_in_a_transform_is_kept_whole(linear: bool) -> None:
    def take(net: Energy, x: Tensor) -> Tensor:
        return torch.func.grad(lambda y: net.energies(y).sum())(x)

    groups = slimnet.trace(network(take, linear=linear), X).groups
    assert groups
    assert all(group.blocked for group in groups)


def test_a_gradient_through_convs_alone_does_not_end_the_process() -> None:
    assert slimnet.trace(network(score, linear=False), X)["a.0"].blocked == ""


def test_backward_is_refused_in_words() -> None:
    def take(net: Energy, x: Tensor) -> Tensor:
        net.energies(x).sum().backward()
        assert x.grad is not None
        return x.grad

    model = network(take)
    with pytest.raises(SlimnetError, match=r"calls backward\(\).* take the gradient by torch.autograd.grad"):
        slimnet.trace(model, X)
    assert all(parameter.grad is None for parameter in model.parameters())


class OverChannels(torch.autograd.Function):
    """Nothing, but for the gradient, which knows the number of channels."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient / gradient.shape[1]


class Secret(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return OverChannels.apply(x)  # type: ignore[no-any-return,no-untyped-call]


def test_a_gradient_that_mixes_channels_unseen_is_found_out() -> None:
    model = network(score, Secret())
    plan = slimnet.plan(slimnet.trace(model, X), ratio=0.5, score="l2", min_channels=1)
    with pytest.raises(SlimnetError, match=r'takes a gradient that mixes channels.*keep=\["a.0"\]'):
        slimnet.prune(model, plan)


class Leaning(nn.Module):
    """Nothing, but for the gradient, which a hook takes its mean over channels from."""

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad:
            x.register_hook(lambda slope: slope - slope.mean(1, keepdim=True))
        return x * 1


@pytest.mark.parametrize("size", [1.0, 1e-6, 1e-20])
def test_a_hook_that_mixes_channels_is_found_out_however_small_the_gradient(size: float) -> None:
    def small(net: Energy, x: Tensor) -> Tensor:
        return torch.autograd.grad((net.energies(x) * size).sum(), x)[0]

    model = network(small, Leaning()).float()
    plan = slimnet.plan(slimnet.trace(model, X.float()), ratio=0.5, score="l2", min_channels=1)
    with pytest.raises(SlimnetError, match=r"takes a gradient that mixes channels"):
        slimnet.prune(model, plan)


class Watched(nn.Module):
    """Grad-CAM: a hook keeps the gradient, and the forward takes it from there."""

    def __init__(self) -> None:
        super().__init__()
        self.slope: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad:
            x.register_hook(lambda slope: setattr(self, "slope", slope.detach()))
        return x * 1


def test_a_gradient_that_a_hook_keeps_is_told_from_one_of_fewer_channels() -> None:
    def both(net: Energy, x: Tensor) -> Any:
        return score(net, x), net.middle.slope

    model = network(both, Watched())
    model(X)
    plan = slimnet.plan(slimnet.trace(model, X), ratio=0.5, score="l2", min_channels=1)
    with pytest.raises(SlimnetError, match=r"of shape .*\(2, 5, 8, 8\).*, not .*\(2, 8, 8, 8\)"):
        slimnet.prune(model, plan)


def test_a_hook_that_does_not_run_is_named_where_the_run_fails() -> None:
    def weights(net: Any, x: Tensor) -> Any:
        return score(net, x) + net.middle.slope.mean()

    with pytest.raises(SlimnetError, match=r"hooks of gradients do not run .* by torch\.autograd\.grad"):
        slimnet.trace(network(weights, Watched()), X)


def test_forward_differentiation_is_named_where_the_run_fails() -> None:
    def tangent(net: Energy, x: Tensor) -> Tensor:
        with forward_ad.dual_level():  # type: ignore[no-untyped-call]
            dual = forward_ad.make_dual(x, torch.ones_like(x))
            primal, slope = forward_ad.unpack_dual(net.energies(dual))
            return primal + slope

    with pytest.raises(SlimnetError, match=r"forward differentiation is not followed"):
        slimnet.trace(network(tangent), X)


def test_a_gradient_by_a_parameter_says_so() -> None:
    def by_weight(net: Energy, x: Tensor) -> Tensor:
        slope = torch.autograd.grad(net.energies(x).sum(), net.b[0].weight)[0]
        return net.head(net.b(net.a(x) * slope.mean((0, 2, 3))[:, None, None]))

    assert "gradient by a parameter" in slimnet.trace(network(by_weight), X)["a.0"].blocked
