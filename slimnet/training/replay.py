"""Forward and backward passes on a CUDA GPU, recorded once and replayed: a small network's step is mostly
the time that Python takes to launch its kernels, of which a CUDA graph launches all at once.

The kernels are those of the step that is recorded, so the numbers are the same to the bit.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from slimnet import modules
from slimnet.wording import first_line

Pass = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""From images (B, C, H, W) and labels to (loss, logits), both detached, with the gradients in place."""

logger = logging.getLogger(__name__)

DEVICE = "cuda"
WARM_UP = 3  # passes of a shape before the recording, in which libraries set themselves up
KNOWN = ("slimnet.", "torch.nn.", "torchvision.")
"""Whose layers do the same at every pass, and wait for nothing."""


def can_replay(*networks: nn.Module) -> bool:
    """Whether passes of the networks may be recorded: on a CUDA GPU, without code of the user's own.

    That may look at values, or count in Python, which a recording would not repeat.
    """
    return all(
        all(_is_known(module) for module in modules.each(network))
        and all(
            parameter.device.type == DEVICE and not _has_hooks(parameter)
            for parameter in network.parameters()
        )
        for network in networks
    )


def _is_known(module: nn.Module) -> bool:
    forward = type(module).forward
    return (
        type(module).__module__.startswith(KNOWN)
        and getattr(forward, "__module__", "").startswith(KNOWN)
        and "forward" not in vars(module)
        and getattr(module, "momentum", 0.0) is not None  # such a BatchNorm waits for its count of batches
        and not any(
            getattr(module, hooks)
            for hooks in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
        )
    )


def _has_hooks(parameter: nn.Parameter) -> bool:
    return bool(parameter._backward_hooks or getattr(parameter, "_post_accumulate_grad_hooks", None))


class Replayed:
    """A pass that is recorded once a shape of batches comes again and again, and is replayed for that shape.

    Where it cannot be recorded, for want of memory say, all are computed one kernel after the other.

    Args:
        compute: the pass.
        parameters: those that it leaves gradients of.
    """

    def __init__(self, compute: Pass, parameters: Sequence[nn.Parameter]) -> None:
        self._compute = compute
        self._parameters = parameters
        self._seen: Counter[torch.Size] = Counter()
        self._recording: _Recording | None = None
        self._tried = False

    def __call__(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """As the pass itself; the logits are overwritten by the next call."""
        if not self._tried and self._seen[x.shape] >= WARM_UP:
            self._tried = True
            try:
                self._recording = _record(self._compute, self._parameters, x, y)
            except RuntimeError as error:
                logger.info("steps are not replayed: %s", first_line(error))
        self._seen[x.shape] += 1
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
    """Record a pass, which is not computed meanwhile.

    Raises:
        RuntimeError: it cannot be recorded, or there is no room for it beside passes that are computed.
    """
    free, _ = torch.cuda.mem_get_info(x.device)
    if free + torch.cuda.memory_reserved(x.device) < 2 * torch.cuda.max_memory_allocated(x.device):
        raise RuntimeError("the GPU has no memory for it")
    x, y = x.clone(), y.clone()
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream(x.device)
    for parameter in parameters:
        parameter.grad = None  # to get memory of the recording's own
    try:
        # Other threads may allocate meanwhile, as those do that gather batches in pinned memory.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            loss, logits = compute(x, y)
    except RuntimeError:
        torch.cuda.set_stream(
            stream
        )  # where the end of the recording fails too, torch leaves its own in place
        raise
    return _Recording(graph, x, y, loss, logits, [parameter.grad for parameter in parameters])
