"""The search space's entries: which values a searched field may take."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from itertools import combinations, product
from typing import Any

from sweeps.config.messages import show
from sweeps.config.yaml_source import ConfigError, parse_value

Number = int | float

MOST_VALUES = 10_000
SPELLED_BY = "{by: sparse.penalty, l1: [0.01, 0.02], proximal: [0.1, 0.2]}"

SPELLINGS = (
    "{log: [low, high], steps: n}, {log: [low, high]}, {range: [low, high], step: s}, {range: [low, high]}, "
    "{choices: [...]} or a list of choices; or {by: field, value: one of these} to go by another field"
)

MOST_BRANCHES = 1000


def hashable(value: Any) -> Any:
    """What a value is compared by: JSON for lists, tuples and mappings, as records hold lists for tuples."""
    return json.dumps(value, sort_keys=True) if isinstance(value, list | tuple | dict) else value


def primitive(value: Any) -> Any:
    """A value as in JSON, with lists for tuples."""
    return [primitive(item) for item in value] if isinstance(value, list | tuple) else value


def magnitude(value: Any) -> tuple[str | None, float]:
    """What a value is ordered by, after its kind: number, percentage ("50%"), or None for others."""
    if isinstance(value, str) and re.fullmatch(r"[0-9.]+%", value):
        return "percentage", float(value[:-1])
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "number", value
    return None, 0.0


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same, however they are spelled: "50%" and "50.0%"."""
    kind, size = magnitude(one)
    return hashable(one) == hashable(other) or (kind is not None and magnitude(other) == (kind, size))


class _Values:
    """Knows which values an entry has, so that many points are looked up quickly."""

    def values(self) -> Sequence[Any] | None:
        raise NotImplementedError

    @cached_property
    def known(self) -> frozenset[Any] | None:
        """Every value, as `hashable` has it; None when the entry is continuous."""
        values = self.values()
        return None if values is None else frozenset(map(hashable, values))


@dataclass(frozen=True)
class Choices(_Values):
    """A fixed set of values without an order."""

    choices: tuple[Any, ...]

    def values(self) -> list[Any]:
        """The choices, in the order given."""
        return list(self.choices)

    def to_yaml(self) -> dict[str, Any]:
        """The entry as it is written in a config."""
        return {"choices": list(self.choices)}


@dataclass(frozen=True)
class Range(_Values):
    """Evenly spread from `low` to `high`; all int, with a step, where the field is int.

    With a step, the values are low, low + step, ... as clean decimals, `high` included if the steps meet it.
    """

    low: Number
    high: Number
    step: Number | None = None

    def values(self) -> list[Number] | None:
        """Every value, ascending; None when the range is continuous."""
        if self.step is None:
            return None
        low, high, step = (Decimal(repr(number)) for number in (self.low, self.high, self.step))
        return [type(self.low)(low + step * index) for index in range(int((high - low) / step) + 1)]

    def to_yaml(self) -> dict[str, Any]:
        """The entry as it is written in a config."""
        step = {} if self.step is None else {"step": self.step}
        return {"range": [self.low, self.high], **step}


@dataclass(frozen=True)
class Log(_Values):
    """Evenly spread in the logarithm from `low` to `high`, both included; all int where the field is int.

    With `steps`, a geometric grid of that many values, those between the ends rounded to 6 significant digits
    (to integers where the field is int, equal ones once).
    """

    low: Number
    high: Number
    steps: int | None = None

    def values(self) -> list[Number] | None:
        """Every value, ascending; None when the interval is continuous."""
        if self.steps is None:
            return None
        ratio = math.log(self.high / self.low) / (self.steps - 1)
        inner = [self._rounded(self.low * math.exp(ratio * index)) for index in range(1, self.steps - 1)]
        return list(dict.fromkeys([self.low, *inner, self.high]))

    def _rounded(self, value: float) -> Number:
        return round(value) if isinstance(self.low, int) else float(f"{value:.6g}")

    def to_yaml(self) -> dict[str, Any]:
        """The entry as it is written in a config."""
        steps = {} if self.steps is None else {"steps": self.steps}
        return {"log": [self.low, self.high], **steps}


Entry = Choices | Range | Log


@dataclass(frozen=True)
class By:
    """Values that depend on the value of another searched field.

    Attributes:
        field: the dotted path of that field.
        cases: the entry for each of its values; for the others, the field keeps the config's value.
    """

    field: str
    cases: tuple[tuple[Any, Entry], ...]

    def case(self, value: Any) -> Entry | None:
        """The entry for a value of the field; None if there is none."""
        return self._entries.get(hashable(value))

    @cached_property
    def _entries(self) -> dict[Any, Entry]:
        return {hashable(value): entry for value, entry in self.cases}

    def values(self) -> list[Any] | None:
        """The values of all cases; None when one of them is continuous."""
        lists = [entry.values() for _, entry in self.cases]
        return None if None in lists else [value for values in lists for value in values or []]

    def to_yaml(self) -> dict[Any, Any]:
        """The entry as it is written in a config."""
        return {"by": self.field, **{_spell(value): entry.to_yaml() for value, entry in self.cases}}


Space = Mapping[str, Entry | By]
Branch = Mapping[str, Entry]


def parse_entry(raw: Any, check: Callable[[Any], Any]) -> Entry:
    """The entry that a config spells as `raw`.

    Args:
        raw: a list of choices, a mapping as in SPELLINGS, or an entry.
        check: converts a value to the type of the searched field; raises ValueError, with a message for the
            user, if the field cannot hold it.

    Raises:
        ValueError: the entry is malformed, or one of its ends or choices fails the check.
    """
    match raw:
        case Choices() | Range() | Log():
            return parse_entry(raw.to_yaml(), check)
        case list() | tuple():
            return _choices(raw, check)
        case {"choices": list() | tuple() as choices, **rest} if not rest:
            return _choices(choices, check)
        case {"range": [low, high], **rest} if rest.keys() <= {"step"}:
            return _range(*_ends(low, high, check), rest.get("step"))
        case {"log": [low, high], **rest} if rest.keys() <= {"steps"}:
            return _log(*_ends(low, high, check), rest.get("steps"))
    raise ValueError(f"it takes {SPELLINGS}")


def parse_by(raw: Mapping[Any, Any], check: Callable[[Any], Any], check_case: Callable[[Any], Any]) -> By:
    """The entry that a config spells as {by: field, value: entry, ...}.

    Args:
        raw: the mapping.
        check: as for `parse_entry`.
        check_case: the same for values of the other field, which as keys may be text.

    Raises:
        ValueError: as `parse_entry`, or there is no case.
    """
    cases: list[tuple[Any, Entry]] = []
    for key, spelling in raw.items():
        if key == "by":
            continue
        value = check_case(_read(key) if isinstance(key, str) else key)
        if any(hashable(value) == hashable(known) for known, _ in cases):
            raise ValueError(f"the value {show(value)} of {raw['by']} is given twice; keep one")
        try:
            cases.append((value, parse_entry(spelling, check)))
        except ValueError as error:
            raise ValueError(f"at {key}, {error}") from error
    if not cases:
        raise ValueError(f"it needs the values of {raw['by']} for which it is searched, such as {SPELLED_BY}")
    return By(raw["by"], tuple(cases))


def _read(key: str) -> Any:
    """The value that a key stands for: what it is as YAML, or else the text itself."""
    try:
        return parse_value(key, "")
    except ConfigError:
        return key


def _spell(value: Any) -> str:
    """A key that `_read` reads back to the value."""
    plain = isinstance(value, str) and value != "by" and _read(value) == value
    return str(value) if plain else json.dumps(value, ensure_ascii=False)


def parents(space: Space) -> dict[str, list[Any]]:
    """The fields that others go by, with their values."""
    fields = [entry.field for entry in space.values() if isinstance(entry, By)]
    return {field: space[field].values() or [] for field in dict.fromkeys(fields)}


def branches(space: Space) -> list[Branch]:
    """The parts of a space in which no field goes by another: one for each set of values of the parents.

    In each, a parent has this one value.
    """
    values = parents(space)
    return [_branch(space, dict(zip(values, given, strict=True))) for given in product(*values.values())]


def branch_of(space: Space, point: Mapping[str, Any]) -> Branch | None:
    """The part of a space that a point is in by the values of the parents; None if it is in none."""
    given: dict[str, Any] = {}
    for path, values in parents(space).items():
        if path not in point:
            return None
        found = [value for value in values if hashable(value) == hashable(point[path])]
        if not found:
            return None
        given[path] = found[0]
    return _branch(space, given)


def _branch(space: Space, given: Mapping[str, Any]) -> Branch:
    """The part of a space at these values of the parents."""
    branch: dict[str, Entry] = {}
    for path, entry in space.items():
        if path in given:
            branch[path] = Choices((given[path],))
        elif not isinstance(entry, By):
            branch[path] = entry
        elif (case := entry.case(given[entry.field])) is not None:
            branch[path] = case
    return branch


def entries_of(space: Space, path: str) -> list[Entry]:
    """Every entry that a field has, in whichever part of the space; empty if it is not searched."""
    entry = space.get(path)
    if isinstance(entry, By):
        return [case for _, case in entry.cases]
    return [] if entry is None else [entry]


def count_points(space: Space) -> int | None:
    """How many points the space has; None if part of it is continuous."""
    count = 0
    for branch in branches(space):
        lists = [entry.values() for entry in branch.values()]
        if None in lists:
            return None
        count += math.prod(len(values) for values in lists if values is not None)
    return count


def continuous(space: Space) -> list[str]:
    """The fields that have no list of values."""
    return [path for path, entry in space.items() if entry.values() is None]


def contains(entry: Entry, value: Any) -> bool:
    """Whether a searched field may take a value."""
    if entry.known is not None or isinstance(entry, Choices):
        return hashable(value) in (entry.known or ())
    return isinstance(value, int | float) and entry.low <= value <= entry.high


def _choices(choices: list[Any] | tuple[Any, ...], check: Callable[[Any], Any]) -> Choices:
    values = [check(choice) for choice in choices]
    if not values:
        raise ValueError("it needs at least one choice")
    for one, other in combinations(values, 2):
        if same(one, other):
            twice = f"the choice {one} is given twice" if one == other else f"{one} and {other} are the same"
            raise ValueError(f"{twice}; keep one")
    return Choices(tuple(values))


def _ends(low: Any, high: Any, check: Callable[[Any], Any]) -> tuple[Number, Number]:
    low, high = check(low), check(high)
    for end in (low, high):
        if isinstance(end, bool) or not isinstance(end, int | float):
            raise ValueError("only numbers have a range; list the values as choices")
    if not low < high:
        raise ValueError(f"the low end {low} comes first and must be below the high end {high}")
    return low, high


def _range(low: Number, high: Number, step: Any) -> Range:
    if isinstance(low, int):
        step = 1 if step is None else step
        if type(step) is not int:
            raise ValueError(f"the step {step} must be a whole number, as the field takes whole numbers")
    if step is None:
        return Range(low, high)
    width = Decimal(repr(high)) - Decimal(repr(low))
    if isinstance(step, bool) or not isinstance(step, int | float) or not 0 < Decimal(repr(step)) <= width:
        raise ValueError(f"the step {step} must be a number above 0 and at most the range's width, {width}")
    if (high - low) / step >= MOST_VALUES:
        raise ValueError(f"the step {step} makes more than {MOST_VALUES:,} values; use a larger one")
    return Range(low, high, type(low)(step))


def _log(low: Number, high: Number, steps: Any) -> Log:
    if low <= 0:
        raise ValueError(
            f"a log scale starts above 0, not at {low}; to include 0, list all values as choices"
        )
    if steps is not None and (type(steps) is not int or not 2 <= steps <= MOST_VALUES):
        raise ValueError(f"steps is {steps}; it takes a whole number from 2 to {MOST_VALUES:,}")
    return Log(low, high, steps)
