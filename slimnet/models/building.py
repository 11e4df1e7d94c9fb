"""The one function that makes a network from its description, whoever wrote the network.

A description is a dict of primitives, and takes one of these forms:

    {"name": "resnet", "blocks": [1, 1], "width": 16}               a family of this package
    {"name": "torchvision/mobilenet_v2", "args": {"dropout": 0.1}}
    {"name": "timm/repvgg_a0", "args": {}}
    {"factory": "package.module:function", "args": {"depth": 3}}    one's own

A complete one, with the number of classes and channels, is what a network carries as `architecture`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from slimnet.errors import SlimnetError
from slimnet.models.factory import accepted, call, import_factory
from slimnet.models.families import FAMILIES
from slimnet.wording import did_you_mean, first_line

Description = Mapping[str, Any]
NAME, OTHER_NAME = (
    "architecture",
    "slimnet_architecture",
)  # of the attribute; the latter if the first is taken


def build_network(
    description: Description,
    *,
    num_classes: int | None = None,
    in_channels: int | None = None,
    folder: Path | None = None,
) -> nn.Module:
    """Make a network, which then carries its complete description as `architecture`.

    Args:
        description: see the module's documentation. The code of a factory is run.
        num_classes, in_channels: of the data; passed on where the network takes them and the description does
            not set them.
        folder: where a factory's module is looked for first, before the places where Python finds modules.

    Raises:
        SlimnetError: there is no such network, it takes other arguments, or its code fails.

    Example:
        >>> model = build_network({"name": "vgg", "blocks": [1, 1], "width": 8}, num_classes=3)
        >>> model.architecture["widths"], model.architecture["num_classes"]
        ([8, 16], 3)
    """
    wanted = {"num_classes": num_classes, "in_channels": in_channels}
    given = {name: value for name, value in wanted.items() if value is not None}
    if "factory" in description:
        return _own(description["factory"], description.get("args") or {}, given, folder)
    name = description.get("name")
    if name in FAMILIES:
        return FAMILIES[name](**{**given, **{k: v for k, v in description.items() if k != "name"}})
    library, _, inner = str(name).partition("/")
    if library == "torchvision" and inner:
        return _of_torchvision(inner, description.get("args") or {}, given)
    if library == "timm" and inner:
        return _of_timm(inner, description.get("args") or {}, given)
    raise SlimnetError(f"the network {name} is one that this slimnet does not know; upgrade slimnet")


def _own(factory: str, args: Mapping[str, Any], given: dict[str, Any], folder: Path | None) -> nn.Module:
    function = import_factory(factory, folder)
    complete = {**accepted(function, given), **args}
    where = "in model.args of a config, or with --arg NAME=VALUE on the command line"
    model = call(factory, function, complete, where)
    if not isinstance(model, nn.Module):
        raise SlimnetError(f"{factory} returns a {type(model).__name__}; a torch.nn.Module is needed")
    return describe(model, {"factory": factory, "args": complete})


def _of_torchvision(name: str, args: Mapping[str, Any], given: dict[str, Any]) -> nn.Module:
    from torchvision import models

    label = f"torchvision/{name}"
    if "weights" in args:
        raise SlimnetError(f"{label} takes trained weights by init, not by args: init: {args['weights']}")
    if name not in (known := models.list_models()):
        raise _unknown(label, "torchvision", name, known)
    complete = {**given, **args}
    passed = {key: value for key, value in complete.items() if key != "in_channels"}
    untrained = accepted(models.get_model_builder(name), {"weights_backbone": None})  # by default trained
    try:
        model = models.get_model(name, weights=None, **{**untrained, **passed})
    except Exception as error:
        raise SlimnetError(f"{label} cannot be made with {_spelled(passed)}: {first_line(error)}") from error
    if complete.get("in_channels", 3) != 3:
        _take_channels(model, complete["in_channels"])
    return describe(model, {"name": label, "args": complete})


def _take_channels(model: nn.Module, count: int) -> None:
    """Let the first conv take images of so many channels instead of 3; each gets the weights of one."""
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            weight = layer.weight.detach()[:, torch.arange(count) % layer.in_channels]
            layer.in_channels, layer.weight = count, nn.Parameter(weight.clone())
            return


def _of_timm(name: str, args: Mapping[str, Any], given: dict[str, Any]) -> nn.Module:
    label = f"timm/{name}"
    if "pretrained" in args:
        raise SlimnetError(f"{label} takes trained weights by init, not by args: init: pretrained")
    timm = import_timm(label)
    if not timm.is_model(name):
        raise _unknown(label, "timm", name, timm.list_models())
    named = {"num_classes": "num_classes", "in_channels": "in_chans"}
    complete = {**{named[key]: value for key, value in given.items()}, **args}
    try:
        model: nn.Module = timm.create_model(name, pretrained=False, **complete)
    except Exception as error:
        raise SlimnetError(
            f"{label} cannot be made with {_spelled(complete)}: {first_line(error)}"
        ) from error
    return describe(model, {"name": label, "args": complete})


def import_timm(label: str) -> Any:
    """The package timm.

    Raises:
        SlimnetError: it is not installed.
    """
    try:
        import timm
    except ImportError as error:
        raise SlimnetError(f"{label} needs the package timm: pip install timm") from error
    return timm


def architecture_of(model: nn.Module) -> dict[str, Any] | None:
    """The complete description that a network carries; None for one that slimnet did not make."""
    for name in (OTHER_NAME, NAME):
        value = getattr(model, name, None)
        if isinstance(value, dict) and ("name" in value or "factory" in value):
            return value
    return None


def describe(model: nn.Module, architecture: Mapping[str, Any]) -> nn.Module:
    """Give a network its complete description."""
    setattr(model, OTHER_NAME if hasattr(model, NAME) else NAME, dict(architecture))
    return model


def _unknown(label: str, library: str, name: str, known: list[str]) -> SlimnetError:
    hint = did_you_mean(name, known, most=3, prefix=f"{library}/")
    more = f"; {hint}" if hint else f": {label} is not known"
    return SlimnetError(f"{library} has no network {name}{more}")


def _spelled(args: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in args.items()) or "no arguments"
