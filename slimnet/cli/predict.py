"""slimnet predict: what a network sees in pictures."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slimnet.cli import options as opt
from slimnet.cli import show
from slimnet.data.listing import pictures_below
from slimnet.errors import SlimnetError

if TYPE_CHECKING:
    from slimnet.export.artifact import Predictor

BATCH = 64  # pictures
EXIT_UNREAD = 1


def predict_command(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A network of slimnet or a sweep: .pt, .safetensors, .onnx."),
    ],
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGES", help="Picture files of any size; folders are searched."),
    ],
    top: Annotated[int, typer.Option(min=1, metavar="K", help="Classes shown for each picture.")] = 1,
    model: opt.OwnModel = None,
    args: opt.OwnArgs = None,
    as_json: opt.Json = False,
) -> None:
    """Label pictures with a network.

    Each label comes with the probability that the network gives it.
    Exit status: 0 every picture is labelled; 1 some could not be read; 2 none, or bad usage.
    """
    predictor = _open(file, model, args or [])
    paths = list(_pictures(images))
    rows, labelled = [], 0
    for start in range(0, len(paths), BATCH):
        for row in _label(predictor, paths[start : start + BATCH], top):
            labelled += "error" not in row
            rows.append(row)
            if not as_json:
                _print(row)
    if as_json:
        show.print_json(rows)
    if labelled < len(paths):
        raise typer.Exit(EXIT_UNREAD if labelled else 2)


def _open(file: Path, model: str | None, args: list[str]) -> Predictor:
    from slimnet.cli import networks
    from slimnet.data.pictures import MODES
    from slimnet.export.artifact import open_network, open_onnx

    if file.suffix == ".pt2":
        raise SlimnetError(
            f"{file} is a program, which could run code; predict reads .pt, .safetensors and .onnx"
        )
    if file.suffix == ".onnx":
        predictor = open_onnx(file)
    else:
        try:
            predictor = open_network(networks.open_network(file, model, networks.parse_args(args))[0])
        except SlimnetError as error:
            text = str(error)
            raise SlimnetError(text if str(file) in text else f"{file}: {text}") from error
    if (channels := predictor.preprocessing.channels) not in MODES:
        raise SlimnetError(f"{file} takes images of {channels} channels, which picture files do not have")
    return predictor


def _pictures(given: Sequence[Path]) -> Iterator[Path]:
    """The files that are given, and of folders those that a data set of pictures would take.

    Raises:
        SlimnetError: a folder has none, or may not be read.
    """
    for path in given:
        if not path.is_dir():
            yield path
            continue
        if not (inside := pictures_below(path, path)):
            raise SlimnetError(f"{path} is a folder without pictures; name one that has some")
        yield from (path / name for name in inside)


def _label(predictor: Predictor, paths: Sequence[Path], top: int) -> list[dict[str, Any]]:
    """A row for each file: its label, probability and best classes, or why it could not be read."""
    import numpy as np
    import torch

    from slimnet.data.pictures import read_picture

    p = predictor.preprocessing
    pixels, errors = {}, {}
    for path in paths:
        try:
            pixels[path] = read_picture(path, p.size, p.channels, p.resize)
        except SlimnetError as error:
            errors[path] = str(error)
    found = {}
    if pixels:
        batch = torch.from_numpy(np.stack(list(pixels.values()))).permute(0, 3, 1, 2)
        with torch.inference_mode():
            chances = predictor.scores(batch).float().softmax(1)
        best = chances.topk(min(top, chances.shape[1]))
        found = dict(zip(pixels, zip(best.values.tolist(), best.indices.tolist(), strict=True), strict=True))
    return [
        {"file": str(path), "error": errors[path]} if path in errors else _row(path, *found[path], p.classes)
        for path in paths
    ]


def _row(path: Path, chances: list[float], labels: list[int], classes: Sequence[str]) -> dict[str, Any]:
    names = [classes[label] if label < len(classes) else str(label) for label in labels]
    best = [{"class": name, "probability": chance} for name, chance in zip(names, chances, strict=True)]
    return {"file": str(path), "label": names[0], "probability": chances[0], "top": best}


def _print(row: dict[str, Any]) -> None:
    if "error" in row:
        print(f"Error: {row['error']}", file=sys.stderr)
        return
    told = (f"{one['class']} ({one['probability']:.1%})" for one in row["top"])
    print(f"{row['file']}: {', '.join(told)}", flush=True)
