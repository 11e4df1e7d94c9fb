"""A search space as Optuna distributions, and the conversion of values in both directions."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from slimnet.errors import SlimnetError
from sweeps.config.space import Choices, Entry, Log, Range


def distributions(space: Mapping[str, Entry]) -> dict[str, BaseDistribution]:
    """The distribution from which Optuna draws each searched field.

    Ordered values stay ordered: those of a geometric grid, and numbers that are listed, are drawn by their
    rank.

    Args:
        space: entries by dotted path.

    Returns:
        Distributions by dotted path, in the order of the space.
    """
    return {path: _distribution(path, entry) for path, entry in space.items()}


class OptunaSpace:
    """A search space as Optuna distributions, and the conversion of values in both directions.

    Attributes:
        fields: the searched fields by dotted path, in the order of the space.
        distributions: their distributions, likewise.
        size: how many points there are; None if part of the space is continuous.
    """

    def __init__(self, space: Mapping[str, Entry]) -> None:
        """Tabulate the values of a space.

        Args:
            space: entries by dotted path.
        """
        self.distributions = distributions(space)
        self.fields = {path: Field(path, entry) for path, entry in space.items()}
        sizes = [field.size for field in self.fields.values()]
        self.size = None if None in sizes else math.prod(size for size in sizes if size is not None)

    def encode(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The config's values as Optuna stores them.

        Raises:
            SlimnetError: a value is not in the space.
        """
        return {path: field.encode(params.get(path)) for path, field in self.fields.items()}

    def decode(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The config's values for what Optuna stored.

        Raises:
            SlimnetError: a value is not in the space.
        """
        return {path: field.decode(params.get(path)) for path, field in self.fields.items()}

    def key(self, params: Mapping[str, Any]) -> tuple[Any, ...]:
        """A hashable key, equal for equal points and only for those.

        Raises:
            SlimnetError: a value is not in the space.
        """
        return tuple(field.key(params.get(path)) for path, field in self.fields.items())

    def index(self, key: Sequence[int]) -> int:
        """The place of a point in the grid, whose last field changes fastest."""
        index = 0
        for digit, field in zip(key, self.fields.values(), strict=True):
            index = index * (field.size or 0) + digit
        return index

    def at(self, index: int) -> dict[str, Any]:
        """The point at a place in the grid, as Optuna stores it."""
        params = {}
        for path, field in reversed(self.fields.items()):
            index, digit = divmod(index, field.size or 0)
            params[path] = field.stored[digit]
        return params

    def distance(self, one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
        """How far apart two points are, as Optuna stores them: the fractions of the ranges, added up."""
        return sum(_distance(d, one[path], other[path]) for path, d in self.distributions.items())


class Field:
    """One searched field: its values in the config, and what Optuna stores for them.

    Attributes:
        size: how many values it has; None for a continuous interval.
        stored: what Optuna stores for each value, in the order of the entry; empty for an interval.
        coded: whether Optuna stores something else than the values: their ranks, or JSON.
    """

    def __init__(self, path: str, entry: Entry) -> None:
        """Tabulate the values of an entry.

        Args:
            path: the field's dotted path, for error messages.
            entry: the values that the field may take.
        """
        self._path = path
        self._step = entry.step if isinstance(entry, Range) else None
        self._ends = None if isinstance(entry, Choices) else (entry.low, entry.high)
        values = entry.values()
        self.size = None if values is None else len(values)
        self._values = [_primitive(value) for value in values or []]
        self._index = {_hashable(value): index for index, value in enumerate(self._values)}
        self.stored: list[Any] = _ranks(path, entry) or list(self._index)
        self.coded = self.stored != self._values
        self._index_stored = {stored: index for index, stored in enumerate(self.stored)}

    def key(self, value: Any) -> Any:
        """The index of a value of the config, or the number itself in an interval.

        Raises:
            SlimnetError: the field has no such value.
        """
        if self.size is None:
            if isinstance(value, int | float) and self._ends and self._ends[0] <= value <= self._ends[1]:
                return value
            raise self._unknown(value)
        with suppress(KeyError):
            return self._index[_hashable(value)]
        raise self._unknown(value)

    def encode(self, value: Any) -> Any:
        """What Optuna stores for a value of the config.

        Raises:
            SlimnetError: the field has no such value.
        """
        key = self.key(value)
        return key if self.size is None else self.stored[key]

    def decode(self, stored: Any) -> Any:
        """The value of the config for what Optuna drew or stored, which may differ by rounding.

        Raises:
            SlimnetError: the field has no such value.
        """
        if self.size is None:
            return self.key(stored)
        index = self._index_stored.get(stored)
        if index is None and self._step is not None and isinstance(stored, float):
            index = round((stored - self._values[0]) / self._step)
        if index is None or not 0 <= index < self.size:
            raise self._unknown(stored)
        return self._values[index]

    def _unknown(self, value: Any) -> SlimnetError:
        return SlimnetError(
            f"{self._path} = {value!r} is not in search.space; another space needs another study "
            "(--set study=NAME)"
        )


def _distribution(path: str, entry: Entry) -> BaseDistribution:
    values = entry.values()
    if ranks := _ranks(path, entry):
        return IntDistribution(0, len(ranks) - 1)
    match entry:
        case Log(low, high) if isinstance(low, int):
            return IntDistribution(low, int(high), log=True)
        case Log(low, high):
            return FloatDistribution(low, high, log=True)
        case Range(low, high) if values is None:
            return FloatDistribution(low, high)
        case Range(low, _, step) if values is not None and isinstance(low, int):
            return IntDistribution(low, int(values[-1]), step=int(step or 1))
        case Range(low, _, step) if values is not None:
            return FloatDistribution(low, values[-1], step=step)
    return CategoricalDistribution([_hashable(_primitive(value)) for value in values or []])


def _ranks(path: str, entry: Entry) -> list[int] | None:
    """The ranks of values that Optuna is to see as ordered, though not by their distances; else None.

    Of two values in a list, none is between the others.
    """
    values = entry.values()
    if isinstance(entry, Range) or values is None or (isinstance(entry, Choices) and len(values) < 3):
        return None
    sizes = [_size(value) for value in values]
    kinds = {kind for kind, _ in sizes}
    if path == "seed" or len(kinds) != 1 or None in kinds:
        return None
    ordered = sorted(sizes)
    return [ordered.index(size) for size in sizes]


def _size(value: Any) -> tuple[str | None, float]:
    """What a value is ordered by, after its kind: a number, or a percentage such as "50%"."""
    if isinstance(value, str) and re.fullmatch(r"[0-9.]+%", value):
        return "percentage", float(value[:-1])
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "number", value
    return None, 0.0


def _distance(distribution: BaseDistribution, one: Any, other: Any) -> float:
    if isinstance(distribution, IntDistribution | FloatDistribution) and not distribution.single():
        return abs(float(one) - float(other)) / (distribution.high - distribution.low)
    return float(one != other)


def _primitive(value: Any) -> Any:
    """A value as in JSON, with lists for tuples."""
    return [_primitive(item) for item in value] if isinstance(value, list | tuple) else value


def _hashable(value: Any) -> Any:
    """A value that can be an Optuna category: JSON for a list or a mapping."""
    return json.dumps(value, sort_keys=True) if isinstance(value, list | tuple | dict) else value
