"""What people build networks of: pruned exactly, and what was traced left as it was, to the bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.ops.misc import FrozenBatchNorm2d

from slimnet import ChannelGraph, mask, plan, prune, trace

Scatter = Callable[..., nn.Module]


def conv(inputs: int, outputs: int, kernel: int = 1, **options: Any) -> nn.Sequential:
    padding = kernel // 2
    layer = nn.Conv2d(inputs, outputs, kernel, padding=padding, bias=False, **options)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.SiLU())


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.deep = conv(3, 8, 3), conv(8, 16, 3)
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.norm, self.out = nn.BatchNorm2d(8), nn.Conv2d(16, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        high = self.down(x)
        low = self.norm(self.up(self.deep(F.max_pool2d(high, 2))))
        low = F.interpolate(low, size=high.shape[-2:], mode="bilinear")
        return self.out(torch.cat([high, low], 1))  # type: ignore[no-any-return]


class C2f(nn.Module):
    """YOLOv8's block: halves in a list that grows."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.out = conv(3, 16), conv(32, 8), nn.Conv2d(8, 2, 1)
        self.blocks = nn.ModuleList(conv(8, 8, 3) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.first(x).chunk(2, 1))
        parts.extend(block(parts[-1]) for block in self.blocks)
        return self.out(self.last(torch.cat(parts, 1)))  # type: ignore[no-any-return]


class Temporal(nn.Module):
    """A TCN's causal convs, cut to length."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.na = nn.Conv1d(3, 8, 3, padding=4, dilation=2), nn.BatchNorm1d(8)
        self.b, self.nb = nn.Conv1d(8, 8, 3, padding=2), nn.BatchNorm1d(8)
        self.c, self.nc = nn.Conv1d(8, 8, 1), nn.BatchNorm1d(8)
        self.out = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.na(self.a(x)[:, :, :-4].contiguous()))
        x = x + self.nc(self.c(F.relu(self.nb(self.b(x)[..., :-2]))))
        return self.out(x[:, :, -1])  # type: ignore[no-any-return]


class Siamese(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tower, self.out = nn.Sequential(*conv(3, 8, 3), *conv(8, 6)), nn.Linear(6, 1)

    def forward(self, x: Tensor, scale: float = 2.0) -> dict[str, list[Tensor]]:
        left, right = self.tower(x), self.tower(scale * x.flip(-1))
        return {
            "scores": [self.out((left - right).abs().mean((2, 3))), self.out((left * right).amax((2, 3)))]
        }


class Selective(nn.Module):
    """Selective kernels: a softmax over two paths that are stacked (Li et al. 2019)."""

    def __init__(self) -> None:
        super().__init__()
        self.paths = nn.ModuleList([conv(3, 8, 3), conv(3, 8, 5)])
        self.squeeze, self.choose, self.out = conv(8, 4), nn.Conv2d(4, 16, 1), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        paths = torch.stack([path(x) for path in self.paths], dim=1)
        gate = self.choose(self.squeeze(paths.sum(1).mean((2, 3), keepdim=True)))
        b, c, h, w = gate.shape
        gate = torch.softmax(gate.view(b, 2, c // 2, h, w), dim=1)
        return self.out((paths * gate).sum(dim=1))  # type: ignore[no-any-return]


class SplitAttention(nn.Module):
    """ResNeSt's radix softmax, by reshape and transpose (Zhang et al. 2020)."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(3, 8), conv(8, 16, 3, groups=2)
        self.fc1, self.fc2, self.out = conv(8, 4), nn.Conv2d(4, 16, 1), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(self.a(x))
        b, rc, h, w = x.shape
        x = x.reshape(b, 2, rc // 2, h, w)
        gate = self.fc2(self.fc1(x.sum(dim=1).mean((2, 3), keepdim=True)))
        gate = F.softmax(gate.view(b, 1, 2, -1).transpose(1, 2), dim=1).reshape(b, 2, rc // 2, 1, 1)
        return self.out((x * gate).sum(dim=1))  # type: ignore[no-any-return]


class Scaled(nn.Module):
    """Layer scale, a PReLU per channel, a frozen norm, constants and casts."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.act, self.b = nn.Conv2d(3, 8, 1), nn.PReLU(8), nn.Conv2d(8, 8, 1)
        self.norm, self.frozen = nn.BatchNorm2d(8), FrozenBatchNorm2d(8)
        self.scale, self.out = nn.Parameter(torch.rand(8, 1, 1)), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm(self.a(x))) * torch.tensor(0.5, dtype=x.dtype)
        x = self.scale * self.frozen(self.b(x)).float().double()
        return self.out(x if x.shape[-1] > 4 else F.pad(x, (1, 1)))  # type: ignore[no-any-return]


class Shuffled(nn.Module):
    """Pixel shuffle, a channel shuffle by slices, halves by a computed position."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = conv(3, 16), conv(4, 8), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(F.pixel_shuffle(self.a(x), 2))
        x = torch.cat([x[:, ::2], x[:, 1::2]], 1)
        half = x.shape[1] // 2
        return self.out(torch.cat([x[:, half:], x[:, :half]], 1))  # type: ignore[no-any-return]


class Normed(nn.Module):
    """GroupNorm, InstanceNorm and maximum; channels that are normalised together go together."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 12, 1), nn.Conv2d(12, 8, 1), nn.Conv2d(12, 8, 1)
        self.groups, self.own, self.out = (
            nn.GroupNorm(4, 12),
            nn.InstanceNorm2d(8, affine=True),
            nn.Conv2d(8, 2, 1),
        )
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.groups(self.a(x)))
        return self.out(torch.maximum(self.own(self.b(x)), self.norm(self.c(x))))  # type: ignore[no-any-return]


class Generalised(nn.Module):
    """Roots and powers, as in GeM and L2 pooling, where a careless constant becomes NaN."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(3, 8), conv(8, 8), conv(8, 8)
        self.p, self.out = nn.Parameter(torch.ones(1) * 3), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = (self.a(x).square() + 1e-3).sqrt()
        x = F.lp_pool2d(self.b(x), 2.0, 2) + 1e-6
        x = self.c(x.log1p() / (x.exp() + 1)).clamp(min=1e-6)
        x = x.pow(self.p).mean((2, 3)).pow(1.0 / self.p)
        return self.out(x.pow(0.5))  # type: ignore[no-any-return]


class Positional(nn.Module):
    """A conv of coordinates that the forward makes, added to what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.place, self.b, self.out = conv(3, 8), nn.Conv2d(1, 8, 1), conv(8, 6), nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        line = torch.linspace(0, 1, x.shape[-1], dtype=x.dtype).expand(1, 1, *x.shape[2:])
        return self.out(self.b(self.a(x) + self.place(line)))  # type: ignore[no-any-return]


STRUCTURES: dict[str, Callable[[], nn.Module]] = {
    "unet": UNet,
    "c2f": C2f,
    "tcn": Temporal,
    "siamese": Siamese,
    "selective kernels": Selective,
    "split attention": SplitAttention,
    "layer scale": Scaled,
    "shuffles": Shuffled,
    "norms": Normed,
    "roots": Generalised,
    "positions": Positional,
}


def tensors(output: Any) -> list[Tensor]:
    if isinstance(output, dict):
        output = list(output.values())
    return [output] if isinstance(output, Tensor) else [t for item in output for t in tensors(item)]


def example(name: str) -> Tensor:
    return torch.randn(2, 3, 12, dtype=torch.float64) if name == "tcn" else torch.randn(2, 3, 8, 8).double()


@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("streams", [False, True])
def test_masked_equals_physical(name: str, streams: bool, scatter: Scatter) -> None:
    network, x = scatter(STRUCTURES[name]()), example(name)
    graph = trace(network, x)
    removed = 0
    for ratio in (0.3, 0.6, 0.9):
        chosen = plan(graph, ratio=ratio, min_channels=1, streams=streams, score="l2")
        removed = max(removed, chosen.removed_channels)
        for absorb in (False, True):
            with torch.no_grad():
                physical = tensors(prune(network, chosen, absorb=absorb)(x))
                masked = tensors(mask(network, chosen, absorb=absorb)(x))
            for ours, theirs in zip(physical, masked, strict=True):
                assert ours.isfinite().all()
                torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
    assert removed > 0


def state(network: nn.Module) -> dict[str, Any]:
    """Everything of a network that could be changed."""
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    return {
        "tensors": {name: tensor.detach().clone() for name, tensor in tensors.items()},
        "identities": {name: id(tensor) for name, tensor in tensors.items()},
        "gradients": {n: None if p.grad is None else p.grad.clone() for n, p in network.named_parameters()},
        "training": [module.training for module in network.modules()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules()],
        "attributes": [sorted(vars(module)) for module in network.modules()],
        "random": torch.random.get_rng_state(),
    }


@pytest.mark.parametrize("name", [*STRUCTURES, "dropout", "training only", "own norm"])
def test_the_network_is_left_to_the_bit(name: str, scatter: Scatter) -> None:
    networks = {"dropout": Dropping, "training only": Auxiliary, "own norm": Stored, **STRUCTURES}
    network, x = scatter(networks[name]()), example(name)
    network.train()
    network.register_forward_hook(lambda *_: None)
    sum(tensor.sum() for tensor in tensors(network(x))).backward()
    before = state(network)
    graph = trace(network, x)
    chosen = plan(graph, ratio=0.5, min_channels=1, score="l2")
    mask(network, chosen, absorb=True)
    prune(network, chosen)
    after = state(network)
    for part in ("tensors", "gradients", "random"):
        torch.testing.assert_close(after.pop(part), before.pop(part), rtol=0, atol=0)
    assert after == before


class Dropping(nn.Module):
    """It draws random numbers, whatever the mode."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.out = conv(3, 8), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.dropout(self.a(x), 0.5, training=True) + torch.rand(1, dtype=x.dtype)
        return self.out(x)  # type: ignore[no-any-return]


class Auxiliary(nn.Module):
    """A head that only runs in training."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.side, self.out = conv(3, 8), conv(8, 8), nn.Conv2d(8, 2, 1), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.a(x)
        found = [self.out(self.b(x))]
        return [*found, self.side(x)] if self.training else found


class OwnNorm(nn.BatchNorm2d):
    """One that calls the function itself, as timm's do, and keeps what it saw."""

    def forward(self, input: Tensor) -> Tensor:
        self.seen = input
        mean, var = self.running_mean, self.running_var
        return F.relu(F.batch_norm(input, mean, var, self.weight, self.bias, self.training, 0.1, self.eps))


class Stored(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.out = nn.Conv2d(3, 8, 1), OwnNorm(8), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.norm(self.a(x)))  # type: ignore[no-any-return]


def test_norms_that_call_the_function_themselves_are_followed() -> None:
    assert trace(Stored(), torch.zeros(1, 3, 8, 8))["a"].prunable


def test_what_only_runs_in_training_keeps_what_it_reads() -> None:
    graph = trace(Auxiliary(), torch.zeros(2, 3, 8, 8))
    assert graph["a.0"].reason == "side, which only runs in training, reads it"
    assert graph["b.0"].prunable


# Whole detectors and transformers


def heads(model: nn.Module, x: Any) -> list[Tensor]:
    """What a detector's heads return, which boxes are only chosen from."""
    found: list[Tensor] = []
    hook = model.head.register_forward_hook(lambda module, args, output: found.extend(tensors(output)))
    with torch.no_grad():
        model(x)
    hook.remove()
    return found


def largest(graph: ChannelGraph) -> int:
    return sum(group.size * group.unit_channels for group in graph.groups if not group.blocked)


@pytest.mark.slow  # a whole detector is traced, and pruned twice
def test_a_whole_detector(scatter: Scatter) -> None:
    model = torchvision.models.detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None)
    model = scatter(model)
    images = [torch.rand(3, 64, 80, dtype=torch.float64)]
    graph = trace(model, (images,))
    assert largest(graph) > 10_000
    chosen = plan(graph, ratio=0.5, streams=True)
    for absorb in (False, True):
        masked = heads(mask(model, chosen, absorb=absorb), images)
        for ours, theirs in zip(heads(prune(model, chosen, absorb=absorb), images), masked, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["vit_b_16", "convnext_tiny", "swin_t"])
def test_hidden_widths_of_transformers(name: str) -> None:
    torch.manual_seed(0)
    builders = torchvision.models
    model: nn.Module = {
        "vit_b_16": lambda: builders.VisionTransformer(32, 8, 2, 2, 16, 24),
        "convnext_tiny": lambda: builders.ConvNeXt(
            [builders.convnext.CNBlockConfig(8, 16, 1), builders.convnext.CNBlockConfig(16, None, 1)]
        ),
        "swin_t": lambda: builders.SwinTransformer([4, 4], 8, [1, 1], [1, 2], [4, 4]),
    }[name]()
    model = model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():  # a new head is 0, and a layer scale nearly
            parameter.add_(0.1 * torch.randn_like(parameter))
    x = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    graph = trace(model, x)
    chosen = plan(graph, ratio=0.5, score="l2", min_channels=1)
    assert chosen.removed_channels >= 16
    for absorb in (False, True):
        with torch.no_grad():
            ours, theirs = prune(model, chosen, absorb=absorb)(x), mask(model, chosen, absorb=absorb)(x)
        assert (ours - model(x)).abs().max() > 1e-6
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
