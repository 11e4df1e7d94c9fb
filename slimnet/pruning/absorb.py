"""Absorption: what a removed channel still emits, moved into the layers that read it.

A channel whose γ is 0 does not output 0 but act(β), and one whose γ is small outputs act(N(β, γ²)). Mean and
variance of each channel are carried from the BatchNorm through the recorded operations to the layers that
read it, as one number per channel; a conv with zero padding sees a constant where its taps lie inside the
image, which is a fraction per tap. What a reader makes of the removed channels, averaged over positions, goes
into its bias or the following BatchNorm's running mean. Exact at γ = 0 for 1x1 convs, linear layers and convs
without padding. What cannot be carried through an operation is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from slimnet.graph import operations as ops
from slimnet.graph.findings import Run, norm_behind
from slimnet.graph.record import Call
from slimnet.pruning.moments import Modules, Moments, Propagation, coverage, per_channel
from slimnet.pruning.plan import LayerCut, PruningPlan


class Absorption:
    """What removed channels emit on average, found while the network is whole, and moved layer by layer.

    All of it is from the network as it was: what one layer absorbs is no part of what the next one reads.

    Args:
        modules: of the network, by name, at their full widths; parameters are replaced, not written into.
        plan: which channels are removed.
        cuts: of the plan.
    """

    def __init__(self, modules: Modules, plan: PruningPlan, cuts: Mapping[str, LayerCut]) -> None:
        self._modules, self._cuts, self._run = modules, cuts, plan.graph.record
        self._uses, self._users = self._run.uses(), self._run.users()
        readers = [
            call
            for call in self._run.calls
            if self._uses[call.layer] == 1 and _absorbs(modules, plan, call, cuts)
        ]
        with torch.no_grad():
            moments = Propagation(modules, self._run).of([call.inputs[0] for call in readers])
            self._emitted = {
                call.layer: (call, emitted)
                for call in readers
                if (emitted := self._removed(call, moments.get(call.inputs[0]))) is not None
            }

    def _removed(self, call: Call, source: Moments | None) -> Tensor | None:
        """The mean of each removed input of a layer, (C_in,), 0 for the others; None if it is not known."""
        if source is None:
            return None
        dim = -1 if isinstance(self._modules[call.layer], nn.Linear) else 1
        mean = per_channel(source.mean, self._run.values[call.inputs[0]].shape, dim)
        if mean is None:
            return None
        emitted = torch.where(mean.isfinite(), mean, 0)
        emitted[torch.from_numpy(self._cuts[call.layer].inputs).to(mean.device)] = 0
        return emitted

    def into_all(self) -> None:
        """Move all of it, into layers of their full widths."""
        for name in list(self._emitted):
            self.into(name)

    def into(self, name: str, *, cut: bool = False) -> None:
        """Move what a layer's removed inputs emit into its bias, or the mean of the BatchNorm behind it.

        Args:
            name: of the layer, or of any other.
            cut: leave the outputs that it keeps alone in its weight, which must be read for them anyway.
        """
        if name not in self._emitted:
            return
        call, inputs = self._emitted.pop(name)
        layer: Any = self._modules[name]
        weight = layer.weight.detach()
        kept = torch.from_numpy(self._cuts[name].outputs).to(weight.device)
        cut = (
            cut and len(kept) < len(weight) and weight.is_contiguous() and not getattr(layer, "transposed", 0)
        )
        with torch.no_grad():
            if cut:
                rows = weight.index_select(0, kept)
                layer._parameters["weight"] = nn.Parameter(rows, layer.weight.requires_grad)
            shift = _response(layer, self._run, call, inputs)
            if cut:
                whole = shift.new_zeros(len(weight))
                whole[kept] = shift
                shift = whole
            behind = norm_behind(self._modules, call.outputs[0], self._run, self._users, self._uses)
            _add(self._modules, call, shift, behind)


def _absorbs(modules: Modules, plan: PruningPlan, call: Call, cuts: Mapping[str, LayerCut]) -> bool:
    """Whether a call is of a conv or linear layer that loses inputs."""
    if call.layer not in cuts or call.op not in ops.CONVOLUTIONS | ops.LINEAR or not call.inputs:
        return False
    units = plan.graph.layers[call.layer]
    grouped = getattr(modules[call.layer], "groups", 1) > 1  # removed with its inputs
    return not grouped and len(cuts[call.layer].inputs) < len(units.inputs)


def _response(layer: Any, run: Run, call: Call, inputs: Tensor) -> Tensor:
    """What an ungrouped layer makes of constant inputs (C_in,), on average, (C_out,); without bias."""
    weight = layer.weight.detach()
    if isinstance(layer, _ConvNd):  # each tap of its kernel is inside the image so often
        before, after = run.values[call.inputs[0]].shape, run.values[call.outputs[0]].shape
        inputs = torch.outer(inputs, coverage(layer, before[2:], after[2:]).to(inputs)).flatten()
    if getattr(layer, "transposed", False):
        weight = weight.transpose(0, 1)
    response: Tensor = weight.flatten(1) @ inputs
    return response


def _add(modules: Modules, call: Call, shift: Tensor, behind: str) -> None:
    """Add a shift to the bias of a layer, or move the mean of the BatchNorm behind it."""
    layer: Any = modules[call.layer]
    if layer.bias is not None:
        layer.bias = nn.Parameter(layer.bias + shift, layer.bias.requires_grad)
    elif behind:
        norm: Any = modules[behind]
        norm.running_mean = norm.running_mean - shift
    else:
        layer.bias = nn.Parameter(shift)
