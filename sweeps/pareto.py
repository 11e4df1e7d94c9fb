"""Which results no other result dominates, and how much of the objective space they cover.

Rows are mappings that hold a number for every objective; other keys are ignored. Objectives are given as
{metric: "maximize" | "minimize"}, the form of `search.objectives` in a config.
"""

from __future__ import annotations

import math
import operator
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any, Literal, TypeVar

Direction = Literal["maximize", "minimize"]
Name = TypeVar("Name", bound=str)  # accepts mappings whose keys are literal types


def dominates(a: Mapping[str, Any], b: Mapping[str, Any], objectives: Mapping[Name, Direction]) -> bool:
    """Whether `a` is at least as good as `b` in every objective and better in one.

    A row with a NaN among its objectives neither dominates nor is dominated.
    """
    costs, others = _costs(a, objectives), _costs(b, objectives)
    return costs != others and _no_worse(costs, others)


class Front:
    """The rows that no other row dominates, kept as rows come in.

    Of rows that are equal in every objective the one with the lowest number is kept; rows with a NaN are
    left out. The front therefore does not depend on the order in which rows are added.
    """

    def __init__(self, objectives: Mapping[Name, Direction]) -> None:
        self._objectives = dict(objectives)
        # The costs with the last objective first, ascending: what dominates a point comes before it. With two
        # objectives the other cost falls along the list, so that neighbours are all that must be looked at.
        self._points: list[tuple[float, ...]] = []
        self._numbers: list[int] = []
        self._neighbours_suffice = len(self._objectives) <= 2

    def add(self, number: int, row: Mapping[str, Any]) -> bool:
        """Take a row into account.

        Args:
            number: the row's number; no two rows have the same.
            row: a number for every objective; other keys are ignored.

        Returns:
            Whether the front has changed.

        Raises:
            KeyError: the row lacks an objective.
        """
        point = _costs(row, self._objectives)[::-1]
        if _has_nan(point):
            return False
        place = bisect_left(self._points, point)
        if self._points[place : place + 1] == [point]:
            return self._replace_equal(place, number)
        before = self._points[max(place - 1, 0) : place] if self._neighbours_suffice else self._points[:place]
        if any(_no_worse(other, point) for other in before):
            return False
        self._drop_dominated(place, point)
        self._points.insert(place, point)
        self._numbers.insert(place, number)
        return True

    def numbers(self) -> list[int]:
        """The numbers of the rows on the front, from best to worst in the last objective."""
        return list(self._numbers)

    def _replace_equal(self, place: int, number: int) -> bool:
        earlier = number < self._numbers[place]
        if earlier:
            self._numbers[place] = number
        return earlier

    def _drop_dominated(self, place: int, point: tuple[float, ...]) -> None:
        """Drop what a new point dominates: all of it comes after the point's own place."""
        if self._neighbours_suffice:
            end = place
            while end < len(self._points) and _no_worse(point, self._points[end]):
                end += 1
            del self._points[place:end], self._numbers[place:end]
            return
        kept = [i for i in range(place, len(self._points)) if not _no_worse(point, self._points[i])]
        self._points[place:] = [self._points[i] for i in kept]
        self._numbers[place:] = [self._numbers[i] for i in kept]


def front(rows: Sequence[Mapping[str, Any]], objectives: Mapping[Name, Direction]) -> list[int]:
    """The indices of the rows that no other row dominates, from best to worst in the last objective.

    With the usual objectives {val_accuracy: maximize, params: minimize} the smallest network comes first.
    Of rows that are equal in every objective only the first is kept; rows with a NaN are left out.
    """
    found = Front(objectives)
    for index, row in enumerate(rows):
        found.add(index, row)
    return found.numbers()


def hypervolume(
    rows: Sequence[Mapping[str, Any]],
    objectives: Mapping[Name, Direction],
    reference: Mapping[str, float],
) -> float:
    """The volume of objective space that `rows` dominate, bounded by `reference`: larger is better.

    Exact for any number of objectives. With two, the time grows as n log n; each further objective adds a
    factor of n.

    Args:
        rows: a number for every objective in each; rows that do not beat `reference` in every objective do
            not count.
        objectives: the direction of each.
        reference: a value for every objective that is worse than any result worth counting, such as an
            accuracy of 0 and the parameters of the dense network.

    Returns:
        The volume, in the product of the objectives' units.
    """
    bound = _costs(reference, objectives)
    costs = [_costs(row, objectives) for row in rows]
    return _volume([cost for cost in costs if all(map(float.__lt__, cost, bound))], bound)


def reference(dense: Mapping[str, Any], objectives: Mapping[Name, Direction]) -> dict[str, float] | None:
    """The reference of a study's hypervolume: accuracy 0 at the dense network's cost.

    None if an objective of the dense network is not known.
    """
    if any(dense.get(name) is None for name in objectives):
        return None
    return {
        str(name): 0.0 if direction == "maximize" else float(dense[name])
        for name, direction in objectives.items()
    }


def covered(
    rows: Sequence[Mapping[str, Any]],
    objectives: Mapping[Name, Direction],
    reference: Mapping[str, float],
) -> float:
    """The hypervolume as a fraction of that of a perfect network: accuracy 1 at no cost.

    It is what files, pages and W&B show as hypervolume; see `hypervolume` for the arguments.
    """
    perfect = math.prod(
        1.0 if direction == "maximize" else reference[name] for name, direction in objectives.items()
    )
    return hypervolume(rows, objectives, reference) / perfect


def _costs(row: Mapping[str, Any], objectives: Mapping[Name, Direction]) -> tuple[float, ...]:
    """The objectives of a row in order, negated where needed so that less is better in each."""
    return tuple(
        float(row[name]) if direction == "minimize" else -float(row[name])
        for name, direction in objectives.items()
    )


def _has_nan(cost: tuple[float, ...]) -> bool:
    return any(map(math.isnan, cost))


def _no_worse(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return all(map(operator.le, a, b))


def _volume(costs: list[tuple[float, ...]], bound: tuple[float, ...]) -> float:
    """The volume between costs and bound, cut into slabs along the last objective."""
    if not costs:
        return 0.0
    if len(bound) == 1:
        return bound[0] - min(costs)[0]
    ordered = sorted(costs, key=lambda cost: cost[-1])
    heights = [*(cost[-1] for cost in ordered), bound[-1]]
    areas = _areas([cost[:-1] for cost in ordered], bound[:-1], heights)
    return math.fsum((top - low) * area for (low, top), area in zip(pairwise(heights), areas, strict=True))


def _areas(
    costs: Sequence[tuple[float, ...]], bound: tuple[float, ...], heights: Sequence[float]
) -> Iterator[float]:
    """What the first 1, 2, … costs cover; 0 where the slab has no height, so that it is not needed."""
    if len(bound) == 1:
        yield from (bound[0] - lowest for (lowest,) in accumulate(costs, min))
        return
    for index in range(len(costs)):
        flat = heights[index + 1] == heights[index]
        yield 0.0 if flat else _volume(list(costs[: index + 1]), bound)
