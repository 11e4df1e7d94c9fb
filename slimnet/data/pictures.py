"""Picture files as arrays of one size: whatever Pillow reads, in greys or colours, upright."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from slimnet.data.catalogue import Resize
from slimnet.errors import SlimnetError
from slimnet.wording import first_line


class Unreadable(SlimnetError):  # noqa: N818 - one of many pictures, which may be left out
    """A picture cannot be read."""


Pixels = npt.NDArray[np.uint8]
Size = tuple[int, int]
"""Height and width."""

MODES = {1: "L", 3: "RGB"}  # channels -> Pillow's name
BACKGROUND = (255, 255, 255, 255)  # what shows through transparent pixels


def read_picture(path: Path, size: Size | None, channels: int = 3, resize: Resize = "crop") -> Pixels:
    """The pixels of a picture file.

    A picture is turned as its EXIF orientation says; transparent parts show white; of 16 bits the upper 8 are
    taken; of an animation the first picture. Palettes, CMYK and other colour spaces become RGB or grey.

    Args:
        path: any file that Pillow reads.
        size: (H, W) of the result; None keeps the picture's own.
        channels: 3 for RGB, 1 for greys.
        resize: how a picture of another size is brought to `size`, as in `resized`.

    Returns:
        (H, W, C), uint8.

    Raises:
        Unreadable: the file is missing or damaged, or no picture that can be read, naming it.
    """
    if path.exists() and not path.is_file():  # a pipe or a device, which may never end
        raise Unreadable(f"{path} cannot be read as a picture: it is no file.")
    try:
        with Image.open(path) as image:
            if size is not None:  # a JPEG decodes faster at a half, a quarter or an eighth of its size
                image.draft(None, (2 * max(size), 2 * max(size)))
            ImageOps.exif_transpose(image, in_place=True)
            return as_pixels(image, size, channels, resize)
    except FileNotFoundError:
        raise Unreadable(f"{path} is not there.") from None
    except UnidentifiedImageError:
        raise Unreadable(f"{path} cannot be read as a picture: it begins like none.") from None
    except Exception as error:  # Pillow's decoders raise almost anything on a damaged file
        reason = first_line(error)
        raise Unreadable(f"{path} cannot be read as a picture: {reason}.") from error


def as_pixels(image: Image.Image, size: Size | None, channels: int, resize: Resize) -> Pixels:
    """An open picture as (H, W, C), uint8.

    Args:
        image, size, channels, resize: as in `read_picture`.

    Raises:
        ValueError: a picture of floating-point numbers, whose range is unknown.
    """
    image = _in_eight_bits(image)
    if image.has_transparency_data:
        opaque = Image.new("RGBA", image.size, BACKGROUND)
        image = Image.alpha_composite(opaque, image.convert("RGBA"))
    if image.mode != MODES[channels]:
        image = image.convert(MODES[channels])
    pixels = np.asarray(image if size is None else resized(image, size, resize))
    return pixels if pixels.ndim == 3 else pixels[..., None]


def resized(image: Image.Image, size: Size, resize: Resize) -> Image.Image:
    """A picture at another size; one that has it already stays as it is.

    Args:
        image: in mode L or RGB.
        size: (H, W).
        resize: "crop" cuts the largest part of the right shape out of the middle; "stretch" takes all of it,
            whatever becomes of its shape; "pad" keeps the shape of all of it, with black beside; these scale
            bilinearly, smoothed. "pool" stretches by means over the area of each new pixel.
    """
    height, width = size
    if image.size == (width, height):
        return image
    if resize == "pad":
        return ImageOps.pad(image, (width, height), Image.Resampling.BILINEAR, color=0)
    if resize == "crop":
        return ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)
    if resize == "stretch":
        return image.resize((width, height), Image.Resampling.BILINEAR)
    across, down = image.width // width, image.height // height
    if (across * width, down * height) == image.size:
        return image.reduce((across, down))  # exact, where `resize` rounds once for each direction
    return image.resize((width, height), Image.Resampling.BOX)


def _in_eight_bits(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("it holds floating-point numbers; save it with 8 or 16 bits per channel")
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    return image
