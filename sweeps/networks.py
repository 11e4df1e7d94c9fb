"""What the networks of a study are made of, beside their names: found out when it begins, and then fixed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from pathlib import Path
from typing import Any

from slimnet.errors import SlimnetError
from slimnet.files import content_hash
from slimnet.models.catalogue import names_weights
from slimnet.models.source import source_hash
from sweeps.config import Config, resolve
from sweeps.config.model import Model, Network
from sweeps.config.space import Branch, branches


@dataclass(frozen=True)
class Made:
    """What a network is made of; the fields are those of `sweeps.stages.spec.ModelSpec`."""

    source: str | None = None
    structure: str | None = None
    weights: str | None = None


Networks = Mapping[str, Made]
"""What is known of networks that are not slimnet's own, or start from trained weights, by `name_of`."""


def name_of(network: Network) -> str:
    """A text that tells the networks of a study apart."""
    return json.dumps(network.description(), sort_keys=True)


def read_off(model: Model) -> Made:
    """What a network is made of, as far as it can be known without making it.

    Raises:
        SlimnetError: the source of a factory or the file of weights cannot be found.
    """
    weights = None
    if model.init is not None:
        named = names_weights(model.name, model.init)
        weights = model.init if named else f"sha256:{content_hash(Path(model.init))}"
    return Made(source=_source(model), weights=weights)


def make_networks(
    config: Config, image_shape: Sequence[int], num_classes: int, on_note: Callable[[str], None]
) -> dict[str, Made]:
    """Make every network that the trials of a study may have, check it on the data, and say what is in it.

    Slimnet's own families with new weights need no check, and are left out. The code of a factory is run, so
    that a driver has this called in another process.

    Args:
        config: of the study.
        image_shape: (C, H, W) of the data.
        num_classes: of the data.
        on_note: told, in a sentence, which layers did not get their weights from `model.init`.

    Raises:
        SlimnetError: as `slimnet.networks.new_network`, and as `read_off`.
    """
    made: dict[str, Made] = {}
    for model in _models(config):
        if (name := name_of(model)) not in made:
            made[name] = _make(model, image_shape, num_classes, on_note)
    return made


def _make(model: Model, image_shape: Sequence[int], num_classes: int, on_note: Callable[[str], None]) -> Made:
    from slimnet.models.weights import published_source
    from slimnet.networks import new_network, structure

    made, description = read_off(model), model.description()
    network = new_network(
        description, image_shape, num_classes, folder=model.path, init=model.init, on_note=on_note
    )
    if model.family is None:
        made = replace(made, structure=structure(network))
    if model.init is not None and names_weights(model.name, model.init):
        made = replace(made, weights=published_source(description, model.init))
    return made


def check_networks(config: Config, networks: Networks, made: Networks | None = None) -> None:
    """Check that the code and weights are those that the study began with.

    Args:
        config: of the study.
        networks: as `make_networks` found them then.
        made: as it finds them now; where not given, source and files are compared and no network is made.

    Raises:
        SlimnetError: they have changed, or cannot be found.
    """
    for model in _models(config):
        before = networks.get(name_of(model))
        if before is None:
            continue
        now = (made or {}).get(name_of(model)) or read_off(model)
        other = "give this one another name (--set study=NAME)"
        if now.source != before.source:
            changed = (
                f"the source of {model.factory} has been edited"
                if model.factory
                else f"{before.source} has become {now.source}"
            )
            raise SlimnetError(
                f"{changed} since the study {config.study} began, so that further trials would be of another "
                f"network; {other}, or undo that"
            )
        if made is not None and now.structure != before.structure:
            raise SlimnetError(
                f"{model.label} has other layers than when the study {config.study} began; {other}, or undo "
                "that"
            )
        named = model.init is None or names_weights(model.name, model.init)
        if not named and now.weights != before.weights:
            raise SlimnetError(
                f"the weights in {model.init} have changed since the study {config.study} began; {other}"
            )


def check_factories(config: Config, networks: Networks) -> None:
    """Check that no factory was edited since the study began; a library may have been updated.

    Raises:
        SlimnetError: one was, or cannot be found.
    """
    for model in _models(config):
        before = networks.get(name_of(model))
        if model.factory and before is not None and read_off(model).source != before.source:
            raise SlimnetError(
                f"the source of {model.factory} has been edited since the study {config.study} began, so its "
                "networks may compute something else now; undo that, or leave out --no-check to see whether "
                "they score the same"
            )


def needs_making(config: Config) -> bool:
    """Whether the study has networks that are not slimnet's own, or start from trained weights."""
    return next(_models(config), None) is not None


def _models(config: Config) -> Iterator[Model]:
    """The networks of the search space that are not slimnet's own with new weights."""
    for branch in branches(config.search.space):
        yield from _models_in(config, branch)


def _models_in(config: Config, branch: Branch) -> Iterator[Model]:
    searched = {path: entry for path, entry in branch.items() if path.startswith("model.")}
    values = [entry.values() for entry in searched.values()]
    if None in values:
        if config.model.init is None and config.model.family is not None:
            return  # widths without end, of a family that needs no check
        raise SlimnetError(
            f"{', '.join(searched)} has endlessly many values, each of which is another network; list choices"
        )
    for choice in product(*(each for each in values if each is not None)):
        model = resolve(config, dict(zip(searched, choice, strict=True))).model
        if model.family is None or model.init is not None:
            yield model


def _source(model: Model) -> str | None:
    if model.factory is not None:
        return source_hash(model.factory, model.path)
    if model.family is not None:
        return None
    library = str(model.name).partition("/")[0]
    try:
        return f"{library} {version(library).partition('+')[0]}"
    except PackageNotFoundError:
        raise SlimnetError(
            f"{model.name} needs the package timm: pip install timm"
            if library == "timm"
            else f"{model.name} needs the package {library}, which is not installed"
        ) from None


def networks_from(content: Mapping[str, Mapping[str, Any]]) -> dict[str, Made]:
    """What study.json holds of the networks."""
    return {name: Made(**fields) for name, fields in content.items()}
