"""From a plan to a network: silenced in place (`mask`) or physically smaller (`prune`)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from slimnet.errors import SlimnetError
from slimnet.modes import prunable
from slimnet.modules import named
from slimnet.pruning.absorb import Absorption
from slimnet.pruning.blocks import drop_branch, find_branches
from slimnet.pruning.copies import copied
from slimnet.pruning.plan import PruningPlan
from slimnet.pruning.verify import CountingError, verify
from slimnet.pruning.widths import PARAMETERS, STATISTICS, channels_of, resize, shorten, shrink, silence

Model = TypeVar("Model", bound=nn.Module)


def mask(model: Model, plan: PruningPlan, *, absorb: bool = False) -> Model:
    """A copy of the same shapes in which the pruned channels are silent.

    Args:
        model: the network that was traced; left as it was.
        plan: which channels stay.
        absorb: first move the constants that pruned channels emit into what reads them, as `prune` does.

    Raises:
        SlimnetError: the plan is for another network, naming the first layer that disagrees.

    Example:
        >>> model = slimnet.models.resnet([1], width=8)
        >>> plan = slimnet.plan(slimnet.trace(model, torch.zeros(1, 3, 8, 8)), ratio=0.5)
        >>> silenced, smaller = slimnet.mask(model, plan), slimnet.prune(model, plan, absorb=False)
        >>> x = torch.randn(2, 3, 8, 8)
        >>> torch.allclose(silenced.eval()(x), smaller.eval()(x), atol=1e-5)
        True
    """
    model = prunable(model)
    _check(model, plan)
    silenced, cuts = copied(model, sharing=()), plan.cuts()
    layers = named(silenced)
    if absorb:
        Absorption(layers, plan, cuts).into_all()
    with torch.no_grad():
        for name, cut in cuts.items():
            silence(layers[name], cut)
    return silenced


def prune(model: Model, plan: PruningPlan, *, absorb: bool = True) -> Model:
    """A physically smaller copy.

    BatchNorms keep the entries of their own channels, convs and linear layers `[out kept][:, in kept]`.
    Blocks that the plan drops become the constant that they add.

    Args:
        model: the network that was traced; left as it was.
        plan: which channels stay.
        absorb: move the constant that a pruned channel still emits, act(β) at γ = 0, into what reads it.

    Raises:
        SlimnetError: the plan is for another network, naming the first layer that disagrees; or what came of
            it does not run on the example, or returns other shapes or numbers that are not finite.

    Example:
        >>> model = slimnet.models.resnet([1], width=8)
        >>> plan = slimnet.plan(slimnet.trace(model, torch.zeros(1, 3, 8, 8)), ratio=0.5)
        >>> slimnet.count_params(model), slimnet.count_params(slimnet.prune(model, plan))
        (1810, 1217)
    """
    model = prunable(model)
    _check(model, plan)
    smaller = _cut_out(model, plan, absorb=absorb)
    try:
        _verify(model, smaller, plan, absorb=absorb)
    except CountingError as error:
        names = ", ".join(f'"{name}"' for name in _culprits(model, plan)) or "..."
        raise SlimnetError(
            f"{error}; keep the layers that it counts whole: plan(..., keep=[{names}])"
        ) from error
    return smaller


def _cut_out(model: Model, plan: PruningPlan, *, absorb: bool) -> Model:
    """The smaller copy, whether it runs or not."""
    cuts = plan.cuts()
    # What is about to be replaced by a slice of itself needs no copy of its own.
    modules = named(model)
    replaced: list[Tensor | None] = [
        modules[name]._parameters.get(part) for name in cuts for part in PARAMETERS
    ]
    replaced += [modules[name]._buffers.get(part) for name in cuts for part in STATISTICS]
    smaller = copied(model, sharing=[tensor for tensor in replaced if tensor is not None])
    layers = named(smaller)
    absorption = Absorption(layers, plan, cuts) if absorb else None
    if absorption and plan.dropped:  # branches become what they add, at its full width
        absorption.into_all()
    for branch in find_branches(plan.graph.record) if plan.dropped else []:
        if branch.name in plan.dropped:
            drop_branch(smaller, branch, {name: cut.outputs for name, cut in cuts.items()})
            cuts = {name: cut for name, cut in cuts.items() if name not in branch.layers}
    for name, cut in cuts.items():  # a norm after the layer that it is behind
        if absorption:
            absorption.into(name, cut=True)
        shrink(layers[name], cut)
    for name, kept in plan.vector_cuts().items():
        shorten(layers[name.rpartition(".")[0]], name.rpartition(".")[2], kept)
    resize(smaller, plan.setting_cuts())
    return smaller


def _culprits(model: nn.Module, plan: PruningPlan) -> list[str]:
    """The groups whose cut alone makes a network that does not run as it should, by a producer of each."""
    found = []
    for name, kept in plan.kept.items():
        alone = replace(plan, kept={name: kept})
        try:
            _verify(model, _cut_out(model, alone, absorb=False), alone, absorb=False)
        except CountingError:
            found.append(next(group.producers[0] for group in plan.graph.groups if group.name == name))
    return found


def _verify(model: nn.Module, smaller: nn.Module, plan: PruningPlan, *, absorb: bool) -> None:
    silenced = partial(mask, model, plan, absorb=absorb)
    verify(model, smaller, plan.graph, silenced=silenced, compare=not plan.dropped)


def _check(model: nn.Module, plan: PruningPlan) -> None:
    if not isinstance(model, nn.Module) or not isinstance(plan, PruningPlan):
        raise SlimnetError(
            f"a network and its plan are needed, not {type(model).__name__} and {type(plan).__name__}: "
            "graph = trace(model, example); prune(model, plan(graph, ratio=0.5))"
        )
    plan.check()
    modules = named(model)
    for name, units in plan.graph.layers.items():
        try:
            module = modules[name]
        except KeyError:
            raise SlimnetError(
                f"the plan is for another network: it has a layer {name}, this one has none"
            ) from None
        found = channels_of(module)
        expected = (len(units.inputs), len(units.outputs))
        if found != expected:
            raise SlimnetError(
                f"the plan is for another network: {name} has {found} channels in and out here, "
                f"{expected} in the plan"
            )
