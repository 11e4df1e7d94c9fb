"""Dominance, front and hypervolume, held against their definitions by brute force."""

from __future__ import annotations

import itertools
import math
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.pareto import Direction, Front, dominates, front, hypervolume

TWO: dict[str, Direction] = {"val_accuracy": "maximize", "params": "minimize"}
THREE: dict[str, Direction] = {**TWO, "macs": "minimize"}
ONE: dict[str, Direction] = {"val_accuracy": "maximize"}
EVERY_COUNT = st.sampled_from([ONE, TWO, THREE])


def row(*values: float) -> dict[str, Any]:
    return dict(zip(THREE, values, strict=False))


def rows_of(objectives: dict[str, Direction], top: int = 6) -> st.SearchStrategy[list[dict[str, int]]]:
    """Rows of few distinct whole numbers, so that ties and equal rows are common."""
    return st.lists(st.fixed_dictionaries({name: st.integers(0, top) for name in objectives}), max_size=12)


def better(a: dict[str, Any], b: dict[str, Any], name: str, objectives: dict[str, Direction]) -> bool:
    return bool(a[name] > b[name]) if objectives[name] == "maximize" else bool(a[name] < b[name])


def cells(rows: list[dict[str, int]], objectives: dict[str, Direction], reference: dict[str, int]) -> int:
    """The unit cells of a whole-number grid that some row dominates, up to the reference."""

    def inside(point: tuple[int, ...], r: dict[str, int]) -> bool:
        return all(
            reference[n] <= x < r[n] if objectives[n] == "maximize" else r[n] <= x < reference[n]
            for x, n in zip(point, objectives, strict=True)
        )

    return sum(
        any(inside(point, r) for r in rows) for point in itertools.product(range(7), repeat=len(objectives))
    )


def by_definition(rows: dict[int, dict[str, Any]], objectives: dict[str, Direction]) -> list[int]:
    """The front by its definition: each row against every other."""
    kept = [
        number
        for number, one in rows.items()
        if not any(math.isnan(one[name]) for name in objectives)
        and not any(
            dominates(other, one, objectives)
            or (other_number < number and all(other[name] == one[name] for name in objectives))
            for other_number, other in rows.items()
        )
    ]
    turn = [-1 if direction == "maximize" else 1 for direction in objectives.values()]
    return sorted(
        kept, key=lambda n: [t * rows[n][name] for name, t in zip(objectives, turn, strict=True)][::-1]
    )


@given(EVERY_COUNT.flatmap(lambda o: st.tuples(st.just(o), rows_of(o))))
def test_front_is_what_nothing_dominates(case: tuple[dict[str, Direction], list[dict[str, int]]]) -> None:
    objectives, rows = case
    found = front(rows, objectives)
    for index, candidate in enumerate(rows):
        beaten = any(
            not any(better(candidate, other, n, objectives) for n in objectives)
            and any(better(other, candidate, n, objectives) for n in objectives)
            for other in rows
        )
        repeated = candidate in rows[:index]
        assert (index in found) == (not beaten and not repeated)


@given(EVERY_COUNT.flatmap(lambda o: st.tuples(st.just(o), rows_of(o))), st.randoms(use_true_random=False))
def test_a_front_kept_as_rows_come_in_is_the_same_whatever_their_order(
    case: tuple[dict[str, Direction], list[dict[str, Any]]], random: Random
) -> None:
    objectives, rows = case
    rows = [one | {"val_accuracy": math.nan} if one["val_accuracy"] == 6 else one for one in rows]
    order = random.sample(range(len(rows)), len(rows))
    found = Front(objectives)
    seen: dict[int, dict[str, Any]] = {}
    for number in order:
        before = found.numbers()
        seen[number] = rows[number]
        changed = found.add(number, rows[number])
        assert found.numbers() == by_definition(seen, objectives)
        assert changed == (found.numbers() != before)
    assert found.numbers() == front(rows, objectives)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(1, 1e6)), max_size=40))
def test_fronts_of_real_numbers(pairs: list[tuple[float, float]]) -> None:
    rows = [row(*pair) for pair in pairs]
    assert front(rows, TWO) == by_definition(dict(enumerate(rows)), TWO)


@given(rows_of(TWO))
def test_front_goes_from_smallest_and_worst_to_largest_and_best(rows: list[dict[str, int]]) -> None:
    on_front = [rows[index] for index in front(rows, TWO)]
    for smaller, larger in itertools.pairwise(on_front):
        assert smaller["params"] < larger["params"]
        assert smaller["val_accuracy"] < larger["val_accuracy"]


@given(rows_of(THREE, top=3))
def test_dominance_is_a_strict_partial_order(rows: list[dict[str, int]]) -> None:
    for a, b, c in itertools.product(rows[:5], repeat=3):
        assert not dominates(a, a, THREE)
        assert not (dominates(a, b, THREE) and dominates(b, a, THREE))
        if dominates(a, b, THREE) and dominates(b, c, THREE):
            assert dominates(a, c, THREE)


@given(EVERY_COUNT.flatmap(lambda o: st.tuples(st.just(o), rows_of(o))))
def test_hypervolume_counts_the_dominated_cells(
    case: tuple[dict[str, Direction], list[dict[str, int]]],
) -> None:
    objectives, rows = case
    reference = {"val_accuracy": 1, "params": 5, "macs": 6}
    assert hypervolume(rows, objectives, reference) == cells(rows, objectives, reference)


@given(rows_of(TWO))
def test_only_the_front_counts_for_the_hypervolume(rows: list[dict[str, int]]) -> None:
    reference = {"val_accuracy": 0, "params": 7}
    on_front = [rows[index] for index in front(rows, TWO)]
    assert hypervolume(on_front, TWO, reference) == pytest.approx(hypervolume(rows, TWO, reference))


def test_a_front_by_hand() -> None:
    rows = [row(0.90, 100), row(0.85, 40), row(0.84, 50), row(0.85, 40), row(0.60, 10), row(0.90, 120)]
    assert front(rows, TWO) == [4, 1, 0]
    assert hypervolume(rows, TWO, {"val_accuracy": 0.5, "params": 110}) == pytest.approx(
        0.10 * 100 + 0.25 * 70 + 0.05 * 10
    )


def test_nothing_to_choose_from() -> None:
    assert front([], TWO) == []
    assert hypervolume([], TWO, {"val_accuracy": 0, "params": 1}) == 0


def test_a_nan_is_never_on_the_front_and_beats_nothing() -> None:
    broken, fine = row(math.nan, 1), row(0.5, 10)
    assert front([broken, fine, broken], TWO) == [1]
    assert not dominates(broken, fine, TWO)
    assert not dominates(fine, broken, TWO)
    assert hypervolume([broken], TWO, {"val_accuracy": 0, "params": 99}) == 0


def test_a_worse_than_reference_row_counts_nothing() -> None:
    assert hypervolume([row(0.4, 10), row(0.9, 200)], TWO, {"val_accuracy": 0.5, "params": 100}) == 0


def test_a_missing_objective_is_named() -> None:
    with pytest.raises(KeyError, match="params"):
        front([{"val_accuracy": 0.5}], TWO)
    with pytest.raises(KeyError, match="params"):
        Front(TWO).add(0, {"val_accuracy": 0.5})


def test_many_rows_that_are_all_on_the_front() -> None:
    rows = [row(i / 4000, 10 * i + 1) for i in range(4000)]
    assert front(rows[::-1], TWO) == list(range(3999, -1, -1))
    below = sum(10 * i for i in range(4000)) / 4000  # each step of the staircase is 1/4000 high
    assert hypervolume(rows, TWO, {"val_accuracy": -1 / 4000, "params": 40_001}) == pytest.approx(
        40_000 - below
    )
