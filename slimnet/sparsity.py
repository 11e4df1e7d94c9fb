"""Penalties that push scaling factors to zero while the network trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

NEAR_ZERO = 0.01  # |γ| below this counts as off; a network starts at γ = 1


@dataclass(frozen=True)
class L1Penalty:
    """λ·Σ|γ| by its subgradient (Network Slimming, arXiv 1708.06519, equation 1).

    Attributes:
        gammas: the scaling factors under the penalty.
        strength: λ.
    """

    gammas: Sequence[nn.Parameter]
    strength: float

    def add_to_gradients(self) -> None:
        """Add λ·sign(γ) to the gradients, after the backward pass and before the optimiser's step."""
        if self.strength == 0:
            return
        with torch.no_grad():
            pairs = [(gamma.grad, gamma) for gamma in self.gammas if gamma.grad is not None]
            if pairs:
                gradients, reached = map(list, zip(*pairs, strict=True))
                torch._foreach_add_(gradients, torch._foreach_sign(reached), alpha=self.strength)


def near_zero(gammas: Sequence[Tensor]) -> float:
    """The share of scaling factors with |γ| < 0.01; 0 where there are none."""
    count = sum(gamma.numel() for gamma in gammas)
    if count == 0:
        return 0.0
    off = torch.stack([(gamma.detach().abs() < NEAR_ZERO).sum() for gamma in gammas]).sum()
    return float(off) / count


def histogram(gammas: Sequence[Tensor], bins: int = 64) -> dict[str, Any]:
    """Counts of |γ| over equal bins from 0 to the largest value (at least 1).

    Returns:
        {"counts": [bins], "edges": [bins + 1]}, plain numbers.
    """
    values = torch.cat([gamma.detach().abs().float().flatten() for gamma in gammas]).cpu()
    counts, edges = torch.histogram(values, bins, range=(0.0, max(1.0, float(values.max()))))
    return {"counts": [int(count) for count in counts], "edges": [float(edge) for edge in edges]}
