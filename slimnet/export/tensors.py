"""Networks as safetensors files: their tensors, and inside them what is needed to use them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor, nn

from slimnet.export.deployed import as_texts


def export_tensors(model: nn.Module, path: Path, description: dict[str, Any]) -> None:
    """Write the state_dict of a network as safetensors; `slimnet.load` reads it back.

    Args:
        model: a network, without normalisation in front.
        path: the .safetensors file.
        description: entries for its metadata.

    Raises:
        OSError: the file cannot be written; safetensors' own writer would raise something else.
    """
    texts = {"format": "pt", **as_texts(description)}  # "format" is for other readers
    path.write_bytes(save(_state(model), texts))


def file_bytes(model: nn.Module) -> int:
    """The size of the safetensors file of a network, without its description."""
    return len(save(_state(model)))


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
