"""Networks for elsewhere: ONNX, and torch.export programs."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from slimnet.errors import SlimnetError
from slimnet.modes import evaluating

TOLERANCE = 1e-4  # largest deviation of onnxruntime from torch, relative to the largest output


def export_onnx(model: nn.Module, example_input: Tensor, path: str | Path) -> float:
    """Write a network as ONNX with a dynamic batch size, and check it against onnxruntime.

    The input is called "input", a single output "output"; several are "output0", "output1", …

    Args:
        model: any network, pruned or not; left as it was. Its outputs may be nested in tuples and dicts.
        example_input: (N, C, ...), what the network takes.
        path: the file to write; it is there only if the check held.

    Returns:
        The largest deviation from torch over two batch sizes, relative to the largest output.

    Raises:
        SlimnetError: a package of slimnet[onnx] is missing, the export fails, the results deviate by more
            than 1e-4, or the file cannot be written.

    Example:
        >>> model = slimnet.models.resnet([1], width=4)
        >>> slimnet.export_onnx(model, torch.zeros(1, 3, 8, 8), "net.onnx") < 1e-4
        True
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if find_spec(package) is None:
            raise SlimnetError(f"export to ONNX needs {package}; get it with: pip install 'slimnet[onnx]'")
    with evaluating(model), _written(Path(path), ".onnx") as aside:
        _write_onnx(model, _of_size(example_input, 2), aside)
        deviation = float(
            np.max([_deviation(model, _of_size(example_input, size), aside) for size in (1, 3)])
        )
        if not deviation <= TOLERANCE:  # NaN is refused too
            raise SlimnetError(f"onnxruntime deviates from torch by {deviation:.1e}; {path} was not written")
    return deviation


def export_program(model: nn.Module, example_input: Tensor, path: str | Path) -> None:
    """Write a network as a torch.export program (.pt2) with a dynamic batch size.

    Args and errors as for `export_onnx`, without the check.

    Example:
        >>> model = slimnet.models.resnet([1], width=4)
        >>> slimnet.export_program(model, torch.zeros(1, 3, 8, 8), "net.pt2")
        >>> torch.export.load("net.pt2").module()(torch.zeros(5, 3, 8, 8)).shape
        torch.Size([5, 10])
    """
    with evaluating(model), torch.no_grad(), _written(Path(path), ".pt2") as aside:
        try:
            with _quiet():
                program = torch.export.export(
                    model, (_of_size(example_input, 2),), dynamic_shapes=_any_batch()
                )
        except Exception as error:
            raise SlimnetError(f"{type(model).__name__} cannot be exported: {_reason(error)}") from error
        torch.export.save(program, aside)


@contextmanager
def _written(path: Path, suffix: str) -> Iterator[Path]:
    """A name to write under, which becomes `path` if all goes well."""
    aside = path.with_name(f".{path.name}.part{suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield aside
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        raise SlimnetError(f"cannot write {path}: {error}; make room or choose another folder") from error


def _write_onnx(model: nn.Module, example: Tensor, path: Path) -> None:
    with torch.inference_mode():
        count = len(_outputs(model, example))
    try:
        with _quiet():
            torch.onnx.export(
                model,
                (example,),
                str(path),
                dynamo=True,
                external_data=False,
                verbose=False,
                input_names=["input"],
                output_names=["output"] if count == 1 else [f"output{index}" for index in range(count)],
                dynamic_shapes=_any_batch(),
            )
    except OSError:
        raise
    except Exception as error:
        raise SlimnetError(f"{type(model).__name__} cannot be exported to ONNX: {_reason(error)}") from error


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


def _of_size(example: Tensor, size: int) -> Tensor:
    """A batch of `size` images like the example's, all different."""
    generator = torch.Generator().manual_seed(0)
    shape = (size, *example.shape[1:])
    return torch.randn(shape, generator=generator).to(example.device, example.dtype)


def _any_batch() -> tuple[dict[int, Any]]:
    return ({0: torch.export.Dim("batch")},)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' chatter from the terminal; what matters of it is in their exceptions."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _reason(error: BaseException) -> str:
    """The first line of the exception at the bottom of it: the exporters' own ones fill pages."""
    while error.__cause__ is not None:
        error = error.__cause__
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
