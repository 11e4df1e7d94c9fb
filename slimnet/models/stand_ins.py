"""What stands in a network where pruning dropped the layers of a whole block."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Dropped(nn.Module):
    """Stands where a layer of a dropped block was.

    The first of a block (`fresh`) hands on zeros, so that an in-place activation behind it cannot reach the
    residual stream; the others hand on what they get.
    """

    out_channels = 0

    def __init__(self, *, fresh: bool) -> None:
        super().__init__()
        self.fresh = fresh

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x) if self.fresh else x


class Constant(nn.Module):
    """Stands at the end of a dropped block: `value` (C,) at every position, whatever comes in."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = nn.Parameter(value)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Forget what the block gave: 0, as a bias begins."""
        self.value.zero_()

    @property
    def out_channels(self) -> int:
        """C."""
        return len(self.value)

    def forward(self, x: Tensor) -> Tensor:
        shape = [1, -1] + [1] * (x.dim() - 2)
        return self.value.reshape(shape).expand(x.shape).clone()
