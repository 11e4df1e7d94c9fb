"""Networks with BatchNorms as training leaves them, no two channels alike, and a small data set."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from slimnet.data import Splits, split
from slimnet.data.sets import Dataset


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


@pytest.fixture(scope="session")
def splits() -> Splits:
    """Four classes, each brighter in a quarter of its own."""
    rng = np.random.default_rng(0)
    y = np.arange(160, dtype=np.int64) % 4
    x = rng.integers(0, 120, (160, 8, 8, 3), dtype=np.uint8)
    for label in range(4):
        down, right = divmod(label, 2)
        x[y == label, 4 * down : 4 * down + 4, 4 * right : 4 * right + 4] += 90
    dataset = Dataset("quarters", x[:120], y[:120], x[120:], y[120:], num_classes=4)
    return split(dataset, validation=0.2, seed=0)
