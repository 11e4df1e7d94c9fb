"""Scripted modules are kept whole and named; a scripted network is refused with what to do."""

from __future__ import annotations

import copy
import pickle
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import slimnet
from slimnet import SlimnetError

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated")
X = torch.rand(2, 3, 8, 8)


def block(channels: int = 8) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())


class Mostly(nn.Module):
    """A network of which one part is scripted."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.a, self.part, self.b, self.out = block(3), part, block(), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.b(self.part(self.a(x))))  # type: ignore[no-any-return]


class Exported(nn.Module):
    """Its work is done by another method."""

    def __init__(self) -> None:
        super().__init__()
        scripted: torch.jit.ScriptModule = torch.jit.script(_Encoding())  # type: ignore[no-untyped-call]
        self.scripted = scripted

    def forward(self, x: Tensor) -> Tensor:
        return self.scripted.encode(x=x)  # type: ignore[no-any-return]


class _Encoding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 1)

    @torch.jit.export
    def encode(self, x: Tensor) -> Tensor:
        return self.conv(x)  # type: ignore[no-any-return]


class Pair(NamedTuple):
    first: Tensor
    second: Tensor


class _Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 1)

    def forward(self, pair: Pair) -> Pair:
        return Pair(self.conv(pair.first), pair.second)


class Naming(nn.Module):
    """Its scripted part takes and returns named tuples."""

    def __init__(self) -> None:
        super().__init__()
        scripted: torch.jit.ScriptModule = torch.jit.script(_Named())  # type: ignore[no-untyped-call]
        self.scripted = scripted

    def forward(self, x: Tensor) -> Tensor:
        found = self.scripted(self.scripted(Pair(x, x)))
        return found.first + found.second  # type: ignore[no-any-return]


class Writing(nn.Module):
    """It writes into what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x.mul_(2.0)
        return self.conv(x) + x  # type: ignore[no-any-return]


PARTS = {
    "named tuples": Naming,
    "in place": lambda: torch.jit.script(Writing()),
    "scripted": lambda: torch.jit.script(block()),
    "traced": lambda: torch.jit.trace(block().eval(), torch.zeros(1, 8, 8, 8)),
    "frozen": lambda: torch.jit.freeze(torch.jit.script(block().eval())),
    "by another method": Exported,
}


@pytest.mark.parametrize("name", PARTS)
def test_a_scripted_part_keeps_what_it_reads_and_the_rest_is_pruned(name: str) -> None:
    model = Mostly(PARTS[name]()).eval()
    before = copy.deepcopy(model.state_dict())
    graph = slimnet.trace(model, X)
    assert graph["a.0"].reason in ("part is scripted by torch.jit", "part.scripted is scripted by torch.jit")
    assert graph["b.0"].prunable
    plan = slimnet.plan(graph, ratio=0.5, score="l2", min_channels=1)
    smaller = slimnet.prune(model, pickle.loads(pickle.dumps(plan)), absorb=False)
    torch.testing.assert_close(smaller(X), slimnet.mask(model, plan)(X))
    torch.testing.assert_close(dict(model.state_dict()), dict(before), rtol=0, atol=0)
    assert model(X).shape == slimnet.prune(model, plan)(X).shape


def test_a_scripted_head_that_only_runs_in_training_keeps_what_it_reads() -> None:
    class Assisted(Mostly):
        def forward(self, x: Tensor) -> Any:
            x = self.a(x)
            return (self.b(x), self.part(x)) if self.training else self.out(self.b(x))

    graph = slimnet.trace(Assisted(torch.jit.script(block())), X)
    assert graph["a.0"].reason == "part, which only runs in training, reads it"
    assert graph["b.0"].prunable


def test_a_scripted_activation_is_followed() -> None:
    assert slimnet.trace(Mostly(torch.jit.script(nn.SiLU())), X)["a.0"].prunable


def test_a_scripted_network_is_refused_with_what_to_do() -> None:
    model = Mostly(nn.ReLU()).eval()
    plan = slimnet.plan(slimnet.trace(model, X), ratio=0.5, score="l2", min_channels=1)
    for whole in (torch.jit.script(model), torch.jit.trace(model, X)):
        for use in (
            lambda m: slimnet.trace(m, X),
            lambda m: slimnet.prune(m, plan),
            lambda m: slimnet.mask(m, plan),
        ):
            with pytest.raises(
                SlimnetError, match=r"Mostly is scripted.* prune the network that it was made of"
            ):
                use(whole)
