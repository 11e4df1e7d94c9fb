"""config.yaml in a study's folder: the config that the study was last run with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slimnet.models.catalogue import names_weights
from sweeps.config import Config, ConfigError, dump_config, load_config
from sweeps.files import write_text

FREE_TO_CHANGE = {  # fields that affect no results, or only of later trials, or are fixed in study.json
    "search.trials",
    "search.stopping",
    "controls",
    "confirm",
    "curves",
    "latency",
    "workers",
    "threads",
    "executor",
    "retries",
    "stall_minutes",
    "device",
    "stages",
    "wandb",
    "storage",
    "precision",
    "data.path",
    "model.path",
    "search.path",
}


def keep_config(folder: Path, config: Config) -> None:
    """Write the config into the study's folder."""
    write_text(folder / "config.yaml", dump_config(config))


def kept_config(folder: Path) -> Config:
    """The config that the study in `folder` was last run with.

    Raises:
        ConfigError: the file is missing or damaged.
    """
    try:
        return load_config(folder / "config.yaml")
    except ConfigError as error:
        raise ConfigError(
            f"{error}\nThe file was written by `run`; fix it, or delete it and the next `run` writes it."
        ) from error


def check_config(folder: Path, config: Config) -> Config:
    """Check that a config fits the study in `folder`, if there is one.

    Returns:
        The config, with searched fields, objectives and constraints in the order that they had then:
        the points that a sampler draws depend on it.

    Raises:
        ConfigError: it differs from the study's config in a field that affects results.
    """
    if not (folder / "config.yaml").exists():
        return config
    kept = kept_config(folder)
    before, now = _flat(kept), _flat(config)
    changes = [
        f"{key} was {before.get(key)}, is {now.get(key)}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]
    if changes:
        raise ConfigError(
            f"the study {config.study} began with another config: {'; '.join(changes)}. "
            f"Give this one another name (--set study=NAME), or move {folder} away"
        )
    ordered = {name: getattr(kept.search, name) for name in ("space", "objectives", "constraints")}
    return config.model_copy(update={"search": config.search.model_copy(update=ordered)})


def _flat(config: Config) -> dict[str, Any]:
    """The fields that may not change, by dotted path."""
    flat: dict[str, Any] = {}
    for section, value in config.model_dump(mode="json", by_alias=True).items():
        fields = {f"{section}.{key}": item for key, item in value.items()} if isinstance(value, dict) else {}
        flat |= fields or {section: value}
    if config.model.init is not None and not names_weights(config.model.name, config.model.init):
        flat["model.init"] = "a file"  # of which the content counts
    return {key: value for key, value in flat.items() if not {key, key.split(".")[0]} & FREE_TO_CHANGE}
