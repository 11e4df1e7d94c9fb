"""What can be asked of a pruning plan: the choices and their defaults, without torch."""

from __future__ import annotations

from typing import Literal, TypedDict

Score = Literal["gamma", "gamma-weight", "random"]
ThresholdOver = Literal["prunable", "all", "layer"]
CostAware = Literal["params", "macs"]

MIN_CHANNELS = 3  # the seed experiment's floor


class PlanOptions(TypedDict, total=False):
    """The options of `slimnet.plan` but for its seed, for functions that hand them on."""

    ratio: float | None
    params: int | None
    macs: int | None
    latency_ms: float | None
    score: Score
    threshold_over: ThresholdOver
    layer_floor: float
    cost_aware: CostAware | None
    cost_power: float
    min_channels: int
    round_to: int
    streams: bool
    drop_blocks: bool
