"""The commands that work on one network have the defaults of a sweep's config."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel

from slimnet.cli.finetune import finetune_command
from slimnet.cli.prune import prune_command
from slimnet.cli.train import train_command
from sweeps.config.data import Data
from sweeps.config.sections import Finetune, Prune, Sparse

OTHERS = {"recalibrate", "ratio"}  # docs/training.md names the first; the command has no ratio of its own


@pytest.mark.parametrize(
    ("command", "section", "some"),
    [
        (train_command, Sparse, {"epochs", "lr", "penalty", "lambda_schedule", "target", "optimizer"}),
        (train_command, Data, {"validation", "mean", "std", "image_size"}),
        (prune_command, Prune, {"score", "layer_floor", "min_channels", "max_ratio", "streams", "absorb"}),
        (finetune_command, Finetune, {"epochs", "lr", "weights", "batch_size", "schedule"}),
    ],
)
def test_commands_share_the_defaults_of_a_config(
    command: Callable[..., None], section: type[BaseModel], some: set[str]
) -> None:
    found = inspect.signature(command).parameters
    own: dict[str, Any] = {name: field.default for name, field in section.model_fields.items()}
    shared = {name for name in own if name in found and found[name].default is not None} | some
    given = {name: found[name].default for name in shared - OTHERS}
    assert given == {name: own[name] for name in given}
