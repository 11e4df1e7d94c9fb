"""Networks as torch.export programs."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from slimnet.errors import SlimnetError
from slimnet.export.aside import any_batch, of_size, quiet, reason, written
from slimnet.modes import evaluating


def export_program(
    model: nn.Module, example_input: Tensor, path: str | Path, *, extra_files: Mapping[str, str] | None = None
) -> None:
    """Write a network as a torch.export program (.pt2) with a dynamic batch size.

    Args:
        model: any network, pruned or not; left as it was. It is written as it is, without normalisation.
        example_input: (N, C, ...), what the network takes.
        path: the file to write.
        extra_files: texts to keep in the file, by name.

    Raises:
        SlimnetError: the export fails, or the file cannot be written.

    Example:
        >>> model = slimnet.models.resnet([1], width=4)
        >>> slimnet.export_program(model, torch.zeros(1, 3, 8, 8), "net.pt2")
        >>> torch.export.load("net.pt2").module()(torch.zeros(5, 3, 8, 8)).shape
        torch.Size([5, 10])
    """
    with evaluating(model), torch.no_grad(), written(Path(path)) as aside:
        content = io.BytesIO()  # as torch's own writer may end the process where a disk is full
        try:
            with quiet():
                program = torch.export.export(model, (of_size(example_input, 2),), dynamic_shapes=any_batch())
                for node in program.graph.nodes:
                    node.meta.pop("stack_trace", None)  # lines and paths of the code that was traced
                torch.export.save(program, content, extra_files=dict(extra_files or {}))
        except Exception as error:
            raise SlimnetError(f"{type(model).__name__} cannot be exported: {reason(error)}") from error
        aside.write_bytes(content.getbuffer())
