"""Finds λ while the network trains, where the share of channels wanted at zero is given instead.

λ changes from one epoch to the next. It is a function of the history alone, so a training that is taken up
again is steered as it would have been.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

OPENING = 1.3  # times 1 / ((1 - target)·reach), where a small ResNet on Fashion-MNIST ends near the target
SETTLED = 0.7  # share of the epochs after which the target should be reached; later steps are small
GAIN = 2.0  # change of log λ for each unit by which the share is off
LARGEST_CHANGE = 2.0  # factor from one epoch to the next


def steer(target: float, history: Sequence[dict[str, Any]], epochs: int, reach: float) -> float:
    """λ of the next epoch.

    It begins as a guess and is raised while the share near zero is behind a straight line to the target, and
    lowered when the share, foreseen an epoch ahead, is beyond the target. In between it is left alone: the
    strongest channels of a layer are sorted out early, and a λ lowered for that would not get the rest.

    Args:
        target: the share of prunable scaling factors wanted near zero, in (0, 1).
        history: the rows so far, with "lambda" and "near_zero".
        epochs: of the whole training.
        reach: how far λ = 1 would draw a scaling factor in the whole training: the sum of the learning rates
            of all steps, times the optimiser's gain.
    """
    if not history:
        return OPENING / ((1 - target) * reach)
    shares = [0.0, *(row["near_zero"] for row in history)]
    foreseen = 2 * shares[-1] - shares[-2]
    wanted = _wanted(target, (len(history) + 1) / epochs)
    behind = max(wanted - foreseen, 0.0) - max(foreseen - target, 0.0)
    change = min(max(math.exp(GAIN * behind), 1 / LARGEST_CHANGE), LARGEST_CHANGE)
    strength: float = history[-1]["lambda"]
    return strength * change


def _wanted(target: float, progress: float) -> float:
    """The share wanted near zero: none for a third of the time until it is settled, then a straight line."""
    start = SETTLED / 3
    return target * min(max((progress - start) / (SETTLED - start), 0.0), 1.0)
