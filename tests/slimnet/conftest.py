"""Networks with BatchNorms as training leaves them: no two channels alike."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def _scatter(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every BatchNorm random γ, β and statistics; the network becomes float64, in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    model.double().eval()
    with torch.no_grad():
        for norm in model.modules():
            if not isinstance(norm, _BatchNorm):
                continue
            if norm.affine:
                norm.weight.normal_(0.1, 0.5, generator=generator)
                norm.bias.normal_(0, 0.3, generator=generator)
            if norm.running_mean is not None:
                norm.running_mean.normal_(0, 0.1, generator=generator)
                norm.running_var.uniform_(0.5, 1.5, generator=generator)
    return model


@pytest.fixture
def scatter() -> Callable[..., nn.Module]:
    return _scatter


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
