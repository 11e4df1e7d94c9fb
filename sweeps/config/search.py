"""The search section of a config: what is searched, by which sampler, and how trials are compared."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    JsonValue,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    field_serializer,
    field_validator,
    model_validator,
)

from slimnet.wording import did_you_mean
from sweeps.config.base import MANY, STRICT, Section
from sweeps.config.data import Data
from sweeps.config.messages import describe, question_of, refusal, show
from sweeps.config.model import Model
from sweeps.config.sections import Finetune, Prune, Sparse
from sweeps.config.space import (
    MOST_BRANCHES,
    By,
    Choices,
    Entry,
    branch_of,
    contains,
    continuous,
    count_points,
    parents,
    parse_by,
    parse_entry,
    primitive,
    same,
)
from sweeps.config.yaml_source import KeyPath

Metric = Literal["val_accuracy", "params", "macs", "latency_ms", "latency_ms_64", "file_bytes"]
MEASURED = ("latency_ms", "latency_ms_64", "file_bytes")
"""The metrics that are measured on the study's machine, once a network is finished."""

Direction = Literal["maximize", "minimize"]
Seed = Annotated[int, Field(ge=0, lt=2**32, description="all random draws depend on it")]
Passes = Annotated[
    int,
    Field(
        ge=1,
        le=100,
        description="rounds of sparse training, pruning and fine-tuning; each removes part of the ratio",
    ),
]


def _spell_bound(bound: str) -> str:
    """One spelling of each bound, as a study is continued only with the bounds that it began with."""
    number = float(bound[2:])
    if not 0 < number < float("inf"):
        raise ValueError(bound)
    return f"{bound[:2]} {repr(number).removesuffix('.0')}"


SECTIONS: dict[str, type[Section]] = {
    "data": Data,
    "model": Model,
    "sparse": Sparse,
    "prune": Prune,
    "finetune": Finetune,
}
"""The sections whose fields can be searched."""


def _field_type(annotation: Any, *constraints: Any) -> TypeAdapter[Any]:
    annotated: Any = Annotated[annotation, *constraints] if constraints else annotation
    # Built on first use, as a study uses few of them and building all takes a tenth of a second.
    return TypeAdapter(annotated, config=ConfigDict(**STRICT, defer_build=True))


SEARCHABLE: dict[str, TypeAdapter[Any]] = {
    "seed": _field_type(Seed),
    "passes": _field_type(Passes),
    **{
        f"{section}.{field.alias or name}": _field_type(field.annotation, *field.metadata)
        for section, model in SECTIONS.items()
        for name, field in model.model_fields.items()
    },
}
"""The types of the fields that a search space may name, by dotted path."""

for path in ("data.path", "data.factory", "data.args", "model.path", "model.init"):
    del SEARCHABLE[path]  # which data is fixed when the study begins, and paths when the config is read


Bound = Annotated[
    str,
    Field(pattern=r"^(<=|>=) *(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$"),
    AfterValidator(_spell_bound),
    WithJsonSchema({"const": 'a bound above 0 such as ">= 0.85" or "<= 1e6"'}),
]

SamplerName = (
    Literal["tpe", "nsga2", "nsga3", "gp", "random", "grid"]
    | Annotated[str, Field(pattern=r"^[\w.]+:[\w.]+$"), WithJsonSchema({"const": "package.module:function"})]
)


def _all_points(known: dict[str, Any]) -> int:
    """The default of `trials`: all points of a grid or a list; 0, refused later, where there is no end."""
    in_space = count_points(known["space"]) or 0
    return in_space if known["sampler"] == "grid" else min(in_space, len(known["points"]))


def _space_of_points(known: dict[str, Any]) -> dict[str, Entry | By]:
    """The default of `space`: the values that are listed in `points`."""
    values: dict[str, list[Any]] = {}
    for point in known["points"]:
        for path, value in point.items():
            if value not in values.setdefault(path, []):
                values[path].append(value)
    return {
        path: Choices(tuple(_field_value(path, value) for value in found)) for path, found in values.items()
    }


class Search(Section):
    """Which points are tried, and the objectives by which they are compared.

    `ahead` makes the points of a study the same on every machine: when trial n is sampled, the sampler has
    seen the results of the trials up to n - ahead and no others, whatever the number of workers and their
    speed.
    """

    sampler: SamplerName = Field(
        "tpe", description="how points are chosen; a function of yours gives a sampler of Optuna"
    )
    args: dict[str, JsonValue] = Field({}, description="arguments of the sampler, by name")
    path: Path | None = Field(
        None,
        strict=False,
        description="folder in which a sampler of yours is looked for first; by default that of the config",
    )
    points: list[dict[str, JsonValue]] = Field(
        [], description="points to try before the sampler chooses any: values by dotted path"
    )
    space: dict[str, Entry | By] = Field(
        default_factory=_space_of_points, description="searched fields by dotted path"
    )
    trials: int = Field(default_factory=_all_points, ge=1, le=MANY, description="points to try")
    ahead: int = Field(4, ge=1, le=MANY, description="trials that may be unfinished at once")
    objectives: dict[Metric, Direction] = Field(
        {"val_accuracy": "maximize", "params": "minimize"},
        min_length=1,
        description="metrics traded against each other",
    )
    constraints: dict[Metric, Bound] = Field(
        {}, description="what a trial on the front must keep to; the sampler learns how far others are off"
    )
    limits: dict[Metric, Annotated[float, Field(gt=0)]] = Field(
        {},
        exclude=True,
        description="the earlier form of constraints: the most of a metric, the least of val_accuracy",
    )
    stopping: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None,
        description="a trial is stopped once it could enlarge the hypervolume by no more than this fraction",
    )

    @field_validator("space", mode="plain")
    @classmethod
    def _parse_space(cls, raw: Any) -> dict[str, Entry | By]:
        if not isinstance(raw, dict) or not raw:
            raise refusal(
                ((), f"is {show(raw)}; it takes at least one field, such as `prune.ratio: [0.5, 0.9]`.")
            )
        space: dict[str, Entry | By] = {}
        problems: list[tuple[KeyPath, str]] = []
        for path, spelling in raw.items():
            if path not in SEARCHABLE:
                problems.append(((path,), unsearchable(path)))
                continue
            try:
                space[path] = _parse(path, spelling)
            except ValueError as error:
                problems.append(((path,), f"is {show(spelling)}; {error}."))
        problems += [] if problems else _wrong_parents(space)
        if problems:
            raise refusal(*problems)
        return space

    @field_validator("points")
    @classmethod
    def _check_points(cls, points: list[dict[str, Any]]) -> list[dict[str, Any]]:
        problems: list[tuple[KeyPath, str]] = []
        checked: list[dict[str, Any]] = []
        spellings: dict[str, list[Any]] = {}
        for number, point in enumerate(points):
            checked.append({})
            for path, value in point.items():
                if path not in SEARCHABLE:
                    problems.append(((number, path), unsearchable(path)))
                    continue
                try:
                    checked[-1][path] = found = primitive(_field_value(path, value))
                except ValueError as error:
                    problems.append(((number, path), f"is {show(value)}; {error}."))
                    continue
                known = spellings.setdefault(path, [])
                first = next((other for other in known if same(found, other)), found)
                if first != found:
                    clause = f"is {show(found)}, which is {show(first)} elsewhere; spell it alike."
                    problems.append(((number, path), clause))
                elif found not in known:
                    known.append(found)
        if problems:
            raise refusal(*problems)
        return checked

    @field_serializer("space")
    def _spell_space(self, space: dict[str, Entry | By]) -> dict[str, Any]:
        return {path: entry.to_yaml() for path, entry in space.items()}

    @model_validator(mode="before")
    @classmethod
    def _limits_are_constraints(cls, values: Any) -> Any:
        """Constraints for limits, unless one of them is wrong, which is then said of the limits."""
        limits = values.get("limits") if isinstance(values, dict) else None
        given = values.get("constraints", {}) if limits else None
        if not (isinstance(limits, dict) and isinstance(given, dict)):
            return values
        if not all(name in get_args(Metric) and _is_above_0(limit) for name, limit in limits.items()):
            return values
        if both := [name for name in limits if name in given]:
            raise refusal((("limits", both[0]), "is given in constraints too; keep that one."))
        bounds = {name: f"{'>=' if name == 'val_accuracy' else '<='} {limits[name]}" for name in limits}
        return {**values, "limits": {}, "constraints": {**bounds, **given}}

    @field_validator("objectives", "constraints", mode="before")
    @classmethod
    def _never_search_on_test(cls, raw: Any) -> Any:
        if isinstance(raw, dict) and "test_accuracy" in raw:
            clause = (
                "is refused: the test split is measured and reported, never searched on; use val_accuracy."
            )
            raise refusal((("test_accuracy",), clause))
        return raw

    def violations(self, facts: Mapping[str, Any]) -> dict[str, float]:
        """How far metrics are off each constraint, as a fraction of its bound; 0 or less where it is met."""
        found: dict[str, float] = {}
        for name, constraint in self.constraints.items():
            sign, bound = constraint[:2], float(constraint[2:])
            excess = bound - facts[name] if sign == ">=" else facts[name] - bound
            found[name] = excess / bound
        return found

    def allows(self, facts: Mapping[str, Any]) -> bool:
        """Whether a trial with these metrics meets all constraints."""
        return all(violation <= 0 for violation in self.violations(facts).values())

    @model_validator(mode="after")
    def _stopping_knows_sizes_in_time(self) -> Self:
        late = [name for name in (*self.objectives, *self.constraints) if name in MEASURED]
        if self.stopping is not None and late:
            clause = f"is {self.stopping:g}, but {late[0]} is known only when a trial is complete; use null."
            raise refusal((("stopping",), clause))
        return self

    @model_validator(mode="after")
    def _arguments_fit_the_sampler(self) -> Self:
        if self.args and self.sampler == "grid":
            raise refusal((("args",), f"is {show(self.args)}, but a grid takes none; remove it."))
        if "seed" in self.args:
            raise refusal((("args", "seed"), "is not needed: all draws depend on the seed of the config."))
        if self.path is not None and ":" not in self.sampler:
            clause = f"is {show(self.path)}, but only a sampler of yours is looked for; remove it."
            raise refusal((("path",), clause))
        return self

    @model_validator(mode="after")
    def _points_are_in_the_space(self) -> Self:
        if not self.space:
            raise refusal((("space",), "is missing; it takes at least one field, or give points."))
        for number, point in enumerate(self.points):
            for path in parents(self.space).keys() & point.keys():
                self._check_value(number, path, self.space[path], point[path])
            branch = branch_of(self.space, point)
            needed = parents(self.space) if branch is None else branch
            missing = [path for path in needed if path not in point]
            if branch is None or missing:
                clause = f"has no {missing[0]}; a point has a value of each field that is searched."
                raise refusal((("points", number), clause))
            for path, value in point.items():
                if path not in branch:
                    by = self.space.get(path)
                    where = f" at its {by.field}" if isinstance(by, By) else ""
                    clause = f"is not in search.space{where}; add it there, or remove it here."
                    raise refusal((("points", number, path), clause))
                self._check_value(number, path, branch[path], value)
            if point in self.points[:number]:
                clause = f"is the same point as {self.points.index(point)}; keep one."
                raise refusal((("points", number), clause))
        return self

    @staticmethod
    def _check_value(number: int, path: str, entry: Entry | By, value: Any) -> None:
        """Refuse a value of a point that a field of the space does not have."""
        assert not isinstance(entry, By), "no field goes by one that goes by another"
        if not contains(entry, value):
            clause = f"is {show(value)}, which search.space.{path} does not have; widen it."
            raise refusal((("points", number, path), clause))

    @model_validator(mode="after")
    def _trials_fit_the_sampler(self) -> Self:
        points = count_points(self.space)
        if self.sampler != "grid":
            if not self.trials:
                raise refusal(
                    (("trials",), f"is missing; sampler {self.sampler} needs a number of points to try.")
                )
        elif points is None:
            fields = ", ".join(continuous(self.space))
            clause = f"is continuous in {fields}; a grid needs steps, a step or choices there."
            raise refusal((("space",), clause))
        elif self.trials > points:
            raise refusal(
                (("trials",), f"is {self.trials}, more than the grid's points; use at most {points}.")
            )
        return self


def _is_above_0(limit: Any) -> bool:
    return isinstance(limit, int | float) and not isinstance(limit, bool) and 0 < limit < float("inf")


def unsearchable(path: str) -> str:
    """The clause for a path that cannot be searched, with a suggestion."""
    hint = did_you_mean(path, SEARCHABLE) or f"use seed, passes, or a field of {', '.join(SECTIONS)}."
    return f"cannot be searched; {hint}"


def _parse(path: str, spelling: Any) -> Entry | By:
    """An entry of the space; ValueError, with a clause for the user, if it is wrong."""
    if isinstance(spelling, By):
        spelling = spelling.to_yaml()
    if not (isinstance(spelling, dict) and "by" in spelling):
        return parse_entry(spelling, partial(_field_value, path))
    if not isinstance(spelling["by"], str) or spelling["by"] not in SEARCHABLE:
        raise ValueError(f"{show(spelling['by'])} {unsearchable(str(spelling['by']))[:-1]}")
    return parse_by(spelling, partial(_field_value, path), partial(_field_value, spelling["by"]))


def _wrong_parents(space: Mapping[str, Entry | By]) -> list[tuple[KeyPath, str]]:
    """What is wrong with the fields that others go by."""
    problems: list[tuple[KeyPath, str]] = []
    parents: set[str] = set()
    for path, entry in space.items():
        if not isinstance(entry, By):
            continue
        parent = space.get(entry.field)
        values = None if parent is None or isinstance(parent, By) else parent.values()
        if parent is None:
            clause = f"goes by {entry.field}, which is not searched; add it to search.space."
        elif isinstance(parent, By):
            clause = f"goes by {entry.field}, which goes by another field itself; only one step is possible."
        elif values is None:
            clause = f"goes by {entry.field}, which is continuous; list its values."
        elif unknown := [value for value, _ in entry.cases if not contains(parent, value)]:
            clause = (
                f"has values for {entry.field} {show(unknown[0])}, which search.space.{entry.field} does not "
                f"have ({', '.join(map(str, values))})."
            )
        else:
            parents.add(entry.field)
            continue
        problems.append(((path,), clause))
    counts = [len(space[parent].values() or []) for parent in parents]
    if math.prod(counts) > MOST_BRANCHES:
        clause = f"has more than {MOST_BRANCHES:,} sets of values of {', '.join(sorted(parents))} to go by."
        problems.append(((), clause))
    return problems


def _field_value(path: str, value: Any) -> Any:
    """The value as the field at `path` holds it; ValueError, with a clause for the user, if invalid."""
    field = SEARCHABLE[path]
    try:
        return field.validate_python(value)
    except ValidationError:
        schema = field.json_schema()
        question = question_of(value, schema)
        meant = f" ({question})" if question else ""
        raise ValueError(f"{path} takes {describe(schema)}, not {show(value)}{meant}") from None
