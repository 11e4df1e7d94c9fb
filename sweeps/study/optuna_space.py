"""A search space as Optuna distributions, and the conversion of values in both directions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from slimnet.errors import SlimnetError
from sweeps.config.space import (
    Branch,
    By,
    Choices,
    Entry,
    Log,
    Range,
    Space,
    branches,
    hashable,
    magnitude,
    parents,
    primitive,
)


class OptunaSpace:
    """A search space as Optuna distributions, and the conversion of points in both directions.

    Optuna's parameters are called as the fields. One that goes by another field is a parameter of its own for
    each value of that: "sparse.lambda[l1]".

    Attributes:
        paths: the searched fields, in the order of the space.
        parents: the parameters that others go by.
        fields: the parameters by name; those that others go by first, then in the order of the space.
        distributions: their distributions, likewise. Ordered values stay ordered: those of a geometric grid,
            and numbers that are listed, are drawn by their rank.
        size: how many points there are; None if part of the space is continuous.
    """

    def __init__(self, space: Space) -> None:
        """Tabulate the values of a space.

        Args:
            space: entries by dotted path.
        """
        self.paths = list(space)
        self.parents = list(parents(space))
        ordered = [*self.parents, *(path for path in space if path not in self.parents)]
        entries = {name: entry for path in ordered for name, entry in _parameters(path, space[path])}
        self.fields = {name: Field(name.partition("[")[0], entry) for name, entry in entries.items()}
        self.distributions = {name: field.distribution for name, field in self.fields.items()}
        self._branches = [self._branch(branch, space) for branch in branches(space)]
        sizes = [branch.size for branch in self._branches]
        self.size = None if None in sizes else sum(size for size in sizes if size is not None)

    def encode(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The config's values of a point as Optuna stores them.

        Raises:
            SlimnetError: a value is not in the space.
        """
        return {
            name: self.fields[name].encode(params.get(path)) for name, path in self._names(params).items()
        }

    def decode(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """The config's values for what Optuna stored, in the order of the space.

        Parameters that do not belong to the point are ignored.

        Raises:
            SlimnetError: a value is not in the space.
        """
        given = {path: self.fields[path].decode(stored.get(path)) for path in self.parents}
        values = {
            path: self.fields[name].decode(stored.get(name)) for name, path in self._names(given).items()
        }
        return {path: values[path] for path in self.paths if path in values}

    def fill(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """A point as Optuna stores it, with the middle of each parameter that does not belong to it."""
        return {name: stored.get(name, field.middle) for name, field in self.fields.items()}

    def active(self, stored: Mapping[str, Any]) -> list[str]:
        """The parameters that belong to a point of which at least those are known that others go by."""
        given = {path: self.fields[path].decode(stored.get(path)) for path in self.parents}
        return list(self._names(given))

    def distributions_of(self, stored: Mapping[str, Any]) -> dict[str, BaseDistribution]:
        """The distributions of the parameters of a point."""
        return {name: self.distributions[name] for name in stored}

    def legible(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The config's values of the fields for which Optuna stores others."""
        return {path: params[path] for name, path in self._names(params).items() if self.fields[name].coded}

    def is_point(self, stored: Mapping[str, Any]) -> bool:
        """Whether these are the parameters of a point."""
        try:
            return stored.keys() == set(self.active(stored))
        except SlimnetError:
            return False

    def key(self, params: Mapping[str, Any]) -> tuple[Any, ...]:
        """A hashable key, equal for equal points and only for those.

        Raises:
            SlimnetError: a value is not in the space.
        """
        names = self._names(params)
        return tuple(
            field.key(params.get(names[name])) if name in names else None
            for name, field in self.fields.items()
        )

    def index(self, key: Sequence[Any]) -> int:
        """The place of a point in the grid, whose last field changes fastest."""
        digits = dict(zip(self.fields, key, strict=True))
        index = 0
        for branch in self._branches:
            if all(digits[path] == digit for path, digit in branch.given.items()):
                place = 0
                for name in branch.free:
                    place = place * (self.fields[name].size or 0) + digits[name]
                return index + place
            index += branch.size or 0
        raise AssertionError("a key is of a point of the space")

    def at(self, index: int) -> dict[str, Any]:
        """The point at a place in the grid, as Optuna stores it."""
        for branch in self._branches:
            if index < (branch.size or 0):
                break
            index -= branch.size or 0
        params = {path: self.fields[path].stored[digit] for path, digit in branch.given.items()}
        for name in reversed(branch.free):
            index, digit = divmod(index, self.fields[name].size or 0)
            params[name] = self.fields[name].stored[digit]
        return params

    def distance(self, one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
        """How far apart two points are, as Optuna stores them: the fractions of the ranges, added up."""
        both = one.keys() & other.keys()
        apart = len(one.keys() ^ other.keys())
        return apart + sum(
            _distance(d, one[name], other[name]) for name, d in self.distributions.items() if name in both
        )

    def _names(self, params: Mapping[str, Any]) -> Mapping[str, str]:
        """The parameters of a point of which at least the parents' values are known, with their paths."""
        given = {path: self.fields[path].key(params.get(path)) for path in self.parents}
        return next(branch.names for branch in self._branches if branch.given == given)

    def _branch(self, branch: Branch, space: Space) -> _Branch:
        names: dict[str, str] = {}
        given: dict[str, int] = {}
        for name, field in self.fields.items():
            by = space[field.path]
            if field.path not in branch or (
                isinstance(by, By) and name != _name(field.path, branch[by.field])
            ):
                continue
            names[name] = field.path
            if name in self.parents:
                given[name] = field.key((branch[name].values() or [])[0])
        free = [name for name in names if name not in given]
        sizes = [self.fields[name].size for name in free]
        size = None if None in sizes else math.prod(size for size in sizes if size is not None)
        return _Branch(names, given, free, size)


@dataclass(frozen=True)
class _Branch:
    """A part of the space in which every point has the same parameters.

    Attributes:
        names: the parameters, with their paths.
        given: those that others go by, with the index of their value here.
        free: the others.
        size: how many points it has; None if it is continuous.
    """

    names: Mapping[str, str]
    given: Mapping[str, int]
    free: Sequence[str]
    size: int | None


def _parameters(path: str, entry: Entry | By) -> Iterator[tuple[str, Entry]]:
    """The parameters of a field, by name."""
    if not isinstance(entry, By):
        yield path, entry
        return
    for value, case in entry.cases:
        yield _name(path, Choices((value,))), case


def _name(path: str, given: Entry) -> str:
    """The parameter of a field that goes by another, at a value of that."""
    (value,) = given.values() or []
    return f"{path}[{value}]"


class Field:
    """One searched field: its values in the config, and what Optuna stores for them.

    Attributes:
        path: its dotted path.
        distribution: what Optuna draws from.
        middle: a value in the middle, as Optuna stores it.
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
        self.path = path
        self.distribution = _distribution(path, entry)
        self._step = entry.step if isinstance(entry, Range) else None
        self._ends = None if isinstance(entry, Choices) else (entry.low, entry.high)
        values = entry.values()
        self.size = None if values is None else len(values)
        self._values = [primitive(value) for value in values or []]
        self._index = {hashable(value): index for index, value in enumerate(self._values)}
        self.stored: list[Any] = _ranks(path, entry) or list(self._index)
        self.coded = self.stored != self._values
        self.middle = self._middle(entry)
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
            return self._index[hashable(value)]
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

    def _middle(self, entry: Entry) -> Any:
        if self.stored or isinstance(entry, Choices):
            return self.stored[len(self.stored) // 2]
        between = (entry.low * entry.high) ** 0.5 if isinstance(entry, Log) else (entry.low + entry.high) / 2
        return round(between) if isinstance(entry.low, int) else between

    def _unknown(self, value: Any) -> SlimnetError:
        return SlimnetError(
            f"{self.path} = {value!r} is not in search.space; another space needs another study "
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
    return CategoricalDistribution([hashable(primitive(value)) for value in values or []])


def _ranks(path: str, entry: Entry) -> list[int] | None:
    """The ranks of values that Optuna is to see as ordered, though not by their distances; else None.

    Of two values in a list, none is between the others.
    """
    values = entry.values()
    if isinstance(entry, Range) or values is None or (isinstance(entry, Choices) and len(values) < 3):
        return None
    sizes = [magnitude(value) for value in values]
    kinds = {kind for kind, _ in sizes}
    if path == "seed" or len(kinds) != 1 or None in kinds:
        return None
    ordered = sorted(sizes)
    return [ordered.index(size) for size in sizes]


def _distance(distribution: BaseDistribution, one: Any, other: Any) -> float:
    if isinstance(distribution, IntDistribution | FloatDistribution) and not distribution.single():
        return abs(float(one) - float(other)) / (distribution.high - distribution.low)
    return float(one != other)
