"""The samplers of Optuna that a config names, and those of the user's."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import (
    BaseSampler,
    GPSampler,
    NSGAIIISampler,
    NSGAIISampler,
    RandomSampler,
    TPESampler,
)

from slimnet.errors import SlimnetError
from slimnet.models.factory import call, import_factory
from sweeps.config import Search

SAMPLERS: dict[str, Callable[..., BaseSampler]] = {
    "tpe": TPESampler,
    "nsga2": NSGAIISampler,
    "nsga3": NSGAIIISampler,
    "gp": GPSampler,
    "random": RandomSampler,
}
"""Optuna's, by the names that a config has for them. A grid needs none."""


def make_sampler(search: Search, seed: int) -> BaseSampler:
    """A new sampler, as `search` describes it.

    Args:
        search: its `sampler` is no grid.
        seed: of the sampler's random numbers.

    Raises:
        SlimnetError: it cannot be made: a package is missing, an argument is wrong, or the user's code fails.
    """
    name = search.sampler
    if name == "gp" and find_spec("scipy") is None:
        raise SlimnetError("search.sampler gp needs the package scipy: pip install scipy")
    function = SAMPLERS.get(name) or import_factory(name, search.path)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        sampler: Any = call(f"the sampler {name}", function, {"seed": seed, **search.args}, "in search.args")
    if not isinstance(sampler, BaseSampler):
        raise SlimnetError(f"{name} returns a {type(sampler).__name__}; a sampler of Optuna is needed")
    return sampler
