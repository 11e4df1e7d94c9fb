"""A network to begin with: made from its description, with first weights, and checked against the data."""

from __future__ import annotations

import copy
import hashlib
import json
import operator
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from slimnet.errors import SlimnetError
from slimnet.models.building import Description, architecture_of, build_network
from slimnet.models.catalogue import label_of
from slimnet.models.stand_ins import Constant
from slimnet.models.weights import give_weights
from slimnet.modes import evaluating
from slimnet.seeds import derive_seed
from slimnet.wording import first_line


def new_network(
    description: Description,
    image_shape: Sequence[int],
    num_classes: int,
    *,
    seed: int = 0,
    folder: Path | None = None,
    init: str | None = None,
    on_note: Callable[[str], None] = lambda text: None,
) -> nn.Module:
    """Make a network for a data set, and check that it can be trained on it.

    Args:
        description: what network; see `slimnet.models.building`. The code of a factory is run.
        image_shape: (C, H, W) of the images.
        num_classes: of the data.
        seed: of the experiment; it draws the first weights.
        folder: where a factory's module is looked for first, before the places where Python finds modules.
        init: trained weights to start from: a file, or a name; see `slimnet.models.weights.give_weights`.
        on_note: told, in a sentence, which layers did not get their weights from `init`.

    Returns:
        The network, on the CPU. It carries its description as `architecture`.

    Raises:
        SlimnetError: it cannot be made, the weights do not fit, or the images cannot go through it.

    Example:
        >>> model = new_network({"name": "vgg", "blocks": [1], "width": 4}, (1, 28, 28), 10)
        >>> model(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    def make() -> nn.Module:
        return build_network(description, num_classes=num_classes, in_channels=image_shape[0], folder=folder)

    model, label = fresh(make, seed=seed), label_of(description)
    outputs = check_fit(model, image_shape, num_classes, label)
    _check_training(model, image_shape, num_classes, label)
    if init is not None and (note := give_weights(model, description, init, outputs)):
        on_note(note)
    return model


def fresh(make: Callable[[], nn.Module], *, seed: int) -> nn.Module:
    """A new network from `make`, its weights drawn by the seed."""
    torch.manual_seed(derive_seed(seed, "sparse", "weights"))
    return make()


def redraw(model: nn.Module, *, seed: int) -> nn.Module:
    """The same network with new weights, as if it had been made at these widths.

    A network says how it draws its weights in a method `reset_parameters`, as torch's layers do. Without one
    it is made again by its `architecture`, and the new weights are cut to the shapes that it has now. Without
    that either, each of its parts draws for itself, those within a part before the part.

    Args:
        model: left as it was.
        seed: of the experiment.

    Raises:
        SlimnetError: a layer with parameters of its own has no `reset_parameters`, naming it.
    """
    torch.manual_seed(derive_seed(seed, "redraw", "weights"))
    drawn = copy.deepcopy(model)
    if (draw := getattr(drawn, "reset_parameters", None)) is not None:  # which speaks for all of its layers
        draw()
    elif architecture := architecture_of(drawn):
        _cut_from(build_network(architecture).state_dict(), drawn)
    else:
        _redraw_parts(drawn, "")
    return drawn


@torch.no_grad()
def _cut_from(whole: dict[str, Tensor], model: nn.Module) -> None:
    """Fill a network with the first entries of the tensors of the one that it was pruned from."""
    for name, tensor in model.state_dict().items():
        layer, _, part = name.rpartition(".")
        fresh = whole.get(name)
        if fresh is None:
            if part == "bias" or isinstance(model.get_submodule(layer), Constant):
                tensor.zero_()  # absorption has added the bias, and a dropped block left the constant
        elif tensor.dim() == fresh.dim() and all(map(operator.le, tensor.shape, fresh.shape)):
            tensor.copy_(fresh[tuple(map(slice, tensor.shape))])
        else:
            raise SlimnetError(
                f"the {part} of {layer} cannot be drawn anew at the shape {tuple(tensor.shape)}"
            )


def _redraw_parts(module: nn.Module, name: str, spoken_for: bool = False) -> None:
    """Draw the weights of a module and those within it, which a part around them may draw once more."""
    draw = getattr(module, "reset_parameters", None)
    spoken_for = spoken_for or draw is not None
    for child_name, child in module.named_children():
        _redraw_parts(child, f"{name}.{child_name}".lstrip("."), spoken_for)
    if draw is not None:
        draw()
    elif not spoken_for and next(module.parameters(recurse=False), None) is not None:
        kind = f"{name or 'the network'} ({type(module).__name__})"
        raise SlimnetError(f"{kind} cannot draw its weights anew: give it a method reset_parameters()")


def check_fit(model: nn.Module, image_shape: Sequence[int], num_classes: int, what: str) -> int:
    """Refuse a network that does not take these images, or has too few outputs for their classes.

    Args:
        model: left as it was.
        image_shape: (C, H, W).
        num_classes: of the data.
        what: the network, in the message.

    Returns:
        How many outputs it has.

    Raises:
        SlimnetError: as said.
    """
    with torch.inference_mode(), evaluating(model):
        return _check_output(model, image_shape, num_classes, what, images=1)


def _check_training(model: nn.Module, image_shape: Sequence[int], num_classes: int, what: str) -> None:
    """The same in training mode, in which some networks return more than one output."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        _check_output(
            copy.deepcopy(model).train(), image_shape, num_classes, f"{what}, while training,", images=2
        )


def _check_output(
    model: nn.Module, image_shape: Sequence[int], num_classes: int, what: str, *, images: int
) -> int:
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    shape = "x".join(map(str, image_shape))
    try:
        output = model(torch.zeros(images, *image_shape, device=device))
    except Exception as error:  # whatever a forward may raise
        first = first_line(error)
        raise SlimnetError(f"{what} does not take images of {shape}: {first}") from error
    if not isinstance(output, Tensor) or output.dim() != 2 or output.shape[1] < num_classes:
        found = (
            f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else f"type {type(output).__name__}"
        )
        raise SlimnetError(
            f"{what} returns an output of {found} for {'one image' if images == 1 else 'two images'}; the "
            f"data need ({images}, {num_classes}), a number per class"
        )
    return output.shape[1]


def structure(model: nn.Module) -> str:
    """A hash of the names, shapes and types of a network's parameters and buffers."""
    entries = [[name, list(value.shape), str(value.dtype)] for name, value in model.state_dict().items()]
    return f"sha256:{hashlib.sha256(json.dumps(entries).encode()).hexdigest()}"
