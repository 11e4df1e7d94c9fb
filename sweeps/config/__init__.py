"""The config of a study: schema, search space, reading and writing."""

from sweeps.config.loading import dump_config, load_config, resolve, shipped_configs
from sweeps.config.schema import Config, Lengths
from sweeps.config.search import MEASURED, Search
from sweeps.config.yaml_source import ConfigError

__all__ = [
    "MEASURED",
    "Config",
    "ConfigError",
    "Lengths",
    "Search",
    "dump_config",
    "load_config",
    "resolve",
    "shipped_configs",
]
