"""Heads of attention, and other sizes that modules keep as attributes, are pruned with their channels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimnet import count_params, load, mask, plan, prune, save, trace
from slimnet.pruning.budget import cost_model


class Attention(nn.Module):
    """Of 4 heads of 3 channels each; subclasses say how they are told apart."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.attn_dim = 4, 3, 12
        self.norm, self.qkv, self.proj = nn.LayerNorm(8), nn.Linear(8, 36), nn.Linear(12, 8)
        self.table = nn.Parameter(torch.randn(9, 4))
        self.register_buffer("places", torch.arange(25).reshape(5, 5) % 9)

    def heads(self, x: Tensor) -> Any:
        b, n, _ = x.shape
        return self.qkv(x).reshape(b, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v)

    def merge(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], self.attn_dim)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.proj(self.merge(self.attend(*self.heads(self.norm(x)))))  # type: ignore[no-any-return]


class Inferred(Attention):
    def heads(self, x: Tensor) -> Any:
        b, n, _ = x.shape
        return self.qkv(x).reshape(b, n, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)

    def merge(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2).flatten(2)


class Multiplied(Attention):
    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        weights: Tensor = q * self.head_dim**-0.5 @ k.transpose(-2, -1)
        return weights.softmax(-1) @ v

    def merge(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2).reshape(*x.shape[:1], x.shape[2], self.num_heads * self.head_dim)


class Batched(Attention):
    """Heads in the dimension of the batch, as in torch's own attention."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        b, n = q.shape[0], q.shape[2]
        q, k, v = (t.reshape(b * self.num_heads, n, self.head_dim) for t in (q, k, v))
        weights = torch.baddbmm(torch.zeros(1, 1, 1).to(q), q, k.transpose(1, 2)).softmax(-1)
        return torch.bmm(weights, v).view(b, self.num_heads, n, self.head_dim)


class Einsum(Attention):
    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        weights = torch.einsum("bhid,bhjd->bhij", q, k).softmax(-1)
        return torch.einsum("bhij,bhjd->bhid", weights, v)


class Biased(Attention):
    """A learned bias for each head, and a mask that is expanded to the heads."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        bias = self.table[self.places.view(-1)].view(5, 5, -1).permute(2, 0, 1).unsqueeze(0)  # type: ignore[operator]
        hidden = torch.ones(5, 5).tril().view(1, 1, 5, 5).expand(2, self.num_heads, -1, -1).to(q)
        return F.scaled_dot_product_attention(q, k, v, bias + hidden)


class Separate(Attention):
    def __init__(self) -> None:
        super().__init__()
        del self.qkv
        self.q, self.k, self.v = nn.Linear(8, 12), nn.Linear(8, 12), nn.Linear(8, 12)
        self.scale = nn.Parameter(torch.rand(4, 1, 1))

    def heads(self, x: Tensor) -> Any:
        b, n, _ = x.shape
        q, k, v = (
            layer(x).view(b, n, self.num_heads, self.head_dim).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        return q * self.scale, k, v


@pytest.fixture(params=[Attention, Inferred, Multiplied, Batched, Einsum, Biased, Separate])
def attention(request: pytest.FixtureRequest, scatter: Callable[..., nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return scatter(nn.Sequential(nn.Linear(6, 8), request.param()))


def test_whole_heads_are_groups(attention: nn.Module) -> None:
    graph = trace(attention, torch.randn(2, 5, 6).double())
    (group,) = [group for group in graph.groups if {"1.qkv", "1.q"} & set(group.producers)]
    assert (group.size, group.unit_channels, group.blocked) == (4, 9, "")


@pytest.mark.parametrize("ratio", [0.3, 0.6, 0.9])
def test_heads_are_pruned_exactly(attention: nn.Module, ratio: float) -> None:
    x = torch.randn(2, 5, 6).double()
    chosen = plan(trace(attention, x), ratio=ratio, score="random", min_channels=1)
    smaller: Any = prune(attention, chosen, absorb=False)
    assert chosen.removed_channels
    assert smaller[1].num_heads < 4
    assert attention[1].num_heads == 4  # type: ignore[index, union-attr]
    with torch.no_grad():
        torch.testing.assert_close(smaller(x), mask(attention, chosen)(x), rtol=0, atol=1e-10)


def test_fewer_heads_are_saved_loaded_and_pruned_again(attention: nn.Module, tmp_path: Path) -> None:
    x = torch.randn(2, 5, 6).double()
    once = prune(attention, plan(trace(attention, x), ratio=0.5, score="random", min_channels=1))
    again = prune(once, plan(trace(once, x), ratio=0.5, score="random", min_channels=1))
    save(tmp_path / "net.pt", again)
    loaded: Any = load(tmp_path / "net.pt", model=nn.Sequential(nn.Linear(6, 8), type(attention[1])()))  # type: ignore[index]
    assert loaded[1].num_heads == 1
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), again.eval()(x), rtol=0, atol=0)


class Derived(Attention):
    def heads(self, x: Tensor) -> Any:
        b, n, _ = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.num_heads, 12 // self.num_heads)
        return qkv.permute(2, 0, 3, 1, 4).unbind(0)


class Written(Attention):
    def heads(self, x: Tensor) -> Any:
        return self.qkv(x).reshape(*x.shape[:2], 3, 4, 3).permute(2, 0, 3, 1, 4).unbind(0)


@pytest.mark.parametrize(("kind", "word"), [(Derived, "num_heads"), (Written, "fixes the number")])
def test_heads_whose_number_is_used_otherwise_stay(kind: type[Attention], word: str) -> None:
    graph = trace(nn.Sequential(nn.Linear(6, 8), kind()), torch.randn(2, 5, 6))
    assert word in graph["1.qkv"].blocked


class Mixed(nn.Module):
    """Parts of channels through convs of their own, as in MixNet."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 16, 1), nn.BatchNorm2d(16)
        self.splits, self.width = [10, 6], 16
        self.convs = nn.ModuleList([nn.Conv2d(10, 10, 3, groups=10, padding=1), nn.Conv2d(6, 6, 1, groups=6)])
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        parts = torch.split(self.norm(self.conv(x)).relu(), self.splits, 1)
        y = torch.cat([conv(part) for conv, part in zip(self.convs, parts, strict=True)], 1)
        return self.fc(y.mean((2, 3)).view(-1, self.width))  # type: ignore[no-any-return]


class Cut(Mixed):
    def __init__(self) -> None:
        super().__init__()
        self.first = 10

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x)).relu()
        parts = [y[:, : self.first], y[:, self.first :]]
        y = torch.cat([conv(part) for conv, part in zip(self.convs, parts, strict=True)], 1)
        return self.fc(y.mean((2, 3)))  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", [Mixed, Cut])
@pytest.mark.parametrize("ratio", [0.3, 0.6, 0.9])
def test_sections_that_a_module_keeps_follow_their_channels(
    kind: type[nn.Module], ratio: float, scatter: Callable[..., nn.Module]
) -> None:
    model, x = scatter(kind()), torch.randn(2, 3, 6, 6).double()
    graph = trace(model, x)
    assert not graph["conv"].blocked
    chosen = plan(graph, ratio=ratio, score="random", min_channels=1)
    smaller = prune(model, chosen, absorb=False)
    with torch.no_grad():
        torch.testing.assert_close(smaller(x), mask(model, chosen)(x), rtol=0, atol=1e-10)
    sizes = smaller.splits if kind is Mixed else [smaller.first, smaller.conv.out_channels - smaller.first]
    assert sizes == [conv.in_channels for conv in smaller.convs]


def test_a_section_may_not_vanish() -> None:
    graph = trace(Mixed(), torch.randn(1, 3, 6, 6))
    chosen = plan(graph, ratio=0.9, score=torch.arange(graph.unit_count).double().numpy(), min_channels=1)
    assert min(chosen.setting_cuts()[f"splits[{i}]"] for i in range(2)) >= 1


def test_the_parameters_of_fewer_heads_are_counted(attention: nn.Module) -> None:
    graph = trace(attention, torch.randn(2, 5, 6).double())
    chosen = plan(graph, ratio=0.5, score="random", min_channels=1)
    smaller = prune(attention, chosen, absorb=False)
    stays = np.ones(graph.unit_count, dtype=bool)
    for group in graph.groups:
        stays[np.delete(group.units, chosen.kept.get(group.name, np.arange(group.size)))] = False
    assert cost_model(graph).params(stays) == count_params(smaller)


def test_torchs_attention_says_why_it_keeps_its_heads() -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.attention = nn.Linear(8, 8), nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: Tensor) -> Any:
            x = self.inner(x)
            return self.attention(x, x, x, need_weights=False)[0]

    (group,) = trace(Network(), torch.zeros(1, 5, 8)).groups
    assert group.reason.startswith(
        "MultiheadAttention attention has the width and the heads that it was built"
    )
