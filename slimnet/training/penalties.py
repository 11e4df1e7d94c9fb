"""Penalties that push scaling factors to zero while the network trains.

A penalty acts twice in a step: on the gradients before the optimiser, or on the scaling factors γ after it.
None of it waits for the device, and nothing is kept from one step to the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from slimnet.training.sparsity import PenaltyName

NEAR_ZERO = 0.01  # |γ| below this counts as off; a network starts at γ = 1


@dataclass(frozen=True)
class Penalty:
    """No penalty, and the interface of all: what happens to γ around the optimiser's step.

    Attributes:
        gammas: the scaling factors under the penalty.
    """

    gammas: Sequence[nn.Parameter]

    def before_step(self, strength: float) -> None:
        """Change the gradients, once they are there; `strength` is λ."""

    def after_step(self, strength: float, lr: float) -> None:
        """Change γ after a step at learning rate `lr`."""

    def _reached(self) -> list[Tensor]:
        return [gamma for gamma in self.gammas if gamma.grad is not None]


class L1(Penalty):
    """λ·Σ|γ| by its subgradient (Network Slimming, arXiv 1708.06519, equation 1).

    Adam divides gradients by their spread, so that λ then says little; `Proximal` is not affected.
    """

    @torch.no_grad()
    def before_step(self, strength: float) -> None:
        """Add λ·sign(γ) to the gradients."""
        if strength and (gammas := self._reached()):
            torch._foreach_add_(_gradients(gammas), torch._foreach_sign(gammas), alpha=strength)


@dataclass(frozen=True)
class Proximal(Penalty):
    """λ·Σ|γ| by its proximal operator, apart from gradients, momentum and Adam's normaliser.

    Attributes:
        gain: what momentum makes of a constant gradient, 1 / (1 - momentum) for SGD, so that λ is as
            strong as in `L1`; 1 for Adam.
    """

    gain: float = 1.0

    @torch.no_grad()
    def after_step(self, strength: float, lr: float) -> None:
        """γ <- sign(γ)·max(|γ| - lr·λ·gain, 0), which leaves exact zeros."""
        if strength and (gammas := self._reached()):
            shrinkage = lr * strength * self.gain
            steps = torch._foreach_clamp_max(gammas, shrinkage)
            torch._foreach_clamp_min_(steps, -shrinkage)
            torch._foreach_sub_(gammas, steps)


@dataclass(frozen=True)
class Polarization(Penalty):
    """λ·(t·Σ|γ| - Σ|γ - mean γ|) by its subgradient, γ in [0, 1] (Zhuang et al., NeurIPS 2020).

    γ below the mean have a gradient of about (t + 1)·λ, those above of only about (t - 1)·λ.

    Attributes:
        t: the weight of the L1 term; the paper's range is 1 to 1.4.
    """

    t: float = 1.2

    @torch.no_grad()
    def before_step(self, strength: float) -> None:
        """Add the subgradient, in which the mean is a function of every γ."""
        if strength and (gammas := self._reached()):
            values = torch.cat([gamma.flatten() for gamma in gammas])
            sides = (values - values.mean()).sign()
            slopes = self.t * values.sign() - sides + sides.mean()
            parts = torch.split_with_sizes(slopes, [gamma.numel() for gamma in gammas])
            torch._foreach_add_(_gradients(gammas), list(parts), alpha=strength)

    @torch.no_grad()
    def after_step(self, strength: float, lr: float) -> None:
        """Clamp γ to [0, 1]."""
        if gammas := self._reached():
            torch._foreach_clamp_min_(gammas, 0.0)
            torch._foreach_clamp_max_(gammas, 1.0)


def penalise(name: PenaltyName, gammas: Sequence[nn.Parameter], gain: float) -> Penalty:
    """The penalty of that name on `gammas`, under an optimiser with this gain (`Recipe.gain`)."""
    match name:
        case "l1":
            return L1(gammas)
        case "proximal":
            return Proximal(gammas, gain)
        case "polarization":
            return Polarization(gammas)


def _gradients(gammas: Sequence[Tensor]) -> list[Tensor]:
    return [gamma.grad for gamma in gammas if gamma.grad is not None]


def near_zero(gammas: Sequence[Tensor]) -> float:
    """The fraction of scaling factors with |γ| < 0.01; 0 where there are none."""
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
