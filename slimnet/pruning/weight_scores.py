"""What channels are worth by the weights that make them, for networks with and without BatchNorm.

The filters of a unit are the rows of all conv and linear layers that produce it. As layers differ in scale,
each score is divided by its mean over the group, so that one threshold can serve the whole network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from slimnet.errors import SlimnetError
from slimnet.graph import ChannelGraph, ChannelGroup
from slimnet.modes import evaluating

Floats = NDArray[np.float64]
Batch = tuple[Tensor, Tensor]


def l1(filters: Tensor) -> Tensor:
    """The sum of magnitudes of each filter (units, weights) (Li et al. 2017, arXiv 1608.08710)."""
    norms: Tensor = torch.linalg.vector_norm(filters, 1, dim=1)
    return norms.double()


def l2(filters: Tensor) -> Tensor:
    """The Euclidean norm of each filter (units, weights)."""
    norms: Tensor = torch.linalg.vector_norm(filters, dim=1)
    return norms.double()


def fpgm(filters: Tensor) -> Tensor:
    """The sum of distances of each filter to the others: what lies near the median is replaceable.

    He et al. 2019, arXiv 1811.00250, equation 6.
    """
    filters = filters.double()
    return torch.cdist(filters, filters).sum(1)


def lamp(filters: Tensor) -> Tensor:
    """The squared norm of each filter over the sum of those that are no smaller.

    Lee et al. 2021, arXiv 2010.07611, equation 1, for filters in place of single weights.
    """
    squares = l2(filters).square()
    order = squares.argsort(descending=True)
    result = torch.empty_like(squares)
    result[order] = squares[order] / squares[order].cumsum(0).clamp(min=torch.finfo(squares.dtype).tiny)
    return result


MEASURES: dict[str, Callable[[Tensor], Tensor]] = {"l1": l1, "l2": l2, "fpgm": fpgm, "lamp": lamp}


def filter_scores(graph: ChannelGraph, name: str) -> Floats:
    """A score of `MEASURES` for every unit, (units,); 0 for units that no layer produces."""
    scores = np.zeros(graph.unit_count)
    with torch.no_grad():
        for group in graph.groups:
            values = MEASURES[name](_filters(graph, group).cpu())  # which has float64 on every machine
            if name != "lamp":  # which is a fraction already
                values = values / values.mean().clamp(min=torch.finfo(values.dtype).tiny)
            scores[group.units] = values.numpy()
    if not np.isfinite(scores).all():
        raise SlimnetError("the network has weights that are not finite; the training diverged")
    return scores


def taylor_scores(graph: ChannelGraph, batches: Iterable[Batch]) -> Floats:
    """How much the loss would change to first order without each unit, (units,).

    The squared sum of weight times gradient over the filters of a unit, averaged over batches (Molchanov et
    al. 2019, arXiv 1906.10771, equation 8, over whole filters), by cross-entropy in evaluation mode.

    Args:
        graph: of a classifier.
        batches: inputs (N, C, ...) and labels (N,), on the model's device.

    Raises:
        SlimnetError: there is no batch.
    """
    model = graph.model
    weights = {name: _weight(model, name) for name, layer in graph.layers.items() if layer.positions}
    scores, count = np.zeros(graph.unit_count), 0
    with torch.enable_grad(), evaluating(model):
        for x, y in batches:
            copies = {f"{name}.weight": w.detach().clone().requires_grad_() for name, w in weights.items()}
            loss = F.cross_entropy(torch.func.functional_call(model, copies, (x,)), y)
            gradients = torch.autograd.grad(loss, list(copies.values()), allow_unused=True)
            for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
                if gradient is None:
                    continue
                product = _rows(model.get_submodule(name), weight.detach() * gradient).sum(1)
                np.add.at(scores, graph.layers[name].outputs, product.cpu().double().numpy() ** 2)
            count += 1
    if not count:
        raise SlimnetError('score="taylor" is computed from batches of images and labels; give batches=')
    return scores / count


def _filters(graph: ChannelGraph, group: ChannelGroup) -> Tensor:
    """(units, weights) the filters of a group's units, those of its layers beside each other."""
    parts = []
    for name in group.producers:
        rows = _rows(graph.model.get_submodule(name), _weight(graph.model, name).detach())
        outputs = graph.layers[name].outputs
        place = np.full(graph.unit_count, -1)
        place[group.units] = np.arange(group.size)
        mine = np.flatnonzero(place[outputs] >= 0)
        order = mine[np.argsort(place[outputs[mine]], kind="stable")]
        if not np.array_equal(order, np.arange(len(rows))):
            rows = rows[torch.from_numpy(order).to(rows.device)]
        parts.append(rows.reshape(group.size, -1))
    return torch.cat(parts, 1) if len(parts) > 1 else parts[0]


def _weight(model: nn.Module, name: str) -> Tensor:
    weight = model.get_submodule(name).weight
    assert isinstance(weight, Tensor)
    return weight


def _rows(module: nn.Module, weight: Tensor) -> Tensor:
    """(C_out, weights) what makes each output channel."""
    return (weight.transpose(0, 1) if getattr(module, "transposed", False) else weight).flatten(1)
