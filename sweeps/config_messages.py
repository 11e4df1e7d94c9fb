"""Says what is wrong with a config: which key, where it stands, its value, and what would do."""

from __future__ import annotations

import json
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from sweeps.yaml_source import KeyPath, Origin, Source, dotted

_BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
}
_NAMES = {
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
    "string": "text",
}


def refusal(*problems: tuple[KeyPath, str]) -> ValidationError:
    """The error for a pydantic validator to raise: for each problem the path below it, and a clause.

    The clause goes on after the key: "is missing; ...".
    """
    details = [
        InitErrorDetails(
            type=PydanticCustomError("refused", "{clause}", {"clause": clause}), loc=path, input=None
        )
        for path, clause in problems
    ]
    return ValidationError.from_exception_data("config", details)


def show(value: Any) -> str:
    """A value in a message: text in quotes, anything long cut."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."


class Schema:
    """The JSON schema of a config model, asked by key path."""

    def __init__(self, model: type[BaseModel]) -> None:
        self._root = model.model_json_schema()

    def node(self, path: KeyPath) -> dict[str, Any] | None:
        """The schema of the field at `path`; None when there is no such field."""
        node = self._root
        for key in path:
            if key not in (properties := self.properties(node)):
                return None
            node = properties[str(key)]
        return node

    def properties(self, node: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """The fields of a section; empty for anything else."""
        definition = self._root["$defs"][node["$ref"].rpartition("/")[2]] if "$ref" in node else node
        properties: dict[str, dict[str, Any]] = definition.get("properties", {})
        return properties

    def paths(self) -> list[tuple[str, ...]]:
        """Every section and field."""
        found: list[tuple[str, ...]] = [()]
        for path in found:
            node = self.node(path)
            found += [(*path, key) for key in self.properties(node or {})]
        return found[1:]

    def takes(self, path: KeyPath) -> str:
        """What would do at `path`, as a clause."""
        node = self.node(path) or {}
        if keys := self.properties(node):
            return f"it takes the keys {', '.join(keys)}."
        description = f" ({node['description']})" if "description" in node else ""
        return f"it takes {describe(node)}{description}."

    def unknown(self, path: tuple[str, ...]) -> str:
        """The clause that says that there is no such key, and which one may be meant."""
        *section, key = path
        known = self.paths()
        if tuple(key.split(".")) in known:
            outer, _, inner = key.rpartition(".")
            return f"is not a known key; write `{inner}:` in a line of its own under `{outer}:`."
        siblings = {other[-1]: dotted(other) for other in known if other[:-1] == tuple(section)}
        if close := get_close_matches(key, siblings, n=1):
            return f"is not a known key; did you mean {siblings[close[0]]}?"
        if elsewhere := [dotted(other) for other in known if other[-1] == key]:
            return f"is not a known key; did you mean {' or '.join(elsewhere)}?"
        where = dotted(tuple(section)) or "a config"
        return (
            f"is not a known key; {where} takes {', '.join(siblings)}." if siblings else "is not a known key."
        )


def describe(node: dict[str, Any]) -> str:
    """The values that a JSON schema allows, in words."""
    match node:
        case {"anyOf": options}:
            return " or ".join(map(describe, options))
        case {"const": value}:
            return str(value)
        case {"enum": values}:
            return f"one of {', '.join(map(str, values))}"
        case {"type": "array", "items": items}:
            return f"a list with items that are each {describe(items)}"
        case {"type": "object", "propertyNames": keys, "additionalProperties": values}:
            return f"keys that are {describe(keys)}, each with {describe(values)}"
        case {"type": kind}:
            bounds = " and ".join(
                f"{words} {node[bound]}" for bound, words in _BOUNDS.items() if bound in node
            )
            return f"{_NAMES[kind]}, {bounds}" if bounds else _NAMES[kind]
    return "another value"


def explain(error: ValidationError, source: Source, schema: Schema) -> list[tuple[Origin, str]]:
    """A line for every mistake that `error` holds, with the origin of what it is about."""
    lines: dict[str, Origin] = {}
    for detail in error.errors(include_url=False):
        path, kind = detail["loc"], detail["type"]
        if kind == "default_factory_not_called":  # follows from another mistake, which is in the list
            continue
        if kind == "extra_forbidden":
            clause = schema.unknown(tuple(map(str, path)))
        elif kind == "refused":
            clause = detail["msg"]
        elif kind == "missing":
            clause = f"is missing; {schema.takes(path)}"
        else:
            while schema.node(path) is None:  # inside a list or a union: speak of the field
                path = path[:-1]
            clause = f"is {show(_at(source.values, path))}; {schema.takes(path)}"
        lines.setdefault(f"{dotted(path)} {clause}", source.origin(path))
    return [(origin, line) for line, origin in lines.items()]


def _at(values: Any, path: KeyPath) -> Any:
    for key in path:
        values = values[key]
    return values
