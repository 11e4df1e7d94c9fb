"""Networks for elsewhere: ONNX, and torch.export programs."""

from __future__ import annotations

import logging
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from slimnet.errors import SlimnetError
from slimnet.modes import evaluating

TOLERANCE = 1e-4  # largest deviation of onnxruntime from torch, relative to the largest output


def export_onnx(model: nn.Module, example_input: Tensor, path: str | Path) -> float:
    """Write a network as ONNX with a dynamic batch size, and check it against onnxruntime.

    Args:
        model: any network, pruned or not; left as it was.
        example_input: (N, C, ...), what the network takes.
        path: the file to write; it is there only if the check held.

    Returns:
        The largest deviation from torch over two batch sizes, relative to the largest output.

    Raises:
        SlimnetError: a package of slimnet[onnx] is missing, the export fails, or the results deviate by more
            than 1e-4.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if find_spec(package) is None:
            raise SlimnetError(f"export to ONNX needs {package}; get it with: pip install 'slimnet[onnx]'")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.part")
    try:
        with evaluating(model):
            _write(model, _of_size(example_input, 2), aside)
            deviation = max(_deviation(model, _of_size(example_input, size), aside) for size in (1, 3))
        if not deviation <= TOLERANCE:
            raise SlimnetError(f"onnxruntime deviates from torch by {deviation:.1e}; {path} was not written")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return deviation


def export_program(model: nn.Module, example_input: Tensor, path: str | Path) -> None:
    """Write a network as a torch.export program (.pt2) with a dynamic batch size.

    Args and errors as for `export_onnx`, without the check.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.part.pt2")
    try:
        with evaluating(model), torch.no_grad():
            batch = {0: torch.export.Dim("batch")}
            program = torch.export.export(model, (_of_size(example_input, 2),), dynamic_shapes=(batch,))
            torch.export.save(program, aside)
        aside.replace(path)
    except Exception as error:
        raise SlimnetError(f"{type(model).__name__} cannot be exported: {error}") from error
    finally:
        aside.unlink(missing_ok=True)


def _write(model: nn.Module, example: Tensor, path: Path) -> None:
    chatter = logging.getLogger("torch.onnx")
    level = chatter.level
    chatter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                model,
                (example,),
                str(path),
                dynamo=True,
                external_data=False,
                verbose=False,
                input_names=["input"],
                output_names=["output"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
            )
    except Exception as error:
        raise SlimnetError(f"{type(model).__name__} cannot be exported to ONNX: {error}") from error
    finally:
        chatter.setLevel(level)


def _deviation(model: nn.Module, example: Tensor, path: Path) -> float:
    """How far onnxruntime is from torch on one batch."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (found, *_) = session.run(None, {session.get_inputs()[0].name: example.cpu().numpy()})
    with torch.inference_mode():
        expected = model(example).cpu().numpy()
    return float(np.abs(found - expected).max() / max(1e-12, float(np.abs(expected).max())))


def _of_size(example: Tensor, size: int) -> Tensor:
    """A batch of `size` images like the example's, all different."""
    generator = torch.Generator().manual_seed(0)
    shape = (size, *example.shape[1:])
    return torch.randn(shape, generator=generator).to(example.device, example.dtype)
