"""Which results no other result beats, and how much of the objective space they cover.

Rows are mappings that hold a number for every objective; what else they hold is not looked at. Objectives
are given as {metric: "maximize" | "minimize"}, the form of `search.objectives` in a config.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

Direction = Literal["maximize", "minimize"]
Name = TypeVar("Name", bound=str)  # so that a mapping from the literal names of some metrics will do


def dominates(a: Mapping[str, Any], b: Mapping[str, Any], objectives: Mapping[Name, Direction]) -> bool:
    """Whether `a` is at least as good as `b` in every objective and better in one.

    A row with a NaN among its objectives neither dominates nor is dominated.
    """
    return _dominates(_costs(a, objectives), _costs(b, objectives))


def front(rows: Sequence[Mapping[str, Any]], objectives: Mapping[Name, Direction]) -> list[int]:
    """The indices of the rows that no other row dominates, from best to worst in the last objective.

    With the usual objectives {val_accuracy: maximize, params: minimize} the smallest network comes first.
    Of rows that are equal in every objective only the first is kept; rows with a NaN are left out.
    """
    costs = [_costs(row, objectives) for row in rows]
    first_with = {cost: index for index, cost in reversed(list(enumerate(costs))) if not _has_nan(cost)}
    best = [cost for cost in first_with if not any(_dominates(other, cost) for other in first_with)]
    return [first_with[cost] for cost in sorted(best, key=lambda cost: cost[::-1])]


def hypervolume(
    rows: Sequence[Mapping[str, Any]],
    objectives: Mapping[Name, Direction],
    reference: Mapping[str, float],
) -> float:
    """The volume of objective space that `rows` dominate, bounded by `reference`: larger is better.

    `reference` holds a value for every objective, one that is worse than any result worth counting, such as
    an accuracy of 0 and the parameters of the dense network. What does not beat it in every objective
    counts nothing. The unit is the product of the objectives' units. Exact for any number of objectives;
    the effort grows as rows to the power of (objectives - 1).
    """
    bound = _costs(reference, objectives)
    costs = [_costs(row, objectives) for row in rows]
    return _volume([cost for cost in costs if all(map(float.__lt__, cost, bound))], bound)


def _costs(row: Mapping[str, Any], objectives: Mapping[Name, Direction]) -> tuple[float, ...]:
    """The objectives of a row in order, turned so that less is better in each."""
    return tuple(
        float(row[name]) if direction == "minimize" else -float(row[name])
        for name, direction in objectives.items()
    )


def _has_nan(cost: tuple[float, ...]) -> bool:
    return any(map(math.isnan, cost))


def _dominates(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    no_worse = all(x <= y for x, y in zip(a, b, strict=True))
    return no_worse and a != b


def _volume(costs: list[tuple[float, ...]], bound: tuple[float, ...]) -> float:
    """Cut space into slabs along the last objective; the rows below a slab cover an area of it."""
    if not costs:
        return 0.0
    if len(bound) == 1:
        return bound[0] - min(cost[0] for cost in costs)
    ordered = sorted(costs, key=lambda cost: cost[-1])
    heights = [cost[-1] for cost in ordered] + [bound[-1]]
    flat = [cost[:-1] for cost in ordered]
    return math.fsum(
        (heights[i + 1] - heights[i]) * _volume(flat[: i + 1], bound[:-1])
        for i in range(len(ordered))
        if heights[i + 1] > heights[i]
    )
