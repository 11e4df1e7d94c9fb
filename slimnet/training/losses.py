"""What training minimises: cross-entropy, or partly the distance from another network's outputs."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def distillation(logits: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """The divergence KL(teacher || network) of softened outputs (Hinton et al., 2015, arXiv 1503.02531).

    Args:
        logits: of the network, (batch, classes).
        taught: those of its teacher, of the same shape.
        temperature: T, by which both are divided before the softmax.

    Returns:
        The mean over the batch times T², which keeps its gradient as large as cross-entropy's.
    """
    ours, theirs = F.log_softmax(logits / temperature, 1), F.log_softmax(taught / temperature, 1)
    return F.kl_div(ours, theirs, reduction="batchmean", log_target=True) * temperature**2
