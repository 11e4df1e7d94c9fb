"""slimnet export: a network for use elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slimnet.cli import options as opt
from slimnet.errors import SlimnetError


def export_command(
    file: opt.File,
    onnx: Annotated[Path | None, typer.Option(metavar="FILE", help="The ONNX file to write.")] = None,
    program: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The torch.export program (.pt2) to write.")
    ] = None,
    model: opt.OwnModel = None,
    input_shape: opt.InputShape = None,
    force: opt.Force = False,
) -> None:
    """Write a network for use elsewhere, with a dynamic batch size; ONNX is checked against onnxruntime."""
    import torch

    from slimnet.cli.datasets import recorded_shape
    from slimnet.cli.files import check_output
    from slimnet.cli.networks import open_network
    from slimnet.export import export_onnx, export_program

    if onnx is None and program is None:
        raise SlimnetError("export needs a file to write: --onnx FILE or --program FILE")
    for path in filter(None, (onnx, program)):
        check_output(path, force)
    network, saved = open_network(file, model)
    example = torch.zeros(1, *recorded_shape(file, saved.config, input_shape))
    if onnx is not None:
        deviation = export_onnx(network, example, onnx)
        print(f"written: {onnx} (onnxruntime within {deviation:.0e} of torch)")
    if program is not None:
        export_program(network, example, program)
        print(f"written: {program}")
