"""How far down a ranking to cut: for a fraction of channels, or until a cost is within a budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import gcd

import numpy as np
from numpy.typing import NDArray

from slimnet.errors import SlimnetError
from slimnet.graph import ChannelGroup
from slimnet.pruning.budget import Stays
from slimnet.pruning.scores import Floats, Units

FILL_TRIES = 500  # units looked at to use up what a budget leaves over


@dataclass(frozen=True)
class Budget:
    """The most that what remains may cost.

    Attributes:
        limit: in `unit`.
        unit: how the error calls it.
        measure: the cost of what remains; it falls as more is removed.
        slack: how far above the limit the floor may lie, for costs that are measured with noise.
    """

    limit: float
    unit: str
    measure: Callable[[Stays], float]
    slack: float = 0.0

    def holds(self, stays: Stays) -> bool:
        """Whether what remains is within it."""
        return self.measure(stays) <= self.limit


@dataclass(frozen=True)
class Candidates:
    """Units that may go, and what has to hold whichever of them go.

    Attributes:
        groups: those that are pruned.
        scores: (units,) of all units.
        ranked: units that may go, least valuable first.
        decided: units that go in any case.
        blocks: for each identity block that may be dropped, the groups inside it.
        min_channels: units that stay in every group, but for groups of dropped blocks.
        round_to: multiple that the widths of pruned layers are brought up to.
    """

    groups: Sequence[ChannelGroup]
    scores: Floats
    ranked: Units
    decided: Units
    blocks: dict[str, list[ChannelGroup]]
    min_channels: int
    round_to: int

    @property
    def channels(self) -> NDArray[np.int64]:
        """(units,) producer channels of each unit that the groups hold; 0 for others."""
        channels = np.zeros(len(self.scores), dtype=np.int64)
        for group in self.groups:
            channels[group.units] = group.unit_channels
        return channels

    def count_for(self, ratio: float) -> int:
        """How many units of the ranking make up a fraction of the channels."""
        channels = self.channels
        # 1e-9 keeps 0.3 * 10 from counting as less than 3.
        taken = np.cumsum(channels[self.ranked])
        return int(np.searchsorted(taken, ratio * channels.sum() + 1e-9, side="right"))

    def stays_after(self, count: int) -> Stays:
        """(units,) what remains without the first `count` of the ranking."""
        stays = np.ones(len(self.scores), dtype=bool)
        stays[self.decided] = False
        stays[self.ranked[:count]] = False
        for inside in self.blocks.values():
            self._drop_or_keep(stays, inside)
        if self.round_to > 1:
            self._round(stays)
        return stays

    def within(self, budgets: Sequence[Budget]) -> Stays:
        """The fewest removals with which every budget holds.

        Raises:
            SlimnetError: even removing everything that may go is not enough.
        """
        least = self.stays_after(len(self.ranked))
        for budget in budgets:
            floor = budget.measure(least)
            if floor > budget.limit * (1 + budget.slack):
                raise SlimnetError(
                    f"a budget of {_show(budget.limit)} {budget.unit} cannot be met: pruning ends at "
                    f"{_show(floor)} {budget.unit}; lower min_channels, or turn on streams and drop_blocks, "
                    "by which residual streams and whole blocks are pruned too"
                )
        low, high = 0, len(self.ranked)
        while low < high:
            middle = (low + high) // 2
            stays = self.stays_after(middle)
            if all(budget.holds(stays) for budget in budgets):
                high = middle
            else:
                low = middle + 1
        return self.stays_after(low)

    def filled(self, stays: Stays, budgets: Sequence[Budget]) -> Stays:
        """Bring back removed units, the best first, that still fit into the budgets."""
        stays = stays.copy()
        whole = [
            group.units for inside in self.blocks.values() for group in inside if not stays[group.units].any()
        ]
        may_return = self.ranked[~stays[self.ranked] & ~np.isin(self.ranked, np.concatenate([[], *whole]))]
        for unit in may_return[::-1][:FILL_TRIES]:
            stays[unit] = True
            if not all(budget.holds(stays) for budget in budgets):
                stays[unit] = False
        return stays

    def _best_first(self, units: Units) -> Units:
        return units[np.argsort(-self.scores[units], kind="stable")]

    def _drop_or_keep(self, stays: Stays, inside: Sequence[ChannelGroup]) -> None:
        """Empty all groups of a block if one of them is empty; else see that each keeps its minimum."""
        drop = any(not stays[group.units].any() for group in inside)
        for group in inside:
            if drop:
                stays[group.units] = False
            elif stays[group.units].sum() < self.min_channels:
                stays[self._best_first(group.units)[: self.min_channels]] = True

    def _round(self, stays: Stays) -> None:
        """Bring back the best removed units of each group until its layers' widths are multiples."""
        for group in self.groups:
            kept = int(stays[group.units].sum())
            per_layer = max(1, group.unit_channels // len(group.producers))
            step = self.round_to // gcd(self.round_to, per_layer)
            wanted = min(group.size, -(-kept // step) * step)  # nothing for a group of a dropped block
            gone = group.units[~stays[group.units]]
            stays[self._best_first(gone)[: wanted - kept]] = True


def _show(cost: float) -> str:
    return f"{cost:,}" if isinstance(cost, int) else f"{cost:.4g}"
