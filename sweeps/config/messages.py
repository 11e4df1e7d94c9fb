"""Explains what is wrong with a config: which key, in which line, its value, and which values it takes."""

from __future__ import annotations

import json
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from slimnet.wording import after_question, did_you_mean
from sweeps.config.storage import without_passwords
from sweeps.config.yaml_source import KeyPath, Origin, Source, dotted

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
    "object": "keys with values",
}


def refusal(*problems: tuple[KeyPath, str]) -> ValidationError:
    """The error for a pydantic validator to raise.

    Args:
        problems: for each, the path below the validated value, and a clause that follows the key in the
            message, such as "is missing; ...".
    """
    details = [
        InitErrorDetails(
            type=PydanticCustomError("refused", "{clause}", {"clause": clause}), loc=path, input=None
        )
        for path, clause in problems
    ]
    return ValidationError.from_exception_data("config", details)


def show(value: Any) -> str:
    """A value as messages show it: text in quotes, long values truncated."""
    return cut(json.dumps(value, default=str, ensure_ascii=False))


def cut(text: str) -> str:
    """The text without passwords, truncated if it is longer than 80 characters."""
    text = without_passwords(text)
    return text if len(text) <= 80 else f"{text[:77]}..."


class Schema:
    """The JSON schema of a config model, asked by key path."""

    def __init__(self, model: type[BaseModel]) -> None:
        self._root = model.model_json_schema()

    def node(self, path: KeyPath) -> dict[str, Any] | None:
        """The schema of the field at `path`; None if there is no such field."""
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
        """Which values the field at `path` takes, as a clause."""
        node = self.node(path) or {}
        if keys := self.properties(node):
            return f"takes the keys {', '.join(keys)}."
        description = f" ({node['description']})" if "description" in node else ""
        return f"takes {describe(node)}{description}."

    def meant(self, path: tuple[str, ...]) -> list[tuple[str, ...]]:
        """The known keys that an unknown one may be a misspelling of: in its section, else elsewhere."""
        known = self.paths()
        siblings = {other[-1]: other for other in known if other[:-1] == path[:-1]}
        if close := get_close_matches(path[-1], siblings, n=1):
            return [siblings[close[0]]]
        if close := get_close_matches(dotted(path), map(dotted, known), n=1, cutoff=0.8):
            return [tuple(close[0].split("."))]
        return [other for other in known if other[-1] == path[-1]]

    def unknown(self, path: tuple[str, ...]) -> str:
        """The clause for an unknown key, which suggests known ones."""
        *outer, key = path
        if outer and (self.node(tuple(outer)) or {}).get("type") == "object":  # the keys in it are no fields
            return f"cannot be set alone; give all of {dotted(tuple(outer))}: it {self.takes(tuple(outer))}"
        if "." in key and tuple(key.split(".")) in self.paths():
            section, _, inner = key.rpartition(".")
            return f"is not a known key; write `{inner}:` on a separate line under `{section}:`."
        if meant := self.meant(path):
            return f"is not a known key; did you mean {' or '.join(map(dotted, meant))}?"
        while self.node(tuple(outer)) is None:
            outer.pop()
        return f"is not a known key; {dotted(tuple(outer)) or 'a config'} {self.takes(tuple(outer))}"


def describe(node: dict[str, Any]) -> str:
    """The values that a JSON schema allows, in words."""
    match node:
        case {"anyOf": options}:
            return " or ".join(map(describe, options))
        case {"const": value}:
            return str(value)
        case {"enum": [*values, last]}:
            return f"{', '.join(map(str, values))} or {last}"
        case {"type": "array", "items": items}:
            return f"a list of {node.get('minItems', 0)} or more items, each {describe(items)}"
        case {"type": "object", "propertyNames": {"enum": keys}, "additionalProperties": values}:
            return f"one or more of the keys {', '.join(keys)}, each with {describe(values)}"
        case {"type": kind}:
            bounds = " and ".join(
                f"{words} {node[bound]:,}" for bound, words in _BOUNDS.items() if bound in node
            )
            return f"{_NAMES[kind]}, {bounds}" if bounds else _NAMES[kind]
    return "another value"


def explain(error: ValidationError, source: Source, schema: Schema) -> list[tuple[Origin, str]]:
    """A line for every mistake in `error`, with the origin of the value that it concerns."""
    details = [(detail["loc"], detail["type"], detail["msg"]) for detail in error.errors(include_url=False)]
    meant = [schema.meant(tuple(map(str, path))) for path, kind, _ in details if kind == "extra_forbidden"]
    lines: dict[str, Origin] = {}
    for path, kind, message in details:
        if kind == "default_factory_not_called" or (kind == "missing" and [path] in meant):
            continue  # a consequence of another mistake, which is reported
        if kind == "extra_forbidden":
            clause = schema.unknown(tuple(map(str, path)))
        elif kind == "refused":
            clause = message
        elif kind == "missing":
            clause = f"is missing; it {schema.takes(path)}"
        else:
            while schema.node(path) is None:  # inside a list or a union: name the field itself
                path = path[:-1]
            value = _at(source.values, path)
            question = _suggestion(value, schema.node(path) or {})
            clause = f"is {show(value)}; {after_question(question, f'it {schema.takes(path)}')}"
        lines.setdefault(f"{dotted(path)} {clause}", source.origin(path))
    return [(origin, line) for line, origin in lines.items()]


def _suggestion(value: Any, node: dict[str, Any]) -> str:
    """A question on what a wrong value, or a key or a value within it, may mean: a name that is allowed."""
    match value:
        case dict():
            values = node.get("additionalProperties")
            inner = [(key, node.get("propertyNames", {})) for key in value]
            inner += [(each, values if isinstance(values, dict) else {}) for each in value.values()]
        case list():
            inner = [(each, node) for each in value]
        case _:
            inner = [(value, node)]
    return next(filter(None, (question_of(name, names) for name, names in inner)), "")


def question_of(value: Any, node: dict[str, Any]) -> str:
    """A question on which of the names that a JSON schema allows a value may mean; empty if none is near."""
    known = _names(node)
    return did_you_mean(value, known) if isinstance(value, str) and value not in known else ""


def _names(node: dict[str, Any]) -> list[str]:
    """The names among the values that a JSON schema allows."""
    own = [node["const"]] if node.get("type") == "string" and "const" in node else node.get("enum", ())
    return [*map(str, own), *(name for option in node.get("anyOf", ()) for name in _names(option))]


def _at(values: Any, path: KeyPath) -> Any:
    for key in path:
        values = values[key]
    return values
