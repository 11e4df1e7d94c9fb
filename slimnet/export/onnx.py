"""Networks as ONNX files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from slimnet.errors import SlimnetError
from slimnet.export.aside import any_batch, of_size, quiet, reason, require, written
from slimnet.modes import evaluating

NEEDS = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-4  # largest deviation of onnxruntime from torch, relative to the largest output


def export_onnx(
    model: nn.Module, example_input: Tensor, path: str | Path, *, metadata: Mapping[str, str] | None = None
) -> float:
    """Write a network as ONNX with a dynamic batch size, and check it against onnxruntime.

    The input is called "input", a single output "output"; several are "output0", "output1", …

    Args:
        model: any network, pruned or not; left as it was. It is written as it is, without normalisation. Its
            outputs may be nested in tuples and dicts.
        example_input: (N, C, ...), what the network takes.
        path: the file to write; it is there only if the check held.
        metadata: texts to keep in the file, by name (ONNX calls them metadata_props).

    Returns:
        The largest deviation from torch over two batch sizes, relative to the largest output.

    Raises:
        SlimnetError: a package that it needs is missing, the export fails, the results deviate by more
            than 1e-4, or the file cannot be written.

    Example:
        >>> model = slimnet.models.resnet([1], width=4)
        >>> slimnet.export_onnx(model, torch.zeros(1, 3, 8, 8), "net.onnx") < 1e-4
        True
    """
    require(NEEDS)
    with evaluating(model), written(Path(path)) as aside:
        _write(model, of_size(example_input, 2), aside, metadata or {})
        deviation = float(np.max([_deviation(model, of_size(example_input, size), aside) for size in (1, 3)]))
        if not deviation <= TOLERANCE:  # NaN is refused too
            raise SlimnetError(f"onnxruntime deviates from torch by {deviation:.1e}; {path} was not written")
    return deviation


def _write(model: nn.Module, example: Tensor, path: Path, metadata: Mapping[str, str]) -> None:
    with torch.inference_mode():
        count = len(_outputs(model, example))
    try:
        with quiet():
            program = torch.onnx.export(
                model,
                (example,),
                dynamo=True,
                verbose=False,
                input_names=["input"],
                output_names=["output"] if count == 1 else [f"output{index}" for index in range(count)],
                dynamic_shapes=any_batch(),
            )
            assert program is not None, "dynamo=True returns one"
            for node in program.model.graph.all_nodes():
                node.metadata_props.clear()  # lines and paths of the code that was traced
            program.model.metadata_props.update(metadata)
            program.save(str(path), external_data=False)
    except OSError:
        raise
    except Exception as error:
        raise SlimnetError(f"{type(model).__name__} cannot be exported to ONNX: {reason(error)}") from error


def _deviation(model: nn.Module, example: Tensor, path: Path) -> float:
    """How far onnxruntime is from torch on one batch."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: example.cpu().numpy()})
    with torch.inference_mode():
        expected = [output.cpu().numpy() for output in _outputs(model, example)]
    return float(np.max([_relative(a, b) for a, b in zip(found, expected, strict=True)]))


def _relative(found: Any, expected: Any) -> float:
    return float(np.abs(found - expected).max() / max(1e-12, float(np.abs(expected).max())))


def _outputs(model: nn.Module, example: Tensor) -> list[Tensor]:
    """The tensors that a network returns, in the order in which ONNX lists them."""
    return [leaf for leaf in pytree.tree_leaves(model(example)) if isinstance(leaf, Tensor)]
