"""Layers at other widths: silenced, cut, or of the shapes in a file."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from slimnet.errors import SlimnetError
from slimnet.graph.findings import vector_dim
from slimnet.graph.operations import is_reparametrized
from slimnet.graph.settings import change_settings
from slimnet.pruning.plan import LayerCut

PARAMETERS = ("weight", "bias")
STATISTICS = ("running_mean", "running_var")


def channels_of(module: nn.Module) -> tuple[int, int] | None:
    """How many channels a layer takes and makes; None of what is no layer."""
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


def silence(module: nn.Module, cut: LayerCut) -> None:
    """Zero what writes the pruned channels, and what reads them."""
    counts = channels_of(module)
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


def shrink(module: nn.Module, cut: LayerCut) -> None:
    """Cut a layer to the channels that stay."""
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


def shorten(module: nn.Module, name: str, kept: NDArray[np.int64]) -> None:
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
        if channels_of(module) is None or is_reparametrized(module):
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
        if channels_of(module) is None:
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
    swapped = tensor.dim() > 1 and getattr(module, "transposed", False)
    return tensor.transpose(0, 1) if swapped else tensor  # type: ignore[no-any-return]


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _complement(kept: NDArray[np.int64], count: int) -> Tensor:
    gone = torch.ones(count, dtype=torch.bool)
    gone[torch.from_numpy(kept)] = False
    return gone
