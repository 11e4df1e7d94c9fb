"""What all networks here share: the checks of their arguments, and their first weights."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from slimnet.errors import SlimnetError
from slimnet.wording import plural


def check_sizes(blocks: Sequence[int], **numbers: int) -> None:
    """Refuse stages without blocks, and numbers below 1.

    Raises:
        SlimnetError: naming the argument.
    """
    if not blocks or any(count < 1 for count in blocks):
        raise SlimnetError(f"blocks is {list(blocks)}; it needs at least one stage of at least one block")
    for name, value in numbers.items():
        if value < 1:
            raise SlimnetError(f"{name} is {value}; it is at least 1")


def check_widths(blocks: Sequence[int], widths: Sequence[int], expected: int, layout: str) -> None:
    """Refuse a list of another length, and what is no width.

    Args:
        blocks: of the network.
        widths: one for each conv.
        expected: their number.
        layout: what they stand for, in words.

    Raises:
        SlimnetError: naming the number that is wrong.
    """
    if len(widths) != expected:
        raise SlimnetError(
            f"widths has {plural(len(widths), 'number')}, but blocks {list(blocks)} need {expected}: {layout}"
        )
    for position, value in enumerate(widths):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise SlimnetError(
                f"widths[{position}] is {value!r}; every width is a whole number of at least 1"
            )


def draw_weights(model: nn.Module) -> None:
    """Draw all weights anew, as when the network was made."""
    for module in model.modules():
        draw = getattr(module, "reset_parameters", None)
        if module is not model and draw is not None:
            draw()
    initialize(model)


def initialize(model: nn.Module) -> None:
    """Draw the weights of convs as He et al. do (arXiv 1502.01852), for the gradients."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
