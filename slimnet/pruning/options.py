"""What can be asked of a pruning plan: the choices and their defaults, without torch."""

from __future__ import annotations

from typing import Literal

Score = Literal["gamma", "gamma-weight", "random"]
ThresholdOver = Literal["prunable", "all", "layer"]
CostAware = Literal["params", "macs"]

MIN_CHANNELS = 3  # the seed experiment's floor
