"""Networks as safetensors files: their tensors, and inside them what is needed to use them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from slimnet.export.deployed import as_texts


def export_tensors(model: nn.Module, path: Path, description: dict[str, Any]) -> None:
    """Write the state_dict of a network as safetensors; `slimnet.load` reads it back.

    Args:
        model: a network, without normalisation in front.
        path: the .safetensors file.
        description: entries for its metadata.
    """
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    save_file(state, path, {"format": "pt", **as_texts(description)})  # "format" is for other readers
