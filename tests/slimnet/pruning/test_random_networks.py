"""Random networks under random plans: masked and physical networks agree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from slimnet import mask, plan, prune, trace

Draw = Callable[[st.SearchStrategy[Any]], Any]
SIZE = 5
JOINS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": lambda a, b: a + b,
    "add in place": lambda a, b: (a * 1).add_(b),
    "multiply": lambda a, b: a * b,
}


def squeeze_and_excite(gate: nn.Module, x: Tensor) -> Tensor:
    return x * torch.sigmoid(gate(x.mean((2, 3), keepdim=True)))


def shuffle(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def swap(x: Tensor) -> Tensor:
    left, right = x.chunk(2, 1)
    return torch.cat([right, left], 1)


class Step(NamedTuple):
    kind: str
    sources: list[int]


class RandomNetwork(nn.Module):
    """A network of 3 to 10 steps, each reading what any of the steps before it wrote; two outputs."""

    def __init__(self, draw: Draw) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self.widths = [3]
        self.layers = nn.ModuleList()  # one per step; steps without parameters do not call theirs
        self._conv(draw, 0, 3)
        for _ in range(draw(st.integers(2, 9))):
            self._grow(draw)
        self.last = nn.Linear(self.widths[-1], 3)
        self.flat = nn.Linear(self.widths[-2] * SIZE * SIZE, 2)

    def _grow(self, draw: Draw) -> None:
        source = draw(st.integers(max(0, len(self.widths) - 4), len(self.widths) - 1))
        width = self.widths[source]
        even = ["grouped", "shuffle", "swap"] if width % 2 == 0 else []
        kind = draw(st.sampled_from(["conv", "conv", "depthwise", "join", "cat", "gate", "norm", *even]))
        if kind in ("conv", "grouped"):
            self._conv(draw, source, draw(st.sampled_from([1, 3])), groups=2 if kind == "grouped" else 1)
        elif kind == "depthwise":
            self._conv(draw, source, 3, groups=width)
        elif kind == "join":
            others = [other for other, size in enumerate(self.widths) if size == width]
            self._add(draw(st.sampled_from(list(JOINS))), [source, draw(st.sampled_from(others))], width)
        elif kind == "cat":
            parts = draw(st.lists(st.integers(0, len(self.widths) - 1), min_size=1, max_size=3))
            self._add(kind, parts, sum(self.widths[part] for part in parts))
        elif kind == "gate":
            squeeze = [nn.Conv2d(width, 4, 1), nn.BatchNorm2d(4), nn.ReLU()]
            self._add(kind, [source], width, nn.Sequential(*squeeze, nn.Conv2d(4, width, 1)))
        elif kind == "norm":
            self._add("run", [source], width, nn.BatchNorm2d(width))
        else:
            self._add(kind, [source], width)

    def _conv(self, draw: Draw, source: int, kernel: int, groups: int = 1) -> None:
        width = groups * draw(st.integers(1, max(1, 8 // groups)))
        bias, norm = draw(st.booleans()), draw(st.sampled_from([True, True, True, False]))
        activation = draw(
            st.sampled_from([nn.ReLU, nn.SiLU, nn.Hardswish, nn.Sigmoid, nn.Identity, nn.ReLU6])
        )
        conv = nn.Conv2d(self.widths[source], width, kernel, padding=kernel // 2, groups=groups, bias=bias)
        parts = [conv, nn.BatchNorm2d(width)] if norm else [conv]
        self._add("run", [source], width, nn.Sequential(*parts, activation()))

    def _add(self, kind: str, sources: list[int], width: int, layer: nn.Module | None = None) -> None:
        self.steps.append(Step(kind, sources))
        self.layers.append(layer or nn.Identity())
        self.widths.append(width)

    def forward(self, x: Tensor) -> list[Tensor]:
        values = [x]
        for step, layer in zip(self.steps, self.layers, strict=True):
            read = [values[source] for source in step.sources]
            if step.kind in JOINS:
                values.append(JOINS[step.kind](*read))
            elif step.kind == "cat":
                values.append(torch.cat(read, 1))
            elif step.kind == "gate":
                values.append(squeeze_and_excite(layer, *read))
            elif step.kind in ("shuffle", "swap"):
                values.append({"shuffle": shuffle, "swap": swap}[step.kind](*read))
            else:
                values.append(layer(*read))
        return [self.last(values[-1].mean((2, 3))), self.flat(values[-2].flatten(1))]


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    data=st.data(),
    ratio=st.sampled_from([0.2, 0.5, 0.8, 0.99]),
    streams=st.booleans(),
    absorb=st.booleans(),
    least=st.integers(1, 3),
    score=st.sampled_from(["gamma", "l2", "fpgm", "random"]),
)
def test_masked_equals_physical(
    scatter: Callable[..., nn.Module],
    data: st.DataObject,
    ratio: float,
    streams: bool,
    absorb: bool,
    least: int,
    score: Any,
) -> None:
    torch.manual_seed(0)
    network = scatter(RandomNetwork(data.draw))
    x = torch.randn(2, 3, SIZE, SIZE, dtype=torch.float64)
    graph = trace(network, x[:1])
    if all(
        group.blocked or (group.coupled and not streams) or (score == "gamma" and not group.scales)
        for group in graph.groups
    ):
        return
    chosen = plan(graph, ratio=ratio, streams=streams, min_channels=least, score=score)
    with torch.no_grad():
        masked = mask(network, chosen, absorb=absorb)(x)
        physical = prune(network, chosen, absorb=absorb)(x)
    for ours, theirs in zip(masked, physical, strict=True):
        assert ours.isfinite().all()
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
