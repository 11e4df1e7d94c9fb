"""slimnet export: a network for use elsewhere."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from slimnet.cli import options as opt
from slimnet.cli import show
from slimnet.errors import SlimnetError

if TYPE_CHECKING:
    from slimnet.checkpoint import Checkpoint
    from slimnet.data import Splits
    from slimnet.export.files import Exported

Taken = Annotated[
    Literal["float", "uint8", "normalized"],
    typer.Option(
        "--input",
        help="What ONNX and torch.export files take: pixels in [0, 1] or in 0..255, which they normalise "
        "themselves, or images that you normalise.",
    ),
]
Formats = Annotated[
    list[str] | None,
    typer.Option(
        "--format",
        metavar="NAME",
        help="pt, safetensors, onnx or pt2, for a folder; may be repeated.",
        show_default="all that are installed",
    ),
]
Check = Annotated[
    bool, typer.Option("--check/--no-check", help="Run each file on the whole test split before it is kept.")
]


def export_command(
    file: opt.File,
    out: Annotated[
        Path | None,
        typer.Argument(
            metavar="OUT",
            help="A .onnx, .pt2, .safetensors or .pt file, or a folder for several and a model card.",
        ),
    ] = None,
    formats: Formats = None,
    taken: Taken = "float",
    check: Check = True,
    onnx: Annotated[Path | None, typer.Option(metavar="FILE", help="The same as OUT.", hidden=True)] = None,
    program: Annotated[Path | None, typer.Option(metavar="FILE", hidden=True)] = None,
    model: opt.OwnModel = None,
    args: opt.OwnArgs = None,
    data: opt.OtherData = None,
    image_size: opt.ImageSize = None,
    data_dir: opt.DataDir = None,
    input_shape: opt.InputShape = None,
    force: opt.Force = False,
    as_json: opt.Json = False,
) -> None:
    """Write a network as ONNX, torch.export or safetensors.

    It takes batches of any size, and normalises images itself.
    Each file is read back and run on the test split, and kept if it scores what FILE reports.
    """
    from slimnet.cli.datasets import recorded_shape
    from slimnet.cli.files import check_output, tidied
    from slimnet.cli.networks import open_network, parse_args
    from slimnet.export.artifact import FORMATS, Artifact
    from slimnet.export.card import card
    from slimnet.export.files import (
        TestSplit,
        chosen_formats,
        export_file,
        export_folder,
        folder_names,
        refuse_existing,
        target_format,
        written_files,
    )
    from slimnet.networks import check_fit
    from slimnet.preprocessing import attach, preprocessing_of

    outs = {path: target_format(path) for path in (out, onnx, program) if path}
    outs |= {path: FORMATS[name] for path, name in ((onnx, "onnx"), (program, "pt2")) if path}
    if not outs:
        raise SlimnetError("export needs OUT: a .onnx, .pt2, .safetensors or .pt file, or a folder")
    chosen, note = chosen_formats(formats or [])
    for path, kind in outs.items():
        if kind is None and not force:
            refuse_existing(path, folder_names(chosen))
        elif kind is not None and formats and [kind] != chosen:
            raise SlimnetError(f"{path} is one file, {kind.name}; leave out --format, or name a folder")
        elif kind is not None:
            for target in written_files(path, kind):
                check_output(target, force)
    network, saved = open_network(file, model, parse_args(args or []))
    if not check:
        _refuse_edited(file, saved, model)
    known = preprocessing_of(network)
    needed = check or (known is None and taken != "normalized")
    way_out = "--no-check" if known else "--no-check --input normalized"
    splits = _data(file, saved, data, image_size, data_dir, way_out) if needed else None
    shape = None
    if known is None and splits is not None:
        attach(network, splits.preprocessing)
    elif known is None:
        shape = recorded_shape(file, network, saved.config, input_shape)
        check_fit(network, shape, 1, str(file))
    elif splits is not None and splits.image_shape != known.image_shape:
        shapes = ("x".join(map(str, one.image_shape)) for one in (known, splits))
        raise SlimnetError("{} takes images of {}, and the data are of {}".format(file, *shapes))
    artifact = Artifact(network, saved.metrics, saved.config, {"file": str(file)}, taken, shape)
    test = None
    if check and splits is not None:
        reported = saved.metrics.get("test_accuracy") if data is None else None
        test = TestSplit.of(splits.test, artifact, reported)
    write_card = partial(card, file.stem, data=_of_data(saved, data))
    found: list[Exported] = []
    with tidied():
        for path, kind in outs.items():
            if kind is not None:
                found.append(export_file(artifact, path, kind, test))
            else:
                found += export_folder(artifact, path, chosen, test, write_card, force=force)
    if as_json:
        show.print_json([one.record() for one in found])
        return
    for one in found:
        print(f"written: {one.path} ({one.score or 'not checked'})")
    if note and None in outs.values():
        print(f"note: {note}")


def _refuse_edited(file: Path, saved: Checkpoint, model: str | None) -> None:
    """Refuse a factory that was edited since the file was trained, as no score would tell."""
    from slimnet.models.source import source_hash

    made_by, source = model or saved.config.get("model"), saved.config.get("source")
    if made_by and source and source_hash(made_by, Path.cwd()) != source:
        raise SlimnetError(
            f"the source of {made_by} has been edited since {file} was trained, so the network may compute "
            "something else now; undo that, or leave out --no-check to see whether it scores the same"
        )


def _data(
    file: Path,
    saved: Checkpoint,
    data: str | None,
    image_size: int | None,
    data_dir: Path | None,
    way_out: str,
) -> Splits:
    """The data set, whose test split the files are checked on, and which says how images are normalised."""
    import torch

    from slimnet.cli.datasets import recorded_data

    try:
        return recorded_data(file, saved.config, data, image_size).load(data_dir, torch.device("cpu"))
    except SlimnetError as error:
        advice = f"Exported files are checked on its test split; to leave that out: {way_out}"
        raise SlimnetError(f"{str(error).rstrip('.')}. {advice}") from error


def _of_data(saved: Checkpoint, data: str | None) -> str:
    record: dict[str, Any] = saved.config.get("data", {})
    name = data or record.get("path") or record.get("name")
    return f"Trained on {name}." if name else "Its file does not name the data set that it was trained on."
