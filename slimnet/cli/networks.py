"""Networks as the commands take them: by name or factory, and from a file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from torch import nn

from slimnet.checkpoint import Checkpoint, build, read
from slimnet.defaults import BLOCKS, WIDTH
from slimnet.errors import SlimnetError
from slimnet.models.building import build_network
from slimnet.models.catalogue import (
    LIBRARIES,
    NAMES,
    SIZES,
    SPELLINGS,
    WIDTHS,
    WITH_STEM,
    family_of,
    is_of_library,
    suggestion,
)
from slimnet.models.stems import Stem
from slimnet.models.weights import give_weights, is_plain_weights, read_weights
from slimnet.wording import after_question


def describe_network(
    name: str,
    blocks: Sequence[int] | None = None,
    width: int | None = None,
    stem: Stem | None = None,
    args: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The description of a network (see `slimnet.models.building`) from --model and the options beside it."""
    if name not in WIDTHS and (blocks or width):
        raise SlimnetError(f"--blocks and --width are of {', '.join(WIDTHS)}; {name} has its own")
    family = family_of(name)
    if stem and family not in WITH_STEM:
        raise SlimnetError(f"--stem is of ResNets and MobileNets; {name} has its own first layers")
    if ":" in name:
        return {"factory": name, "args": dict(args or {})}
    if is_of_library(name):
        return {"name": name, "args": dict(args or {})}
    if name not in NAMES:
        takes = f"it is {SPELLINGS} or MODULE:FACTORY"
        raise SlimnetError(f"--model is {name}; {after_question(suggestion(name), takes)}")
    if args:
        raise SlimnetError(
            f"--arg is for factories and networks of {' and '.join(LIBRARIES)}, not for {name}"
        )
    if stem is None and name == "resnet50":
        stem = "cifar-maxpool"
    if name in SIZES:
        _, stages, channels = SIZES[name]
    else:
        stages, channels = tuple(blocks or BLOCKS), width or (WIDTHS[name] if blocks else WIDTH)
    return {"name": family, "blocks": list(stages), "width": channels, **({"stem": stem} if stem else {})}


def parse_args(texts: Sequence[str], option: str = "--arg") -> dict[str, Any]:
    """The arguments in options --arg NAME=VALUE; values are YAML, as in a sweep's config."""
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise SlimnetError(f"{option} {text}: write NAME=VALUE, such as width=16")
        try:
            found[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise SlimnetError(
                f"{option} {text}: the value is no YAML; quote it, as in {name}='\"{value}\"'"
            ) from None
        if not _is_json(found[name]):
            kind = type(found[name]).__name__
            raise SlimnetError(
                f"{option} {text}: the value is a {kind} that JSON does not have; for a text quote it, as in "
                f"{name}='\"{value}\"'"
            )
    return found


def _is_json(value: Any) -> bool:
    """Whether files can hold a value; YAML has dates, sets, bytes and keys of all kinds besides."""
    try:
        return bool(json.loads(json.dumps(value)) == value)
    except TypeError:
        return False


def open_network(path: Path, name: str | None, args: Mapping[str, Any]) -> tuple[nn.Module, Checkpoint]:
    """The network in a finished file, and everything else that the file holds.

    Args:
        path: a file of slimnet, or with `name` one of trained weights alone.
        name: of --model: what makes the network, where the file does not say so or its code is the user's.
        args: of its factory, besides those that the file names.

    Raises:
        SlimnetError: the file cannot be read, does not say what makes its network, or holds another network.
    """
    if name is not None and is_plain_weights(path):
        description = describe_network(name, args=args)
        model = build_network(description, folder=Path.cwd())
        give_weights(model, description, str(path), None)
        return model.eval(), Checkpoint(None, {}, read_weights(path), {}, {}, {})
    saved = read(path)
    if "optimizer" in saved.training:
        done = len(saved.training.get("history", []))
        raise SlimnetError(f"{path} is a training in progress, after epoch {done}; let it finish first")
    if name is None and (saved.architecture is None or "factory" in saved.architecture):
        made_by = (saved.architecture or {}).get("factory") or saved.config.get("model", "MODULE:FACTORY")
        raise SlimnetError(f"{path} holds a network of your own; say what makes it with --model {made_by}")
    if name is None or (saved.architecture is not None and ":" not in name):
        return build(saved, source=str(path)), saved
    recorded = (saved.architecture or {}).get("args", {})
    description = describe_network(name, args={**recorded, **args})
    return build(saved, build_network(description, folder=Path.cwd()), source=str(path)), saved
