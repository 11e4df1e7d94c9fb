"""Reads a config's YAML, remembering the line of every key, and writes it back.

Scalars follow YAML 1.2: `1e-5` is a number, only `true` and `false` are booleans, `on` and `1:30` are text.
Tags, anchors and aliases are refused: the config holds exactly what the file says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import yaml

from slimnet.errors import SlimnetError

KeyPath = tuple[str | int, ...]

_SCALARS = (  # tag, pattern, the characters that a match may begin with; infinities and NaN stay text
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]{1,1000}", list("-+0123456789")),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", list("-+.0123456789")),
)


class ConfigError(SlimnetError):
    """A config that cannot be used. The message has a line for every problem found."""


class Origin(NamedTuple):
    """Where a value was written: `label` is file:line or --set key=value, `order` sorts problems by it."""

    order: int
    label: str


@dataclass
class Source:
    """A config's plain values and the origin of every key in them.

    `problems` are mistakes that leave the values readable, such as a key given twice.
    """

    name: str
    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[KeyPath, Origin] = field(default_factory=dict)
    problems: list[tuple[Origin, str]] = field(default_factory=list)

    def origin(self, path: KeyPath) -> Origin:
        """Where `path` was written, or the nearest section around it that was."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.origins:
                return self.origins[path[:end]]
        return Origin(0, self.name)

    def override(self, path: tuple[str, ...], value: Any, label: str) -> None:
        """Put `value` at `path`, replacing what the file says there and below."""
        *sections, key = path
        target = self.values
        for section in sections:
            if not isinstance(target.get(section), dict):
                target[section] = {}
            target = target[section]
        target[key] = value
        self.origins = {known: origin for known, origin in self.origins.items() if known[: len(path)] != path}
        self.origins[path] = self.next_origin(label)

    def next_origin(self, label: str) -> Origin:
        """An origin that comes after everything written so far."""
        return Origin(1 + max((origin.order for origin in self.origins.values()), default=0), label)


def dotted(path: KeyPath) -> str:
    """The path as it is written in messages and in --set."""
    return ".".join(map(str, path))


def parse_document(text: bytes, name: str) -> Source:
    """The config in the bytes of a file.

    Args:
        text: the bytes.
        name: of the file, for messages.

    Raises:
        ConfigError: it is not UTF-8, not YAML, empty, or not a mapping.
    """
    node = _compose(_decode(text, name), lambda line: f"{name}:{line}")
    if not isinstance(node, yaml.MappingNode):
        what = "is empty" if node is None else "does not hold `key: value` lines at its top level"
        raise ConfigError(f"{name} {what}; a config starts with sections such as `data:` and `model:`.")
    source = Source(name)
    source.values = _value(node, (), source)
    return source


def parse_value(text: str, label: str) -> Any:
    """The value of an override, read as YAML.

    Raises:
        ConfigError: it is not valid YAML; the message begins with `label`.
    """
    node = _compose(text, lambda line: label)
    scratch = Source(label)
    value = None if node is None else _value(node, (), scratch)
    if scratch.problems:
        raise ConfigError("\n".join(f"{label}: {problem}" for _, problem in scratch.problems))
    return value


def to_yaml(values: Mapping[str, Any]) -> str:
    """YAML text that `parse_document` reads back to `values`."""
    text: str = yaml.dump(
        dict(values), Dumper=_Dumper, sort_keys=False, default_flow_style=None, allow_unicode=True, width=110
    )
    return text


def _decode(text: bytes, name: str) -> str:
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{name}:{line}: byte 0x{text[error.start]:02x} is not UTF-8; save the file as UTF-8."
        ) from None


def _compose(text: str, locate: Callable[[int], str]) -> yaml.Node | None:
    """The node tree of the only document in `text`; syntax errors become ConfigErrors.

    `locate` names a line, counted from 1, in messages.
    """
    try:
        node: yaml.Node | None = _Loader(text).get_single_node()
    except yaml.reader.ReaderError as error:
        where = locate(text.count("\n", 0, error.position) + 1)
        character = ascii(text[error.position])
        raise ConfigError(f"{where}: character {character} is not allowed in YAML; remove it.") from None
    except yaml.MarkedYAMLError as error:
        where = locate(error.problem_mark.line + 1 if error.problem_mark else 1)
        problem = ", ".join(part for part in (error.context, error.problem) if part)
        hint = "; indent with spaces" if "'\\t'" in problem else ""
        hint = (
            '; put a text that begins with > in quotes, such as ">= 0.85"'
            if "found '='" in problem or "character '>'" in problem
            else hint
        )
        raise ConfigError(f"{where}: not valid YAML: {problem}{hint}.") from None
    except RecursionError:
        raise ConfigError(f"{locate(1)}: nested too deeply to be a config.") from None
    return node


def _value(node: yaml.Node, path: KeyPath, source: Source) -> Any:
    """The plain value of a node; adds to `source` the origins of its keys, and keys that are given twice."""
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*path, index), source) for index, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        return {key: _value(child, (*path, key), source) for key, child in _entries(node, path, source)}
    return _scalar(node.tag, node.value)


def _entries(node: yaml.MappingNode, path: KeyPath, source: Source) -> Iterator[tuple[str, yaml.Node]]:
    for key_node, child in node.value:
        key, line = str(key_node.value), key_node.start_mark.line + 1
        origin = Origin(line, f"{source.name}:{line}")
        if not isinstance(key_node, yaml.ScalarNode):
            source.problems.append((origin, "a key is a plain name, not a list or a mapping."))
            continue
        if (first := source.origins.get((*path, key))) is not None:
            lines = f", on lines {first.order} and {line}" if first.order != line else ""
            source.problems.append((origin, f"{dotted((*path, key))} is given twice{lines}; keep one."))
            continue
        source.origins[(*path, key)] = origin
        yield key, child


def _scalar(tag: str, text: str) -> Any:
    match tag.rpartition(":")[2]:
        case "null":
            return None
        case "bool":
            return text.lower() == "true"
        case "int":
            return int(text)
        case "float":
            return float(text)
        case _:
            return text


def _resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    """PyYAML's table of plain scalars, by first character, for YAML 1.2 instead of its own 1.1."""
    table: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    for tag, pattern, starts in _SCALARS:
        for start in starts:
            table.setdefault(start, []).append((f"tag:yaml.org,2002:{tag}", re.compile(rf"(?:{pattern})\Z")))
    return table


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = _resolvers()

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if event.anchor or getattr(event, "tag", None):
            problem = (
                "anchors (&), aliases (*) and tags (!) are not supported; write the value itself, or quote it"
            )
            raise yaml.composer.ComposerError(problem=problem, problem_mark=event.start_mark)
        return super().compose_node(parent, index)


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers = _resolvers()

    def ignore_aliases(self, data: Any) -> bool:
        return True
