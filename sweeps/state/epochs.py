"""How many training epochs trials need that are not sampled yet."""

from __future__ import annotations

from sweeps.config import Config
from sweeps.config.space import Branch, branches, count_points

SPARSE_FIELDS = ("data", "model", "sparse", "seed", "prune.streams")  # what the first sparse stage depends on


def epochs_of_unsampled(config: Config, trials: int, sparse_stages: int) -> dict[str, float]:
    """At most how many training epochs the trials need that are not sampled yet, by kind of stage.

    Args:
        config: the study's config.
        trials: how many have been sampled.
        sparse_stages: how many different first sparse stages these have.
    """
    unsampled = max(0, config.search.trials - trials)
    fresh = min(unsampled, _sparse_points(config) - sparse_stages)
    rewound = unsampled if {"finetune.weights", "finetune.rewind_to"} & config.search.space.keys() else fresh
    most = config.lengths
    return {
        "sparse": fresh * max(one.sparse for one in most)
        + unsampled * max((one.passes - 1) * one.sparse for one in most),
        "early": rewound * max(one.early for one in most)
        + unsampled * max((one.passes - 1) * one.early for one in most),
        "finetune": unsampled * max(one.passes * one.finetune for one in most),
    }


def is_of_sparse(path: str) -> bool:
    """Whether the first sparse stage depends on a field."""
    return path in SPARSE_FIELDS or path.split(".")[0] in SPARSE_FIELDS


def _sparse_points(config: Config) -> float:
    """How many different first sparse stages the space has; infinite if it is continuous."""
    parts: list[Branch] = []
    for branch in branches(config.search.space):
        part = {path: entry for path, entry in branch.items() if is_of_sparse(path)}
        parts += [part] if part not in parts else []
    return sum(count_points(part) or float("inf") for part in parts)
