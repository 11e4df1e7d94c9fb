"""Which channels go first: scores of units, and the order that follows from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from slimnet.errors import SlimnetError
from slimnet.graph import ChannelGraph, ChannelGroup
from slimnet.modules import named
from slimnet.pruning.options import Score
from slimnet.pruning.weight_scores import MEASURES, Batch, filter_scores, taylor_scores

Floats = NDArray[np.float64]
Units = NDArray[np.int64]


def gamma_magnitudes(graph: ChannelGraph) -> dict[str, Floats]:
    """|γ| of each BatchNorm, (C,), in the order in which they run; ones where it has no γ.

    Raises:
        SlimnetError: a γ is NaN or infinite.
    """
    found = _magnitudes(graph, "weight", 1.0)
    for name, values in found.items():
        if not np.isfinite(values).all():
            raise SlimnetError(f"{name} has scaling factors that are not finite; the training diverged")
    return found


def unit_scores(
    graph: ChannelGraph,
    score: Score | Callable[[ChannelGraph], Floats] | Floats,
    seed: int,
    batches: Iterable[Batch] | None,
) -> Floats:
    """What each unit is worth, (units,).

    Args:
        score: "gamma" is |γ|, averaged where a unit has several (Network Slimming); "gamma-weight" multiplies
            it by the norm of the weights that read the unit, which makes layers comparable, since γ and those
            weights can trade scale; "l1", "l2", "fpgm", "lamp" and "taylor" are those of
            `slimnet.pruning.weight_scores`; "random" is the control. An array is taken as it is, and what a
            function returns for the graph.
        seed: of the random scores.
        batches: images and labels, for "taylor".

    Raises:
        SlimnetError: scores of one's own are not a finite number per unit.
    """
    if not isinstance(score, str):
        values: Floats = np.asarray(score(graph) if callable(score) else score, dtype=np.float64)
        if values.shape != (graph.unit_count,) or not np.isfinite(values).all():
            raise SlimnetError(
                f"the scores have shape {values.shape} or are not finite; they are one finite number per "
                f"unit, ({graph.unit_count},)"
            )
        return values
    if score == "random":
        return np.random.default_rng(seed).random(graph.unit_count)
    if score == "taylor":
        return taylor_scores(graph, batches or ())
    if score in MEASURES:
        return filter_scores(graph, score)
    gamma = _unit_means(graph, gamma_magnitudes(graph))
    return gamma * _reader_norms(graph) if score == "gamma-weight" else gamma


def unit_shifts(graph: ChannelGraph) -> Floats:
    """The mean |β| of each unit, (units,): the less, the less a unit emits that is off at γ = 0."""
    return _unit_means(graph, _magnitudes(graph, "bias", 0.0))


def removal_order(
    groups: Sequence[ChannelGroup],
    scores: Floats,
    shifts: Floats,
    floors: Sequence[int],
    *,
    per_layer: bool = False,
    freed: Floats | None = None,
) -> Units:
    """All units that may go, least valuable first; the best of each group, its floor, are not among them.

    Args:
        groups: to prune.
        scores: of all units.
        shifts: of all units; where scores are equal, as at γ = 0 exactly, the smaller goes first.
        floors: units that stay, for each group.
        per_layer: take the same fraction of every group instead of the lowest scores overall.
        freed: (units,) what removing a unit frees; the order is then by score per cost freed.
    """
    candidates, keys = [], []
    worth = scores if freed is None else scores / freed
    for group, floor in zip(groups, floors, strict=True):
        best = np.lexsort((-shifts[group.units], -scores[group.units]))[:floor]
        open_to_choice = np.delete(group.units, best)
        key = worth[open_to_choice]
        if per_layer:
            order = np.lexsort((shifts[open_to_choice], key))
            key[order] = (np.arange(len(key)) + 1) / max(1, group.size)
        candidates.append(open_to_choice)
        keys.append(key)
    every = np.concatenate(candidates)
    return every[np.lexsort((shifts[every], np.concatenate(keys)))]


def _unit_means(graph: ChannelGraph, of_norms: Mapping[str, Floats]) -> Floats:
    """The mean over the BatchNorms of a unit of what their channels have, (units,)."""
    none = np.zeros(0, dtype=np.int64)
    units = np.concatenate([none, *(graph.layers[name].outputs for name in of_norms)])
    total = np.bincount(units, weights=np.concatenate([none, *of_norms.values()]), minlength=graph.unit_count)
    means: Floats = total / np.maximum(np.bincount(units, minlength=graph.unit_count), 1)
    return means


def _magnitudes(graph: ChannelGraph, part: str, missing: float) -> dict[str, Floats]:
    """|γ| or |β| of each BatchNorm, (C,); `missing` where it has none. All are read at once, to be quick."""
    modules = named(graph.model)
    norms = {name: modules[name] for name in graph.layers if isinstance(modules[name], _BatchNorm)}
    sizes = [len(graph.layers[name].outputs) for name in norms]
    read = [torch.zeros(0, device="cpu")]
    for norm, size in zip(norms.values(), sizes, strict=True):
        tensor: Tensor | None = getattr(norm, part)
        read.append(torch.full((size,), missing, device="cpu") if tensor is None else tensor.detach().cpu())
    values = torch.cat(read).double().abs().numpy()
    return dict(zip(norms, np.split(values, np.cumsum(sizes))[:-1], strict=True))


def _reader_norms(graph: ChannelGraph) -> Floats:
    """The norm of all weights that read each unit, (units,)."""
    squares = np.zeros(graph.unit_count)
    for name, layer in graph.layers.items():
        module = graph.model.get_submodule(name)
        if not layer.positions:  # a norm
            continue
        np.add.at(squares, layer.inputs, _input_squares(module))
    return np.sqrt(squares)


def _input_squares(module: nn.Module) -> Floats:
    """The sum of squares of the weights that read each input channel, (C_in,)."""
    assert isinstance(module.weight, torch.Tensor)
    weight = module.weight.detach().cpu().double()
    if getattr(module, "transposed", False):
        weight = weight.transpose(0, 1)
    groups = int(getattr(module, "groups", 1))
    split = weight.square().reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
    result: Floats = split.sum((1, 3)).flatten().numpy()
    return result
