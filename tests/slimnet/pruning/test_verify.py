"""What is handed out runs, and what is asked for in the wrong way is refused in words."""

from __future__ import annotations

import copy
import math
import pickle
import random
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune as torch_masks

import slimnet
from slimnet import SlimnetError

X = torch.randn(2, 3, 8, 8)


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 1), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 2, 1),
    )  # fmt: skip


class Stubborn(nn.Module):
    """It counts channels where nobody sees it."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.inner = Insisting()
        self.out = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.inner(self.a(x)))  # type: ignore[no-any-return]


class Insisting(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.shape.numel() // (x.shape[0] * x.shape[2] * x.shape[3]) != 8:
            raise ValueError("eight channels are needed")
        return x


def test_a_network_that_no_longer_runs_is_refused_by_name() -> None:
    graph = slimnet.trace(Stubborn(), X)
    with pytest.raises(SlimnetError, match=r"does not run: at inner: eight channels are needed.*keep="):
        slimnet.prune(graph.model, slimnet.plan(graph, ratio=0.5, score="l2"))


def test_what_is_kept_by_name_stays() -> None:
    graph = slimnet.trace(Stubborn(), X)
    with pytest.raises(SlimnetError, match="keep names every layer"):
        slimnet.plan(graph, ratio=0.5, score="l2", keep=["a.*"])


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ({"0": np.array([], dtype=np.int64)}, "keeps no channel of 0"),
        ({"0": np.array([0, 8])}, r"they are of 0 to 7"),
        ({"0": np.array([1, 1])}, "each once"),
        ({"7": np.array([0])}, "a group 7"),
    ],
)
def test_a_plan_edited_by_hand_is_looked_at(kept: dict[str, Any], message: str) -> None:
    model = network()
    chosen = replace(slimnet.plan(slimnet.trace(model, X), ratio=0.5, score="l2"), kept=kept)
    for use in (slimnet.prune, slimnet.mask):
        with pytest.raises(SlimnetError, match=message):
            use(model, chosen)


def test_mixed_up_arguments_are_named() -> None:
    model = network()
    graph = slimnet.trace(model, X)
    with pytest.raises(SlimnetError, match="plan takes what trace"):
        slimnet.plan(model, ratio=0.5)  # type: ignore[arg-type]
    with pytest.raises(SlimnetError, match="not ChannelGraph and PruningPlan"):
        slimnet.prune(graph, slimnet.plan(graph, ratio=0.5, score="l2"))  # type: ignore[type-var]
    with pytest.raises(SlimnetError, match="not Sequential and ChannelGraph"):
        slimnet.prune(model, graph)  # type: ignore[arg-type]


def test_a_compiled_model_is_pruned_as_what_it_was_made_of() -> None:
    compiled: nn.Module = torch.compile(network())  # type: ignore[assignment]
    smaller: nn.Module = slimnet.prune(
        compiled, slimnet.plan(slimnet.trace(compiled, X), ratio=0.5, score="l2")
    )
    assert isinstance(smaller, nn.Sequential)


def test_a_plan_pickles_in_kilobytes_and_fits_networks_of_the_same_structure() -> None:
    model = slimnet.models.resnet([1, 1, 1], 16)
    chosen = slimnet.plan(slimnet.trace(model, torch.zeros(1, 3, 16, 16)), ratio=0.5, score="l2")
    saved = pickle.dumps(chosen)
    assert len(saved) < 100_000 < 4 * slimnet.count_params(model)
    other = slimnet.models.resnet([1, 1, 1], 16)
    smaller = slimnet.prune(other, pickle.loads(saved))
    assert smaller.widths == slimnet.prune(model, chosen).widths
    loaded, x = pickle.loads(saved), torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        masked = slimnet.mask(other, loaded, absorb=True).eval()(x)
        torch.testing.assert_close(smaller.eval()(x), masked, rtol=1e-4, atol=1e-5)


def test_a_mask_of_torch_is_told() -> None:
    model = network()
    torch_masks.l1_unstructured(model[0], "weight", 0.5)
    chosen = slimnet.plan(slimnet.trace(model, X), ratio=0.5, score="l2")
    assert set(chosen.kept) == {"3"}
    model = network()
    torch_masks.l1_unstructured(model[3], "weight", 0.5)
    assert slimnet.trace(model, X)["0"].reason == "3 has a mask of torch.nn.utils.prune"


class Counting(nn.Module):
    """It computes with its number of channels in a way that nobody sees."""

    def __init__(self, scale: Callable[[nn.Module, Tensor], float | Tensor]) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.out, self.scale = nn.Conv2d(8, 2, 1), scale

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.out(x) * self.scale(self, x)  # type: ignore[no-any-return]


@torch.jit.script
def _scripted(x: Tensor) -> float:
    return 1.0 / x.size(1)


COUNTS: dict[str, Callable[[Any, Tensor], float | Tensor]] = {
    "logarithm": lambda m, x: math.log2(x.shape[1]),
    "size of a size": lambda m, x: x.shape.numel() ** -0.5,
    "remainder": lambda m, x: 2.0 if x.shape[1] % 8 else 1.0,
    "branch": lambda m, x: 2.0 if x.shape[1] == 1 else 1.0,
    "script": lambda m, x: _scripted(x),
    "text": lambda m, x: float(str(x.shape[1])),
    "constant": lambda m, x: torch.linspace(0, len(range(x.shape[1])), x.shape[3]).to(x),
}


@pytest.mark.parametrize("name", COUNTS)
def test_a_forward_that_computes_with_its_channels_is_refused(name: str) -> None:
    model = Counting(COUNTS[name]).double().eval()
    x = X.double()
    graph = slimnet.trace(model, x)
    with pytest.raises(SlimnetError, match="number of channels"):
        slimnet.prune(model, slimnet.plan(graph, ratio=0.9, score="l2", min_channels=1))


class Two(nn.Module):
    """Two convs, and a forward that does what it is given to before the second."""

    def __init__(self, work: Callable[[Tensor, Tensor, nn.Module], Tensor]) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.b = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.gate = nn.Conv2d(3, 4, 1)
        self.out, self.work = nn.Conv2d(8, 2, 1), work

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate(x)
        return self.out(self.b(self.work(x, self.a(x), gate)))  # type: ignore[no-any-return]


def _read_then_counts(x: Tensor, y: Tensor, gate: Tensor) -> Tensor:
    _ = x.mean().item()
    return y.tanh() if y.shape[1] % 8 else y


def _branches_on_what_is_computed(x: Tensor, y: Tensor, gate: Tensor) -> Tensor:
    return y.softmax(1) if bool((gate > -100).all() & (gate != 0).any()) else y


@pytest.mark.parametrize("work", [_read_then_counts, _branches_on_what_is_computed])
def test_a_forward_that_reads_numbers_is_compared_with_the_masked_network(work: Any) -> None:
    model = Two(work).double().eval()
    chosen = slimnet.plan(slimnet.trace(model, X.double()), ratio=0.6, score="l2", min_channels=1)
    with pytest.raises(SlimnetError, match=r'keep=\["a.0"\]'):
        slimnet.prune(model, chosen)


def test_a_refusal_names_the_groups_to_keep() -> None:
    model = Two(lambda x, y, gate: y * math.log2(y.shape[1])).double().eval()
    graph = slimnet.trace(model, X.double())
    with pytest.raises(SlimnetError, match=r'number of channels.* plan\(..., keep=\["a.0"\]\)'):
        slimnet.prune(model, slimnet.plan(graph, ratio=0.6, score="l2", min_channels=1))
    kept = slimnet.plan(graph, ratio=0.6, score="l2", min_channels=1, keep=["a.0"])
    smaller: Any = slimnet.prune(model, kept)
    assert smaller.a[0].out_channels == 8 > smaller.b[0].out_channels


class Unpooled(nn.Module):
    """SegNet's unpooling, by where the maxima were; and an output in an object."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8))
        self.b = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8))
        self.out = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Any:
        x, places = nn.functional.max_pool2d(self.a(x), 2, return_indices=True)
        return SimpleNamespace(scores=self.out(nn.functional.max_unpool2d(self.b(x), places, 2)))


def test_unpooling_goes_by_the_same_channels_and_outputs_in_objects_stay() -> None:
    graph = slimnet.trace(Unpooled(), X)
    assert {"a.0", "b.0"} <= set(graph["a.0"].producers)
    assert graph["out"].reason == "it is the network's output"


def test_what_a_forward_writes_into_its_parameters_is_not_written() -> None:
    class Clamped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.out = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 1), nn.Conv2d(6, 2, 1)
            self.scale = nn.Parameter(torch.full((2, 1, 1), 3.0))
            self.seen: Tensor
            self.register_buffer("seen", torch.zeros(4))

        def forward(self, x: Tensor) -> Tensor:
            self.scale.data.clamp_(max=1)
            self.scale.data = self.scale.data / 2
            self.seen[1:] += 1
            self.seen = self.seen + random.random()
            return self.out(self.b(self.a(x))) * self.scale  # type: ignore[no-any-return]

    model = Clamped()
    before, drawn = copy.deepcopy(model.state_dict()), random.getstate()
    plan = slimnet.plan(slimnet.trace(model, X), ratio=0.5, score="l2", min_channels=1)
    slimnet.prune(model, plan)
    assert random.getstate() == drawn
    torch.testing.assert_close(dict(model.state_dict()), dict(before), rtol=0, atol=0)
