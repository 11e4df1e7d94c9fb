"""Latency is that of the forward pass in eval mode, and measuring leaves no trace."""

from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor, nn

import slimnet
from slimnet.latency import deployed


class Sleeper(nn.Module):
    """Takes at least `milliseconds`, and remembers how it was called."""

    def __init__(self, milliseconds: float) -> None:
        super().__init__()
        self.milliseconds = milliseconds
        self.calls: list[tuple[int, bool, bool]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.calls.append((len(x), self.training, torch.is_grad_enabled()))
        time.sleep(self.milliseconds / 1000)
        return x


def test_the_median_of_a_known_time() -> None:
    found = slimnet.measure_latency(Sleeper(5), torch.zeros(1), seconds=0.1)
    assert 5 <= found.low_ms <= found.median_ms <= found.high_ms
    assert found.median_ms < 50


def test_eval_mode_without_gradients_on_the_batch_given() -> None:
    model = Sleeper(0.1).train()
    found = slimnet.measure_latency(model, torch.zeros(3, 2), seconds=0.02)
    assert set(model.calls) == {(3, False, False)}
    assert model.training
    assert found.batch_size == 3


@pytest.mark.parametrize(("milliseconds", "seconds", "repeats"), [(3, 0.0, 10), (0, 0.5, 500)])
def test_never_too_few_or_too_many_passes(milliseconds: float, seconds: float, repeats: int) -> None:
    model = Sleeper(milliseconds)
    found = slimnet.measure_latency(model, torch.zeros(1), seconds=seconds)
    assert found.repeats == repeats
    assert len(model.calls) > repeats  # the warm-up is not counted


def test_batchnorm_statistics_are_not_touched() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    slimnet.measure_latency(model, torch.randn(2, 3, 8, 8), seconds=0.01)
    assert model[1].num_batches_tracked == 0


def test_the_quietest_burst_counts() -> None:
    class Disturbed(Sleeper):
        def forward(self, x: Tensor) -> Tensor:
            self.milliseconds = 1 if 10 < len(self.calls) <= 30 else 4
            return super().forward(x)

    found = slimnet.measure_latency(Disturbed(0), torch.zeros(1), seconds=0.02, bursts=8)
    assert 1 <= found.median_ms < 4


def test_a_slow_network_gets_fewer_bursts() -> None:
    model = Sleeper(50)
    assert slimnet.measure_latency(model, torch.zeros(1), seconds=0.01, bursts=5).repeats == 3
    assert len(model.calls) <= 1 + 2 * 3


def test_deployed_networks_are_folded_where_they_can_be() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    assert isinstance(deployed(model)[1], nn.Identity)

    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    own = Branching()
    assert deployed(own) is own
