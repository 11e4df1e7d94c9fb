"""The input that a network is run on: a tensor, a tuple of arguments, or a dict of keyword arguments."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from slimnet.errors import SlimnetError
from slimnet.graph.record import substitute


@dataclass(frozen=True)
class Example:
    """What an input looks like.

    Attributes:
        content: the input, with a tensor without contents for each of its tensors.
    """

    content: Any = field(repr=False)

    @classmethod
    def of(cls, example_input: Any) -> Example:
        """Of an input.

        Raises:
            SlimnetError: it holds no tensor, or is none of the three.
        """
        if not isinstance(example_input, Tensor | tuple | list | dict) or not _tensors(example_input):
            found = type(example_input).__name__
            raise SlimnetError(
                f"the example input is a {found}; it is a tensor (N, C, ...), a tuple of arguments or a dict "
                "of keyword arguments"
            )
        return cls(substitute(example_input, lambda tensor: torch.empty_like(tensor, device="meta")))

    def arguments(self, example_input: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What a model is called with; copies, as it may write into them."""
        if isinstance(example_input, dict):
            return (), {key: copy.deepcopy(value) for key, value in example_input.items()}
        if isinstance(example_input, tuple):
            return tuple(copy.deepcopy(value) for value in example_input), {}
        if isinstance(example_input, Tensor):
            return (example_input.clone(),), {}
        return (copy.deepcopy(example_input),), {}

    def zeros(self, like: Tensor) -> Any:
        """An input of zeros on the device of a tensor, and of its dtype where it is of floating point."""

        def fill(tensor: Tensor) -> Tensor:
            dtype = like.dtype if tensor.is_floating_point() else tensor.dtype
            return torch.zeros(tensor.shape, dtype=dtype, device=like.device)

        return substitute(self.content, fill)

    def noise(self, like: Tensor, most: int | None = None) -> Any:
        """An input of numbers from 0 to 1, always the same; zeros where it holds whole numbers.

        Args:
            like: whose device it is on and whose dtype its floating point tensors have.
            most: a batch of larger images is of this size; None where there is no such batch.
        """
        generator = torch.Generator().manual_seed(0)
        large = [t for t in _tensors(self.content) if t.dim() >= 4 and max(t.shape[2:]) > (most or 0)]
        if most is not None and (len(large) != 1 or len(_tensors(self.content)) != 1):
            return None

        def draw(tensor: Tensor) -> Tensor:
            if not tensor.is_floating_point():
                return torch.zeros(tensor.shape, dtype=tensor.dtype, device=like.device)
            shape = (
                tensor.shape
                if most is None
                else (*tensor.shape[:2], *(min(s, most) for s in tensor.shape[2:]))
            )
            return torch.rand(shape, generator=generator).to(like)

        return substitute(self.content, draw)


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [tensor for item in value for tensor in _tensors(item)] if isinstance(value, list | tuple) else []
