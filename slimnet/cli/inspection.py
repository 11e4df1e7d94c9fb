"""What can be found out about a network, and how it is printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from slimnet.checkpoint import Checkpoint
from slimnet.cli import show
from slimnet.cost import count_macs, count_params
from slimnet.graph import ChannelGraph, ChannelGroup
from slimnet.graph.trace import trace
from slimnet.training.penalties import near_zero

BINS = 24  # characters of a histogram


def inspect_network(network: nn.Module, example: Tensor) -> dict[str, Any]:
    """Costs and channel groups, in primitives; all histograms of |γ| have the same edges."""
    graph = trace(network, example)
    gammas = {group.name: _gammas(graph, group) for group in graph.groups}
    top = max((float(gamma.max()) for gamma in gammas.values() if gamma.numel()), default=1.0) or 1.0
    return {
        "params": count_params(network),
        "macs": count_macs(network, example),
        "image_shape": list(example.shape[1:]),
        "gamma_max": top,
        "groups": [
            {
                "name": group.name,
                "producers": list(group.producers),
                "width": _width(graph, group),
                "prunable": group.prunable,
                "reason": group.reason,
                "near_zero": near_zero([gammas[group.name]]) if gammas[group.name].numel() else None,
                "gamma": torch.histc(gammas[group.name], BINS, 0.0, top).int().tolist(),
            }
            for group in graph.groups
        ],
    }


def print_inspection(file: Path, facts: dict[str, Any], saved: Checkpoint) -> None:
    """The same for people."""
    shape = "x".join(map(str, facts["image_shape"]))
    print(f"{file}: {facts['params']:,} parameters, {facts['macs']:,} MACs for an image of {shape}")
    if steps := saved.config.get("steps"):
        print(f"made by: {', then '.join(map(_step, steps))}")
    if "test_accuracy" in saved.metrics:
        print(f"validation {saved.metrics['val_accuracy']:.1%}, test {saved.metrics['test_accuracy']:.1%}")
    rows = [_row(group) for group in facts["groups"]]
    prunable = [group for group in facts["groups"] if group["prunable"]]
    together = np.sum([group["gamma"] for group in prunable], axis=0).tolist() if prunable else [0] * BINS
    rows.append(
        ("prunable", f"{sum(g['width'] for g in prunable):,}", "", show.small_histogram(together), "")
    )
    scale = f"|γ| from 0 to {facts['gamma_max']:.2g}"
    print()
    print(show.table(("group", "width", "near 0", scale, "kept whole because"), rows, "<>><<"))


def _row(group: dict[str, Any]) -> tuple[str, ...]:
    more = len(group["producers"]) - 1
    off = "" if group["near_zero"] is None else f"{group['near_zero']:.0%}"
    return (
        group["name"] + (f" and {more} more" if more else ""),
        f"{group['width']:,}",
        off,
        show.small_histogram(group["gamma"]),
        group["reason"],
    )


def _step(step: dict[str, Any]) -> str:
    """A step of the record in a few words."""
    if step["kind"] == "prune":
        name, value = next(
            (key, step[key]) for key in ("ratio", "params", "macs", "latency_ms") if step[key] is not None
        )
        return f"prune ({name} {value:,})"
    penalty = f", λ {step['lambda']:g}" if step["lambda"] else ""
    epochs = step["recipe"]["epochs"]
    return f"{step['kind']} ({epochs} epoch{'s' if epochs > 1 else ''}{penalty})"


def _gammas(graph: ChannelGraph, group: ChannelGroup) -> Tensor:
    """|γ| of the channels of one group; none where no BatchNorm with γ follows them."""
    parts = [torch.zeros(0)]
    for name in group.scales:
        gamma = graph.model.get_submodule(name).weight
        if isinstance(gamma, Tensor):
            parts.append(gamma.detach().abs().float()[torch.from_numpy(_of_group(graph, name, group))])
    return torch.cat(parts)


def _width(graph: ChannelGraph, group: ChannelGroup) -> int:
    """Output channels of the first producer that belong to the group."""
    return int(_of_group(graph, group.producers[0], group).sum())


def _of_group(graph: ChannelGraph, layer: str, group: ChannelGroup) -> Any:
    return np.isin(graph.layers[layer].outputs, group.units)
