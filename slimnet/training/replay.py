"""Forward and backward passes on a CUDA GPU, recorded once and replayed: a small network's step is mostly
the time that Python takes to launch its kernels, of which a CUDA graph launches all at once.

The kernels are those of the step that is recorded, so the numbers are the same to the bit.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from slimnet import modules

Pass = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""From images (B, C, H, W) and labels to (loss, logits), both detached, with the gradients in place."""

WARM_UP = 3  # passes before the recording, in which libraries set themselves up
logger = logging.getLogger(__name__)

KNOWN = (
    "slimnet.",
    "torch.nn.",
    "torchvision.",
)  # whose layers do the same at every pass, and wait for nothing


def can_replay(*networks: nn.Module) -> bool:
    """Whether passes of the networks may be recorded: on a CUDA GPU, without layers of the user's own.

    Those may look at values, or count in Python, which a recording would not repeat.
    """
    return all(
        type(module).__module__.startswith(KNOWN) and not _has_hooks(module)
        for network in networks
        for module in modules.each(network)
    ) and all(parameter.device.type == "cuda" for network in networks for parameter in network.parameters())


def _has_hooks(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


class Replayed:
    """A pass that is recorded at its fourth call, and replayed for batches of that shape from then on.

    Where it cannot be recorded, for want of memory say, all are computed one kernel after the other.

    Args:
        compute: the pass.
        parameters: those that it leaves gradients of.
    """

    def __init__(self, compute: Pass, parameters: Sequence[nn.Parameter]) -> None:
        self._compute = compute
        self._parameters = parameters
        self._passes = 0
        self._recording: _Recording | None = None
        self._failed = False

    def __call__(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """As the pass itself; the logits are overwritten by the next call."""
        if self._recording is None and self._passes >= WARM_UP and not self._failed:
            try:
                self._recording = _record(self._compute, self._parameters, x, y)
            except RuntimeError as error:
                self._failed = True
                logger.info("steps are not replayed: %s", str(error).partition("\n")[0])
        self._passes += 1
        if self._recording is None or not self._recording.takes(x, y):
            return self._compute(x, y)
        return self._recording.replay(x, y, self._parameters)


@dataclass(frozen=True)
class _Recording:
    graph: torch.cuda.CUDAGraph
    x: Tensor
    y: Tensor
    loss: Tensor
    logits: Tensor
    gradients: list[Tensor | None]

    def takes(self, x: Tensor, y: Tensor) -> bool:
        return x.shape == self.x.shape and y.shape == self.y.shape

    def replay(self, x: Tensor, y: Tensor, parameters: Sequence[nn.Parameter]) -> tuple[Tensor, Tensor]:
        self.x.copy_(x)
        self.y.copy_(y)
        self.graph.replay()
        for parameter, gradient in zip(parameters, self.gradients, strict=True):
            parameter.grad = gradient
        return self.loss.clone(), self.logits


def _record(compute: Pass, parameters: Sequence[nn.Parameter], x: Tensor, y: Tensor) -> _Recording:
    """Record a pass, which is not computed meanwhile."""
    x, y = x.clone(), y.clone()
    graph = torch.cuda.CUDAGraph()
    for parameter in parameters:
        parameter.grad = None  # to get memory of the recording's own
    with torch.cuda.graph(graph):
        loss, logits = compute(x, y)
    return _Recording(graph, x, y, loss, logits, [parameter.grad for parameter in parameters])
