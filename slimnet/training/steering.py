"""Finds λ while the network trains, where the fraction of channels wanted at zero is given instead.

λ changes from one epoch to the next. It is a function of the history alone, so a training that is
resumed is steered as it would have been.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

OPENING = 1.0  # times 1 / ((1 - target)·reach), where a small ResNet on Fashion-MNIST comes near the target
SETTLED = 0.5  # fraction of the epochs after which the target should be reached
BEHIND, BEHIND_LATE, BEYOND = 2.0, 8.0, 10.0  # change of log λ for each unit by which the fraction is off
LARGEST_RISE, LARGEST_FALL = 2.0, 4.0  # factors from one epoch to the next


def steer(target: float, history: Sequence[dict[str, Any]], epochs: int, reach: float) -> float:
    """λ of the next epoch.

    It begins as a guess and is raised while the fraction near zero, foreseen an epoch ahead, is behind a
    straight line to the target, and lowered where it is beyond the target. In between it is left alone: the
    strongest channels of a layer are sorted out early, and a λ lowered for that would not get the rest. It is
    lowered faster than raised, as a factor at exact zero hardly comes back; and never raised while the
    fraction falls, since under the l1 subgradient too strong a λ makes factors swing back and forth.

    Args:
        target: the fraction of prunable scaling factors wanted near zero, in (0, 1).
        history: the rows so far, with "lambda" and "near_zero".
        epochs: of the whole training.
        reach: how far λ = 1 would move a scaling factor in the whole training: the sum of the learning rates
            of all steps, times the optimiser's gain.
    """
    if not history:
        return OPENING / ((1 - target) * reach)
    fractions = [0.0, *(row["near_zero"] for row in history)]
    progress = (len(history) + 1) / epochs
    foreseen = 2 * fractions[-1] - fractions[-2]
    falls = fractions[-1] < fractions[-2]
    behind = 0.0 if falls else max(_wanted(target, progress) - foreseen, 0.0)
    beyond = max(foreseen - target, 0.0)
    change = math.exp((BEHIND_LATE if progress > SETTLED else BEHIND) * behind - BEYOND * beyond)
    strength: float = history[-1]["lambda"]
    return strength * min(max(change, 1 / LARGEST_FALL), LARGEST_RISE)


def _wanted(target: float, progress: float) -> float:
    """The fraction wanted near zero: none for a third of the time to settle, then a straight line."""
    start = SETTLED / 3
    return target * min(max((progress - start) / (SETTLED - start), 0.0), 1.0)
