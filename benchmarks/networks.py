"""Networks of torchvision: what the graph finds in each, and how far pruned and masked outputs are apart.

Random weights, BatchNorms with random γ, β and statistics, float64. Largest deviation over ratios, with and
without absorption, streams kept and pruned; outputs are of the order of 1.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision import models
from torchvision.models import segmentation

import slimnet
from slimnet.graph.record import tensors_in

RATIOS = (0.3, 0.5, 0.9)
NETWORKS = (
    "resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2", "vgg16_bn", "densenet121", "mobilenet_v2",
    "mobilenet_v3_small", "efficientnet_b0", "regnet_y_400mf", "mnasnet1_0", "shufflenet_v2_x1_0",
    "googlenet", "inception_v3", "fcn_resnet50", "convnext_tiny", "squeezenet1_0",
)  # fmt: skip
OPTIONS: dict[str, dict[str, Any]] = {
    "fcn_resnet50": {"weights_backbone": None},
    "googlenet": {"init_weights": False},
    "inception_v3": {"init_weights": False},
}


def main() -> None:
    """Print a row per network."""
    print("| network | parameters | groups | prunable | of all channels | with streams | largest deviation |")
    print("|---|---|---|---|---|---|---|")
    for name in NETWORKS:
        print("| " + " | ".join([name, *_row(name)]) + " |", flush=True)


def _row(name: str) -> list[str]:
    torch.manual_seed(0)
    model = _scatter(_build(name)).double().eval()
    size = 96 if name == "inception_v3" else 64
    x = torch.randn(2, 3, size, size, dtype=torch.float64)
    graph = slimnet.trace(model, x)
    plain = [group for group in graph.groups if group.prunable]
    streams = [group for group in graph.groups if not group.blocked]
    shares = [f"{_channels(some) / _channels(graph.groups):.0%}" for some in (plain, streams)]
    counts = [f"{slimnet.count_params(model):,}", str(len(graph.groups)), str(len(plain))]
    try:
        return [*counts, *shares, f"{_largest_deviation(model, graph, x):.1e}"]
    except slimnet.SlimnetError as error:
        return [*counts, *shares, f"refused: {error}"]


def _channels(groups: Iterable[slimnet.ChannelGroup]) -> int:
    return sum(group.size * group.unit_channels for group in groups)


def _largest_deviation(model: nn.Module, graph: slimnet.ChannelGraph, x: Tensor) -> float:
    found = 0.0
    for ratio, streams, absorb in itertools.product(RATIOS, (False, True), (False, True)):
        plan = slimnet.plan(graph, ratio=ratio, streams=streams)
        networks = slimnet.mask(model, plan, absorb=absorb), slimnet.prune(model, plan, absorb=absorb)
        with torch.no_grad():
            masked, physical = (tensors_in(network(x)) for network in networks)
        pairs = zip(masked, physical, strict=True)
        found = max(found, *(float((ours - theirs).abs().max()) for ours, theirs in pairs))
    return found


def _build(name: str) -> nn.Module:
    make = segmentation.fcn_resnet50 if name == "fcn_resnet50" else getattr(models, name)
    network: nn.Module = make(weights=None, **OPTIONS.get(name, {}))
    return network


def _scatter(model: nn.Module) -> nn.Module:
    """BatchNorms as training leaves them: no two channels alike."""
    with torch.no_grad():
        for norm in model.modules():
            if isinstance(norm, _BatchNorm):
                assert norm.running_mean is not None
                assert norm.running_var is not None
                norm.weight.normal_(0.1, 0.5)
                norm.bias.normal_(0, 0.3)
                norm.running_mean.normal_(0, 0.1)
                norm.running_var.uniform_(0.5, 1.5)
    return model
