"""Reads a config from YAML with --set overrides, fills in a trial's values, and writes it back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from slimnet.errors import SlimnetError
from slimnet.files import user_path
from slimnet.models.catalogue import names_weights
from slimnet.wording import did_you_mean
from sweeps.config.messages import Schema, cut, explain
from sweeps.config.places import is_url
from sweeps.config.schema import Config
from sweeps.config.search import SEARCHABLE, SECTIONS, unsearchable
from sweeps.config.yaml_source import ConfigError, Source, dotted, parse_document, parse_value, to_yaml


def load_config(path: Path | str, overrides: Sequence[str] = ()) -> Config:
    """The config in a file, or the shipped one of that name, with `key=value` overrides applied in order.

    Values of overrides are YAML. A relative path (data.path, model.path, model.init, search.path) is
    relative to the file's folder, or to the working directory where an override gives it. So is the module of
    a factory or a sampler.

    Raises:
        ConfigError: with a line for each mistake in the file and the overrides.
    """
    file = _find(path)
    source = parse_document(_read(file), file.name if file != Path(path) else str(path))
    _make_paths_absolute(source, file.parent)
    source.values.setdefault("study", file.stem)
    for override in overrides:
        _apply(override, source)
    _make_paths_absolute(source, Path.cwd())
    return _validated(source)


def resolve(config: Config, params: Mapping[str, Any]) -> Config:
    """The config of one trial: `config` with `params`, values by dotted path, filled in and validated.

    Raises:
        ConfigError: a path cannot be searched, or a value does not fit.
    """
    updates: dict[str, Any] = {}
    try:
        for path, value in params.items():
            if path not in SEARCHABLE:
                raise ConfigError(f"trial: {path} {unsearchable(path)}")
            section, _, key = path.rpartition(".")
            if section:
                updates.setdefault(section, getattr(config, section).model_dump(by_alias=True))[key] = value
            else:
                updates[key] = SEARCHABLE[path].validate_python(value)
        # Only the sections that change, as a study may resolve thousands of configs, one per trial.
        for section in updates.keys() & SECTIONS.keys():
            updates[section] = SECTIONS[section].model_validate(updates[section])
    except ValidationError:
        source = Source("trial", config.model_dump(by_alias=True))
        for path, value in params.items():
            source.override(tuple(path.split(".")), value, "trial")
        return _validated(source)  # raises, with a message that explains what does not fit
    return config.model_copy(update=updates)


def dump_config(config: Config) -> str:
    """YAML text with every field of `config`; load_config reads it back to an equal one."""
    return to_yaml(config.model_dump(mode="json", by_alias=True))


def shipped_configs() -> dict[str, Path]:
    """The configs that come with the package, by name."""
    return {
        file.stem: file
        for file in sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"), key=lambda file: file.stem)
    }


@cache
def _schema() -> Schema:
    return Schema(Config)


def _validated(source: Source) -> Config:
    problems = list(source.problems)
    try:
        config = Config.model_validate(source.values)
    except ValidationError as error:
        problems += explain(error, source, _schema())
    if problems:
        problems.sort(key=lambda problem: problem[0].order)
        raise ConfigError("\n".join(f"{origin.label}: {text}" for origin, text in problems))
    return config


def _find(path: Path | str) -> Path:
    """The file at `path`, or the shipped config of that name."""
    file, shipped = Path(path), shipped_configs()
    if file.is_file():
        return file
    if file.is_dir():
        raise ConfigError(f"{path} is a folder; name the config file in it.")
    name = str(path).removesuffix(".yaml")
    if name in shipped:
        return shipped[name]
    hint = did_you_mean(Path(name).name, shipped)
    end = f"; {hint}" if hint else "."
    raise ConfigError(f"{path} is neither a file nor a shipped config ({', '.join(shipped)}){end}")


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}.") from error


def _make_paths_absolute(source: Source, folder: Path) -> None:
    def absolute(section: str, key: str, path: str) -> str:
        try:
            return str(user_path(path, folder))
        except SlimnetError as error:
            where = (section, key) if section else (key,)
            raise ConfigError(f"{source.origin(where).label}: {dotted(where)}: {error}.") from error

    stages = source.values.get("stages")
    if isinstance(stages, str) and stages and not is_url(stages):
        source.values["stages"] = absolute("", "stages", stages)
    data, model, search = (source.values.get(section) for section in ("data", "model", "search"))
    if isinstance(data, dict) and (
        isinstance(path := data.get("path"), str) or (path is None and data.get("factory"))
    ):
        data["path"] = absolute("data", "path", path or ".")
    if isinstance(model, dict):
        name = model.get("name")
        if isinstance(init := model.get("init"), str) and not names_weights(str(name), init):
            model["init"] = absolute("model", "init", init)
        if isinstance(path := model.get("path"), str) or (path is None and model.get("factory")):
            model["path"] = absolute("model", "path", path or ".")
    if isinstance(search, dict) and (
        isinstance(path := search.get("path"), str) or (path is None and ":" in str(search.get("sampler")))
    ):
        search["path"] = absolute("search", "path", path or ".")


def _apply(override: str, source: Source) -> None:
    """Put `key=value` into the values of `source`, or note there that the key is unknown."""
    label = f"--set {cut(override)}"
    key, equals, text = override.partition("=")
    if not key or not equals:
        raise ConfigError(f"{label}: write key=value, such as sparse.epochs=2.")
    path = tuple(key.strip().split("."))
    if path[:2] == ("search", "space") and len(path) > 2:
        path = ("search", "space", ".".join(path[2:]))  # the keys of a space contain dots
    elif path not in _schema().paths():
        source.problems.append((source.next_origin(label), f"{key} {_schema().unknown(path)}"))
        return
    source.override(path, parse_value(text, label), label)
