"""Which channels go first: scores of units, and the order that follows from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from slimnet.errors import SlimnetError
from slimnet.graph import ChannelGraph, ChannelGroup
from slimnet.modules import named
from slimnet.pruning.options import Score
from slimnet.pruning.weight_scores import MEASURES, Batch, filter_scores, taylor_scores

Floats = NDArray[np.float64]
Units = NDArray[np.int64]


def norm_layers(graph: ChannelGraph) -> list[str]:
    """The BatchNorms of the network, in the order in which they run."""
    modules = named(graph.model)
    return [name for name in graph.layers if isinstance(modules[name], _BatchNorm)]


def gamma_magnitudes(graph: ChannelGraph, name: str) -> Floats:
    """|γ| of one BatchNorm, (C,); ones where it has no γ.

    Raises:
        SlimnetError: a γ is NaN or infinite.
    """
    module = graph.model.get_submodule(name)
    if not isinstance(module.weight, torch.Tensor):
        return np.ones(len(graph.layers[name].outputs))
    values: Floats = module.weight.detach().abs().cpu().double().numpy()
    if not np.isfinite(values).all():
        raise SlimnetError(f"{name} has scaling factors that are not finite; the training diverged")
    return values


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
    gamma = _unit_means(graph, gamma_magnitudes)
    return gamma * _reader_norms(graph) if score == "gamma-weight" else gamma


def unit_shifts(graph: ChannelGraph) -> Floats:
    """The mean |β| of each unit, (units,): the less, the less a unit emits that is off at γ = 0."""
    return _unit_means(graph, _beta_magnitudes)


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


def _unit_means(graph: ChannelGraph, of_norm: Callable[[ChannelGraph, str], Floats]) -> Floats:
    """The mean over the BatchNorms of a unit of what `of_norm` says of their channels, (units,)."""
    names = norm_layers(graph)
    units = np.concatenate([np.zeros(0, dtype=np.int64), *(graph.layers[name].outputs for name in names)])
    values = np.concatenate([np.zeros(0), *(of_norm(graph, name) for name in names)])
    total = np.bincount(units, weights=values, minlength=graph.unit_count)
    means: Floats = total / np.maximum(np.bincount(units, minlength=graph.unit_count), 1)
    return means


def _beta_magnitudes(graph: ChannelGraph, name: str) -> Floats:
    """|β| of one BatchNorm, (C,); zeros where it has none."""
    bias = graph.model.get_submodule(name).bias
    if not isinstance(bias, torch.Tensor):
        return np.zeros(len(graph.layers[name].outputs))
    values: Floats = bias.detach().abs().cpu().double().numpy()
    return values


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
