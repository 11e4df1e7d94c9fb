"""How long a network takes for a batch."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from slimnet.devices import synchronize
from slimnet.errors import SlimnetError
from slimnet.folding import fold
from slimnet.modes import evaluating

WARM_UP_SECONDS = 0.2
SECONDS = 1.0
FEWEST, MOST = 10, 500
FEWEST_IN_BURST = 3  # where there are several


@dataclass(frozen=True)
class Latency:
    """Milliseconds for one batch: the median, and the quartiles around it.

    Example:
        >>> latency = slimnet.measure_latency(torch.nn.Linear(4, 2), torch.zeros(8, 4), seconds=0.01)
        >>> latency.low_ms <= latency.median_ms <= latency.high_ms, latency.batch_size
        (True, 8)
    """

    median_ms: float
    low_ms: float
    high_ms: float
    batch_size: int
    repeats: int


def measure_latency(
    model: nn.Module, example_input: Tensor, *, seconds: float = SECONDS, bursts: int = 1
) -> Latency:
    """Time the forward pass in eval mode, after a warm-up.

    Fold the BatchNorms first (`slimnet.fold`) to measure what would be deployed.

    Args:
        model: on the device of `example_input`; left as it was.
        example_input: (N, ...); N is the batch size.
        seconds: to measure for; between 10 and 500 passes are made.
        bursts: how often that is repeated, with at least 3 passes each; the burst with the lowest median
            counts, as whatever else the machine does can only make passes slower. A slow network, whose
            passes alone take far longer, gets fewer.

    Example:
        >>> model = slimnet.fold(slimnet.models.resnet([1], width=4))
        >>> slimnet.measure_latency(model, torch.zeros(1, 3, 8, 8), seconds=0.01).median_ms > 0
        True
    """

    def once() -> float:
        started = time.perf_counter()
        model(example_input)
        synchronize(example_input.device)
        return (time.perf_counter() - started) * 1000

    with torch.inference_mode(), evaluating(model):
        until = time.perf_counter() + WARM_UP_SECONDS * min(1.0, seconds)
        once()
        while time.perf_counter() < until:
            once()
        fewest, end = FEWEST if bursts == 1 else FEWEST_IN_BURST, time.perf_counter() + 4 * bursts * seconds
        found = [_burst(once, seconds, fewest, example_input.shape[0])]
        while len(found) < bursts and time.perf_counter() < end:
            found.append(_burst(once, seconds, fewest, example_input.shape[0]))
    return min(found, key=lambda latency: latency.median_ms)


def deployed(model: nn.Module) -> nn.Module:
    """A network as it would be deployed: its BatchNorms folded, if torch can trace it."""
    with suppress(SlimnetError):
        return fold(model)
    return model.eval()


def _burst(once: Callable[[], float], seconds: float, fewest: int, batch_size: int) -> Latency:
    times = [once() for _ in range(fewest)]
    spent = sum(times) / 1000
    while spent < seconds and len(times) < MOST:
        times.append(once())
        spent += times[-1] / 1000
    low, median, high = torch.tensor(times).quantile(torch.tensor([0.25, 0.5, 0.75])).tolist()
    return Latency(median, low, high, batch_size, len(times))
