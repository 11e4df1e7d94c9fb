"""How pictures become the input of a network, and what its outputs mean: kept with every trained network."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

from slimnet.errors import SlimnetError

if TYPE_CHECKING:
    from torch import nn

    from slimnet.data.catalogue import Resize

NAME, OTHER_NAME = (
    "preprocessing",
    "slimnet_preprocessing",
)  # of the attribute; the latter if the first is taken


@dataclass(frozen=True)
class Preprocessing:
    """What was done with the images that a network was trained on.

    Attributes:
        size: (height, width) in pixels.
        channels: 1 for greyscale, 3 for RGB.
        mean, std: per channel, of pixels in [0, 1]: the network's input is (pixels - mean) / std.
        classes: their names, in the order of the network's outputs.
        resize: how pictures of another size are brought to `size`; see `slimnet.data.pictures.resized`.

    Example:
        >>> grey = slimnet.Preprocessing((28, 28), 1, (0.29,), (0.35,), ("shirt", "shoe"))
        >>> slimnet.Preprocessing.from_record(grey.record()) == grey
        True
    """

    size: tuple[int, int]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]
    resize: Resize = "pool"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.channels, *self.size

    def record(self) -> dict[str, Any]:
        """The fields as lists, numbers and texts, for files."""
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()
        }

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Self:
        """The inverse of `record`; fields that a newer slimnet added are left out.

        Raises:
            SlimnetError: a field is missing.
        """
        known: dict[str, Any] = {
            name: tuple(record[name]) if isinstance(record[name], list) else record[name]
            for name in cls.__dataclass_fields__
            if name in record
        }
        try:
            return cls(**known)
        except TypeError as error:
            raise SlimnetError(f"a preprocessing is incomplete: {error}; save the network again") from error


def attach(model: nn.Module, preprocessing: Preprocessing) -> None:
    """Make it `model.preprocessing`; copies and pruned networks inherit it, and `slimnet.save` writes it.

    A network that has something else of that name keeps it: `preprocessing_of` then finds this elsewhere.
    """
    own = getattr(model, NAME, None)
    taken = own is not None and not isinstance(own, Preprocessing)
    object.__setattr__(model, OTHER_NAME if taken else NAME, preprocessing)


def preprocessing_of(model: nn.Module) -> Preprocessing | None:
    """The preprocessing that a network was trained with; None if that is not known."""
    found = (getattr(model, name, None) for name in (NAME, OTHER_NAME))
    return next((value for value in found if isinstance(value, Preprocessing)), None)
