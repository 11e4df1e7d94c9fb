"""What can be asked of a pruning plan: the choices and their defaults, without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict

Score = Literal["gamma", "gamma-weight", "l1", "l2", "fpgm", "lamp", "taylor", "random"]
ThresholdOver = Literal["prunable", "all", "layer"]
CostAware = Literal["params", "macs"]

NORM_SCORES: tuple[Score, ...] = ("gamma", "gamma-weight")
"""Scores that go by the scaling factors of BatchNorm, and so rank only channels that have one."""

MIN_CHANNELS = 3  # the seed experiment's floor
CURVE_RATIOS = tuple(round(0.1 * step, 1) for step in range(10))  # 0, 0.1, … 0.9
CURVE_BATCHES = 20  # for new BatchNorm statistics at each ratio


class RankingOptions(TypedDict, total=False):
    """The options of `slimnet.plan` that say which channels go first, not how many go."""

    score: Score
    threshold_over: ThresholdOver
    cost_aware: CostAware | None
    cost_power: float
    layer_floor: float
    min_channels: int
    max_ratio: float
    keep: Sequence[str]
    layer_ratios: Mapping[str, float]
    round_to: int
    streams: bool
    drop_blocks: bool


class PlanOptions(RankingOptions, total=False):
    """The options of `slimnet.plan` but for its seed, for functions that hand them on."""

    ratio: float | None
    params: int | str | None
    macs: int | str | None
    latency_ms: float | None
