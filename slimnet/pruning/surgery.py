"""From a plan to a network: silenced in place (`mask`) or physically smaller (`prune`)."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from slimnet.errors import SlimnetError
from slimnet.graph.findings import vector_dim
from slimnet.graph.operations import is_reparametrized
from slimnet.graph.record import tensors_in
from slimnet.graph.settings import change_settings
from slimnet.modes import prunable
from slimnet.modules import each, named
from slimnet.pruning.absorb import Absorption
from slimnet.pruning.blocks import drop_branch, find_branches
from slimnet.pruning.plan import LayerCut, PruningPlan
from slimnet.pruning.verify import CountingError, verify

Model = TypeVar("Model", bound=nn.Module)
PARAMETERS = ("weight", "bias")
STATISTICS = ("running_mean", "running_var")
_ATOMIC = {bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, type}


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
    silenced, cuts = _copy(model, sharing=()), plan.cuts()
    layers = named(silenced)
    if absorb:
        Absorption(layers, plan, cuts).into_all()
    with torch.no_grad():
        for name, cut in cuts.items():
            _silence(layers[name], cut)
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
    smaller = _copy(model, sharing=[tensor for tensor in replaced if tensor is not None])
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
        _shrink(layers[name], cut)
    for name, kept in plan.vector_cuts().items():
        _shorten(layers[name.rpartition(".")[0]], name.rpartition(".")[2], kept)
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


def resize(model: nn.Module, settings: dict[str, int]) -> None:
    """Change attributes that count channels, and note them in `resized`, by which a file tells them.

    Raises:
        AttributeError: the network has no such module or attribute.
    """
    if settings:
        change_settings(model, settings)
        vars(model)["resized"] = {**getattr(model, "resized", {}), **settings}


def fit_shapes(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Give the layers of `model` the shapes that the state_dict of a pruned sibling has; contents are open.

    Raises:
        SlimnetError: a layer is missing from `state`, or differs in more than its number of channels.
    """
    for name, module in model.named_modules():
        if _channel_counts(module) is None or is_reparametrized(module):
            continue  # the latter are never pruned
        for part in (*PARAMETERS, *STATISTICS):
            saved, own = state.get(f"{name}.{part}"), getattr(module, part, None)
            if not _fits(module, part, saved, own):
                found = "nothing" if saved is None else f"a tensor of shape {tuple(saved.shape)}"
                wanted = "none" if own is None else f"one like {tuple(own.shape)}, give or take channels"
                raise SlimnetError(
                    f"the file is of another network: for the {part} of {name} it has {found}, not {wanted}"
                )
            if saved is not None and (own is None or saved.shape != own.shape):
                fresh = saved.to(_device(model), own.dtype if own is not None else saved.dtype, copy=True)
                trained = own is None or own.requires_grad
                setattr(module, part, nn.Parameter(fresh, trained) if part in PARAMETERS else fresh)
        _set_counts(module)
    for name, module in model.named_modules():
        if _channel_counts(module) is None:
            _fit_vectors(module, name, state)


def _fit_vectors(module: nn.Module, name: str, state: dict[str, Tensor]) -> None:
    """Give the parameters and buffers of a module that is no layer the length that they have in a file."""
    for part, own in [*module._parameters.items(), *module._buffers.items()]:
        saved = state.get(f"{name}.{part}" if name else part)
        if own is None or saved is None or saved.shape == own.shape or saved.dim() != own.dim():
            continue
        dim = vector_dim(own.shape)
        if dim is not None and own.narrow(dim, 0, 1).shape == saved.narrow(dim, 0, 1).shape:
            fresh = saved.to(own.device, own.dtype, copy=True)
            trained = isinstance(own, nn.Parameter)
            setattr(module, part, nn.Parameter(fresh, own.requires_grad) if trained else fresh)
            if isinstance(module, nn.PReLU):
                module.num_parameters = fresh.numel()


def _fits(module: nn.Module, part: str, saved: Tensor | None, own: Tensor | None) -> bool:
    """Whether a saved tensor can be a layer's own but for the number of channels."""
    if saved is None:
        return own is None
    if own is None:  # absorption gives convs and linear layers a bias
        return part == "bias" and not isinstance(module, _NormBase)
    return saved.dim() == own.dim() and saved.shape[2:] == own.shape[2:]


def _copy(model: Model, sharing: Iterable[Tensor]) -> Model:
    """A deep copy that shares some tensors."""
    shared: dict[int, Any] = {id(tensor): tensor for tensor in sharing}
    try:
        copied: Model
        try:
            copied = _copy_value(model, dict(shared))
        except RuntimeError:  # an activation that a forward kept cannot be copied as it is
            copied = _copy_value(model, shared | _kept_activations(model))
    except (TypeError, RuntimeError) as error:
        raise SlimnetError(f"{type(model).__name__} cannot be copied: {error}") from error
    return copied


def _kept_activations(model: nn.Module) -> dict[int, Any]:
    """Copies of the tensors in attributes of modules that gradients would flow through."""
    return {
        id(tensor): tensor.detach().clone()
        for module in each(model)
        for value in vars(module).values()
        for tensor in tensors_in([value])
        if not tensor.is_leaf
    }


def _copy_value(value: Any, known: dict[int, Any]) -> Any:
    """What copy.deepcopy makes of a value, several times as fast for a network."""
    kind: Any = type(value)
    if kind in _ATOMIC:
        return value
    if id(value) in known:
        return known[id(value)]
    copied: Any
    if isinstance(value, nn.Module) and _is_copied_by_attributes(kind):
        known[id(value)] = copied = kind.__new__(kind)
        attributes = vars(copied)
        for name, item in vars(value).items():
            if type(item) in _ATOMIC:
                attributes[name] = item
            elif name in _HOOKS and not item:
                attributes[name] = type(item)()
            elif name != "_compiled_call_impl":  # which calls the original
                attributes[name] = _copy_value(item, known)
    elif kind is dict:
        known[id(value)] = copied = {}
        for key, item in value.items():
            copied[key if type(key) is str else copy.deepcopy(key, known)] = _copy_value(item, known)
    elif kind is nn.Parameter and value.grad is None and not vars(value):
        known[id(value)] = copied = nn.Parameter(value.detach().clone(), value.requires_grad)
    elif kind is Tensor and value.is_leaf and not value.requires_grad and not vars(value):
        known[id(value)] = copied = value.clone()
    elif kind is tuple and all(type(item) in _ATOMIC for item in value):
        return value
    elif kind is set and all(type(item) in _ATOMIC for item in value):
        known[id(value)] = copied = value.copy()
    else:
        return copy.deepcopy(value, known)
    return copied


_HOOKS = frozenset(name for name in vars(nn.Module()) if "hooks" in name)


@functools.cache
def _is_copied_by_attributes(kind: type[nn.Module]) -> bool:
    """Whether a class leaves it to nn.Module how it is copied: its attributes, one by one."""
    ways = ("__deepcopy__", "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__slots__")
    for base in kind.__mro__:
        ours = base in (object, nn.Module)
        torchs = base.__module__.startswith("torch.nn.modules.")  # whose __setstate__ are for old files
        if not ours and any(way in vars(base) for way in ways if not (torchs and way == "__setstate__")):
            return False
    return kind.__new__ is object.__new__


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
        found = _channel_counts(module)
        expected = (len(units.inputs), len(units.outputs))
        if found != expected:
            raise SlimnetError(
                f"the plan is for another network: {name} has {found} channels in and out here, "
                f"{expected} in the plan"
            )


def _channel_counts(module: nn.Module) -> tuple[int, int] | None:
    match module:
        case _ConvNd():
            return module.in_channels, module.out_channels
        case nn.Linear():
            return module.in_features, module.out_features
        case _NormBase():
            return module.num_features, module.num_features
        case nn.GroupNorm():
            return module.num_channels, module.num_channels
    return None


def _silence(module: nn.Module, cut: LayerCut) -> None:
    """Zero what writes the pruned channels, and what reads them."""
    counts = _channel_counts(module)
    if counts is None:
        return
    gone_in, gone_out = _complement(cut.inputs, counts[0]), _complement(cut.outputs, counts[1])
    for name in PARAMETERS:
        if getattr(module, name) is None:
            continue
        parameter = _outputs_first(module, getattr(module, name))
        parameter[gone_out] = 0
        if parameter.dim() > 1 and getattr(module, "groups", 1) == 1:
            parameter[:, gone_in] = 0


def _shrink(module: nn.Module, cut: LayerCut) -> None:
    outputs = torch.from_numpy(cut.outputs)
    inputs = torch.from_numpy(cut.inputs) if getattr(module, "groups", 1) == 1 else None
    stores: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
    for tensors in stores:
        for name in tensors.keys() & {*PARAMETERS, *STATISTICS}:
            if (tensor := tensors[name]) is not None:
                tensors[name] = _cut(module, tensor, outputs, inputs)
    if isinstance(module, _NormBase):
        module.num_features = len(outputs)
    if isinstance(module, nn.GroupNorm) and module.weight is None:
        _set_norm_groups(module, len(outputs))
    _set_counts(module)


def _shorten(module: nn.Module, name: str, kept: NDArray[np.int64]) -> None:
    """Cut a parameter or buffer with an entry per channel."""
    stores: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
    store = next(tensors for tensors in stores if name in tensors)
    tensor = store[name].detach()
    dim = vector_dim(tensor.shape)
    assert dim is not None
    selected = tensor.index_select(dim, torch.from_numpy(kept).to(tensor.device))
    trained = isinstance(store[name], nn.Parameter)
    store[name] = nn.Parameter(selected, store[name].requires_grad) if trained else selected
    if isinstance(module, nn.PReLU):
        module.num_parameters = len(kept)


def _cut(module: nn.Module, tensor: Tensor, outputs: Tensor, inputs: Tensor | None) -> Tensor:
    """A new tensor with the channels kept of an (out, in, ...) weight or an (out,) vector."""
    selected = whole = _outputs_first(module, tensor.detach())
    for dim, kept in ((0, outputs), (1, inputs)):
        if kept is not None and dim < whole.dim() and len(kept) < whole.shape[dim]:
            selected = selected.index_select(dim, kept.to(tensor.device))
    if selected is whole:
        selected = whole.clone()
    selected = _outputs_first(module, selected).contiguous(memory_format=_memory_format(tensor))
    return nn.Parameter(selected, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else selected


def _memory_format(tensor: Tensor) -> torch.memory_format:
    strided = tensor.dim() == 4 and not tensor.is_contiguous()
    return torch.channels_last if strided else torch.contiguous_format


def _set_counts(module: nn.Module) -> None:
    """Make the numbers that a layer keeps of its channels agree with its tensors."""
    match module:
        case _ConvNd():
            weight = _outputs_first(module, module.weight)
            groups = _conv_groups(module, weight)
            outputs, inputs = weight.shape[:2]
            vars(module).update(groups=groups, out_channels=outputs, in_channels=inputs * groups)
        case nn.Linear():
            module.out_features, module.in_features = module.weight.shape
        case _NormBase():
            for tensor in (module.weight, module.running_mean):
                if tensor is not None:
                    module.num_features = len(tensor)
        case nn.GroupNorm():
            if module.weight is not None:
                _set_norm_groups(module, len(module.weight))


def _set_norm_groups(norm: nn.GroupNorm, channels: int) -> None:
    """Keep the size of the groups that are normalised together, of which only whole ones were removed."""
    norm.num_groups = channels * norm.num_groups // norm.num_channels
    norm.num_channels = channels


def _conv_groups(conv: _ConvNd, weight: Tensor) -> int:
    """How many groups a conv of this weight has, given that only whole groups were removed."""
    outputs, inputs = conv.out_channels // conv.groups, conv.in_channels // conv.groups
    whole = weight.shape[1] == inputs and weight.shape[0] % outputs == 0
    return weight.shape[0] // outputs if conv.groups > 1 and whole else 1  # a last group may be cut further


def _outputs_first(module: nn.Module, tensor: Any) -> Tensor:
    """Swap the first two dimensions of a transposed conv's weight, (in, out, ...), to (out, in, ...)."""
    swapped = getattr(module, "transposed", False) and tensor.dim() > 1
    return tensor.transpose(0, 1) if swapped else tensor  # type: ignore[no-any-return]


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _complement(kept: NDArray[np.int64], count: int) -> Tensor:
    gone = torch.ones(count, dtype=torch.bool)
    gone[torch.from_numpy(kept)] = False
    return gone
