"""What torch's functions are taken for without asking torch is what torch takes them apart to."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._pytree import tree_map_only

import slimnet
from slimnet.graph import record
from slimnet.graph.shortcuts import SHORTCUTS, shortcut


class EveryWay(nn.Module):
    """Calls each function that has a shortcut as it is called, and as it hardly ever is."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.convs = nn.ModuleList(
            [
                nn.Conv2d(8, 8, 3, stride=2, padding=(1, 2), dilation=(1, 2), bias=False),
                nn.Conv2d(8, 8, 1, groups=2),
                nn.Conv2d(8, 8, 3, padding="same"),
                nn.Conv2d(8, 8, 1, padding="valid"),
                nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"),
            ]
        )
        self.norms = nn.ModuleList(
            [
                nn.BatchNorm2d(8),
                nn.BatchNorm2d(8, eps=0.1, momentum=None),
                nn.BatchNorm2d(8, affine=False),
                nn.BatchNorm2d(8, track_running_stats=False),
            ]
        )
        self.gain = nn.Parameter(torch.ones(8, 1, 1))
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.conv2d(input=self.first(x), weight=self.convs[1].weight, groups=2)
        for conv in self.convs:
            x = conv(x)
        for norm in self.norms:
            x = norm(x)
        by_batch = self.norms[1]
        x = functional.batch_norm(
            x, by_batch.running_mean, by_batch.running_var, by_batch.weight, by_batch.bias, True
        )
        for in_place in (False, True):
            for activation in (
                functional.relu,
                functional.silu,
                functional.hardswish,
                functional.hardsigmoid,
            ):
                x = activation(x, in_place)
            x = functional.hardtanh(x, inplace=in_place)
            x = functional.hardtanh(functional.relu6(x, in_place), 0.0, 6.0, in_place)
            x = functional.hardtanh(x, 0, 6, in_place)
        y = torch.sigmoid(x) + torch.relu(x)
        y += x.mul(self.gain)
        y = torch.add(y, x, alpha=2) * torch.mul(y, 0.5)
        y = torch.mul(torch.add(y, x), self.gain)
        y = torch.add(y, 1).add(y).add_(x, alpha=3)
        return self.head(y.double().float().mean((2, 3)))


def test_each_shortcut_is_what_torch_takes_the_call_apart_to(monkeypatch: pytest.MonkeyPatch) -> None:
    model = EveryWay()
    taken: set[Any] = set()

    def noting(function: Any, *given: Any) -> Any:
        found = shortcut(function, *given)
        taken.update([function] if found else [])
        return found

    monkeypatch.setattr(record, "shortcut", noting)
    short = slimnet.trace(model, torch.zeros(2, 3, 16, 16))
    assert taken == SHORTCUTS.keys()
    monkeypatch.setattr(record, "shortcut", lambda *given: None)
    whole = slimnet.trace(model, torch.zeros(2, 3, 16, 16))
    for ours, theirs in zip(short.record.calls, whole.record.calls, strict=True):
        for attribute in ("op", "function", "args", "kwargs", "inputs", "outputs", "in_place", "layer"):
            assert getattr(ours, attribute) == getattr(theirs, attribute), (ours.op, attribute)
    assert [(group.name, group.reason) for group in short.groups] == [
        (group.name, group.reason) for group in whole.groups
    ]


def test_there_are_no_shortcuts_where_torch_would_do_more() -> None:
    zero = torch.zeros(1)
    with torch.no_grad():
        assert shortcut(torch.relu, (zero,), {}) is not None
        with torch.autocast("cpu", torch.bfloat16):
            assert shortcut(torch.relu, (zero,), {}) is None
        with torch.inference_mode():
            assert shortcut(torch.relu, (zero,), {}) is None
        complex_conv = (
            torch.zeros(1, 1, 2, 2, dtype=torch.cfloat),
            torch.zeros(1, 1, 1, 1, dtype=torch.cfloat),
        )
        assert shortcut(torch.conv2d, complex_conv, {}) is None
        for size, training, eps in ((1, True, 1e-5), (2, True, 0.0), (0, False, 1e-5)):  # refused, or nothing
            one_channel = (torch.zeros(1, 1, 1, size), zero, zero, zero, zero, training, 0.1, eps)
            assert shortcut(functional.batch_norm, one_channel, {}) is None
    assert shortcut(torch.relu, (zero,), {}) is None  # a gradient may be asked for


class Mapped(nn.Module):
    """Multiplies by a parameter for one image at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1)
        self.gain = nn.Parameter(torch.rand(8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.b(torch.func.vmap(lambda row: self.gain * row)(x))


class Steepest(nn.Module):
    """Goes by a gradient within its forward."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        with torch.enable_grad():
            z = self.a(x).detach().requires_grad_()
            return self.b(torch.autograd.grad(functional.silu(z).sum(), z)[0].detach())


class Tangent(nn.Module):
    """Goes by a directional derivative within its forward."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(self.stem(x))
        return self.b(torch.func.jvp(lambda y: torch.add(x, functional.relu(y)), (x,), (x,))[1])


@pytest.mark.parametrize("network", [Mapped, Steepest, Tangent])
def test_transforms_and_gradients_within_a_forward_are_followed(network: type[nn.Module]) -> None:
    model, x = network().double().eval(), torch.rand(2, 3, 8, 8).double()
    plan = slimnet.plan(slimnet.trace(model, x), ratio=0.5, score="l1", min_channels=1)
    masked, pruned = slimnet.mask(model, plan), slimnet.prune(model, plan, absorb=False)
    torch.testing.assert_close(pruned(x), masked(x), atol=1e-10, rtol=0)


class Wrapped(Tensor):
    """A tensor without contents of its own, as those of quantised weights; it sees every operation itself."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    def __new__(cls, inner: Tensor) -> Wrapped:
        made = torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)  # type: ignore[attr-defined]
        made.inner = inner
        return made  # type: ignore[no-any-return]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        args, kwargs = tree_map_only(cls, lambda each: each.inner, (args, kwargs or {}))
        result = func(*args, **kwargs)
        return (
            cls(result) if func in (torch.ops.aten.detach.default, torch.ops.aten.clone.default) else result
        )


class Quantised(nn.Module):
    """Its last layer has a wrapped weight; with `slope` it returns a gradient that goes through it."""

    def __init__(self, *, slope: bool) -> None:
        super().__init__()
        self.a, self.b, self.slope = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1), slope
        self.norm, self.out = nn.BatchNorm2d(8), nn.Linear(4, 2)
        self.out.weight = nn.Parameter(Wrapped(self.out.weight.detach().double()), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        with torch.set_grad_enabled(self.slope):
            x = x.detach().requires_grad_(self.slope)
            scores = self.out(self.b(functional.silu(self.norm(self.a(x)))).mean((2, 3)))
            return torch.autograd.grad(scores.square().sum(), x)[0] if self.slope else scores


@pytest.mark.parametrize("slope", [False, True])
def test_tensors_that_see_operations_themselves_are_computed_by_them(slope: bool) -> None:
    model, x = Quantised(slope=slope).double().eval(), torch.rand(2, 3, 8, 8).double()
    plan = slimnet.plan(slimnet.trace(model, x), ratio=0.5, score="l1", min_channels=1, keep=["b"])
    masked, pruned = slimnet.mask(model, plan), slimnet.prune(model, plan, absorb=False)
    assert type(pruned.out.weight) is Wrapped
    torch.testing.assert_close(pruned(x), masked(x), atol=1e-10, rtol=0)
