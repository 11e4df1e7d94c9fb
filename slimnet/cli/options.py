"""The options that several commands share, and the values they take."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from slimnet.data.catalogue import IMAGE_SIDES, Resize
from slimnet.devices import DeviceWish, choose_device
from slimnet.errors import SlimnetError
from slimnet.precision import Precision, PrecisionWish, native_precision
from slimnet.training.recipe import Optimizer, Schedule

if TYPE_CHECKING:
    import torch


def positive(value: float | None) -> float | None:
    """Refuse what is not a finite number above 0."""
    if value is not None and not (math.isfinite(value) and value > 0):
        raise typer.BadParameter(f"{value} is not above 0")
    return value


def not_negative(value: float | None) -> float | None:
    """Refuse what is not a finite number of at least 0."""
    if value is not None and not (math.isfinite(value) and value >= 0):
        raise typer.BadParameter(f"{value} is not at least 0")
    return value


def use_threads(count: int | None) -> int | None:
    """Set how many threads torch takes, where that is said."""
    if count:
        import torch

        torch.set_num_threads(count)
    return count


def fraction(value: float | None) -> float | None:
    """Refuse what is not between 0 and 1, both excluded."""
    if value is not None and not 0 < value < 1:
        raise typer.BadParameter(f"{value} is not between 0 and 1")
    return value


SETS = ", ".join(IMAGE_SIDES)
OF_DATA = (
    f"{SETS}, torchvision/NAME, an npz file, a folder of pictures per class or of npy files, or "
    "module:function"
)
AS_BEFORE = "as in FILE, if there is one; else none"

File = Annotated[Path, typer.Argument(metavar="FILE", help="A network saved by slimnet or by a sweep.")]
Out = Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The file to write.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing file.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
OwnModel = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="MODULE:FACTORY",
        help="What makes your own network, such as nets:small; or the network of a file of weights alone.",
    ),
]
OwnArgs = Annotated[
    list[str] | None,
    typer.Option(
        "--arg",
        metavar="NAME=VALUE",
        help="An argument of the factory, beside those in FILE; may be repeated.",
    ),
]
Device = Annotated[
    DeviceWish,
    typer.Option(help="Where to compute; auto takes a GPU (CUDA, Apple's, Intel's) if there is one."),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", metavar="DIR", help="Folder of the data sets, which are downloaded there if missing."
    ),
]
OtherData = Annotated[
    str | None,
    typer.Option("--data", metavar="DATA", help=f"Another data set than FILE names: {OF_DATA}."),
]
Data = Annotated[str, typer.Option(metavar="DATA", help=f"{OF_DATA}.")]
ImageSize = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="PIXELS",
        help="Side to which pictures are resized; arrays are pooled to it by a whole factor.",
    ),
]
PictureChannels = Annotated[
    Literal["1", "3"] | None,
    typer.Option("--channels", help="Of pictures: 3 for RGB, 1 for greys.", show_default="3 for a folder"),
]
Resizing = Annotated[
    Resize | None,
    typer.Option(
        "--resize",
        help="How pictures are brought to --image-size; crop cuts the middle out.",
        show_default="crop",
    ),
]
Mean = Annotated[
    str | None,
    typer.Option(
        metavar="M,M,M",
        help="To normalise by, per channel in [0, 1].",
        show_default="that of the training images",
    ),
]
Std = Annotated[
    str | None,
    typer.Option(
        metavar="S,S,S",
        help="To normalise by, per channel in [0, 1].",
        show_default="that of the training images",
    ),
]
Crop = Annotated[
    int | None, typer.Option(min=0, help="Pixels of padding before a random crop.", show_default=AS_BEFORE)
]
Flip = Annotated[
    bool | None,
    typer.Option("--flip/--no-flip", help="Mirror training images at random.", show_default=AS_BEFORE),
]
VerticalFlip = Annotated[
    bool | None,
    typer.Option(
        "--vertical-flip/--no-vertical-flip",
        help="Turn training images upside down at random.",
        show_default=AS_BEFORE,
    ),
]
ResizedCrop = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        help="Cut out a random part, at least this fraction of the area, and stretch it.",
        show_default=AS_BEFORE,
    ),
]
Jitter = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        help="Strength of random brightness, contrast and saturation.",
        show_default=AS_BEFORE,
    ),
]
RandAugment = Annotated[
    int | None,
    typer.Option(
        "--randaugment",
        min=0,
        help="Operations of RandAugment that an image goes through.",
        show_default=AS_BEFORE,
    ),
]
Cutout = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        help="Side of a blanked square, as a fraction of the shorter side.",
        show_default=AS_BEFORE,
    ),
]
Mixup = Annotated[
    float | None,
    typer.Option(
        callback=not_negative,
        help="Alpha of mixup, which blends pairs of images and their labels.",
        show_default=AS_BEFORE,
    ),
]
InputShape = Annotated[
    str | None,
    typer.Option(metavar="CxHxW", help="Shape of an image, such as 3x32x32, if FILE does not say."),
]

Epochs = Annotated[int, typer.Option(min=1, help="Passes over the training images.")]
Lr = Annotated[float, typer.Option(callback=positive, help="Peak learning rate.")]
BatchSize = Annotated[int, typer.Option(min=2, help="Images per step.")]
EvaluateEvery = Annotated[
    int,
    typer.Option(min=1, help="Epochs between measurements of validation and test accuracy."),
]
Optimiser = Annotated[Optimizer, typer.Option(help="sgd is with Nesterov momentum.")]
Momentum = Annotated[float, typer.Option(min=0, max=0.999, help="Momentum of sgd.")]
WeightDecay = Annotated[
    float, typer.Option(callback=not_negative, help="Not applied to scaling factors and biases.")
]
Scheduled = Annotated[
    Schedule, typer.Option(help="Schedule of the learning rate; steps divides it by 10 at 50 % and 75 %.")
]
Arithmetic = Annotated[
    PrecisionWish,
    typer.Option("--precision", help="auto uses bfloat16 where the hardware supports it."),
]
Threads = Annotated[
    int | None,
    typer.Option(
        min=1,
        callback=use_threads,
        help="Processor threads; one is often fastest for a small network on a busy machine.",
        show_default="torch's choice",
    ),
]
Compiled = Annotated[
    bool, typer.Option("--compile", help="Train with torch.compile; worth it on a GPU and for many epochs.")
]


def place_for(wish: DeviceWish) -> torch.device:
    """The device that a command computes on, made deterministic."""
    from slimnet.training.determinism import make_deterministic

    place = choose_device(wish)
    make_deterministic(place)
    return place


def choose_precision(wish: PrecisionWish, device: torch.device) -> Precision:
    """The arithmetic to train in."""
    return native_precision(device) if wish == "auto" else wish


def parse_blocks(text: str) -> list[int]:
    """Blocks per stage from "3,4,6,3"."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise SlimnetError(f"--blocks is {text}; it is numbers with commas, such as 1,1,1") from None


def parse_statistic(option: str, text: str | None) -> tuple[float, ...] | None:
    """A number per channel from "0.5,0.5,0.5"."""
    try:
        return None if text is None else tuple(float(part) for part in text.split(","))
    except ValueError:
        raise SlimnetError(f"{option} is {text}; it is a number per channel, such as 0.5,0.5,0.5") from None


def parse_shape(text: str) -> tuple[int, ...]:
    """The shape of an image from "3x32x32"."""
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise SlimnetError(f"--input-shape is {text}; it is channels, height and width, such as 3x32x32")
    return tuple(map(int, parts))
