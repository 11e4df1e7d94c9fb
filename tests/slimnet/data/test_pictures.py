"""Picture files of every kind become arrays of one size."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from slimnet.data import load_dataset
from slimnet.data.pictures import read_picture
from slimnet.errors import SlimnetError

RED, GREEN, WHITE = (255, 0, 0), (0, 255, 0), (255, 255, 255)


def halves(mode: str = "RGB") -> Image.Image:
    """30 wide and 20 high: red on the left, green on the right."""
    image = Image.new("RGB", (30, 20), RED)
    image.paste(GREEN, (15, 0, 30, 20))
    return image.convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "P", "CMYK", "RGBA"])
def test_colours_are_kept_whatever_the_mode(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    halves(mode).save(path)
    pixels = read_picture(path, None)
    assert pixels.shape == (20, 30, 3)
    assert tuple(pixels[0, 0]) == RED
    assert tuple(pixels[0, -1]) == GREEN


def test_greys_become_three_equal_channels_and_colours_one(tmp_path: Path) -> None:
    Image.new("L", (4, 4), 77).save(tmp_path / "grey.png")
    halves().save(tmp_path / "colour.png")
    assert (read_picture(tmp_path / "grey.png", None) == 77).all()
    grey = read_picture(tmp_path / "colour.png", None, channels=1)
    assert grey.shape == (20, 30, 1)
    assert grey[0, 0, 0] == 76  # of red, by ITU-R 601


def test_transparent_parts_show_white(tmp_path: Path) -> None:
    image = halves("RGBA")
    image.putpixel((0, 0), (0, 0, 0, 0))
    image.save(tmp_path / "rgba.png")
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "palette.png", transparency=1)
    assert tuple(read_picture(tmp_path / "rgba.png", None)[0, 0]) == WHITE
    found = read_picture(tmp_path / "palette.png", None)
    assert [tuple(pixel) for pixel in found[0]] == [(10, 20, 30), WHITE]


def test_sixteen_bits_keep_the_upper_eight(tmp_path: Path) -> None:
    deep = np.array([[0, 255, 256, 65535]], dtype=np.uint16)
    for suffix in ("png", "tif"):
        Image.fromarray(deep).save(tmp_path / f"deep.{suffix}")
        assert read_picture(tmp_path / f"deep.{suffix}", None, 1)[0, :, 0].tolist() == [0, 0, 1, 255]


def test_pictures_are_turned_as_the_camera_was_held(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the top of the scene is on the right
    halves().save(tmp_path / "turned.png", exif=exif)
    pixels = read_picture(tmp_path / "turned.png", None)
    assert pixels.shape == (30, 20, 3)
    assert tuple(pixels[0, 0]) == RED
    assert tuple(pixels[-1, 0]) == GREEN


def test_ways_to_another_size(tmp_path: Path) -> None:
    path = tmp_path / "wide.png"
    image = Image.new("RGB", (40, 20), RED)
    image.paste(GREEN, (10, 0, 30, 20))  # the middle half
    image.save(path)
    crop, stretch, pad = (read_picture(path, (8, 8), resize=way) for way in ("crop", "stretch", "pad"))
    assert (crop[:, 1:-1] == GREEN).all()
    assert [tuple(pixel) for pixel in stretch[4, [0, 4, 7]]] == [RED, GREEN, RED]
    assert not pad[0].any()
    assert [tuple(pixel) for pixel in pad[4, [0, 4, 7]]] == [RED, GREEN, RED]


def test_a_large_jpeg_ends_as_it_would_without_the_quick_way(tmp_path: Path) -> None:
    smooth = np.linspace(0, 255, 800).astype(np.uint8)
    Image.fromarray(np.stack([np.tile(smooth, (600, 1))] * 3, -1)).save(tmp_path / "large.jpg", quality=95)
    found = read_picture(tmp_path / "large.jpg", (32, 32)).astype(int)
    with Image.open(tmp_path / "large.jpg") as image:
        expected = np.asarray(image.crop((100, 0, 700, 600)).resize((32, 32), Image.Resampling.BOX))
    assert np.abs(found - expected).max() <= 3


def test_a_picture_of_a_pooled_set_gives_the_pixels_of_the_set(tmp_path: Path) -> None:
    full, pooled = load_dataset("fashion-mini"), load_dataset("fashion-mini", image_size=14)
    for index in range(20):
        Image.fromarray(full.x_test[index, ..., 0]).save(tmp_path / "one.png")
        found = read_picture(tmp_path / "one.png", (14, 14), 1, pooled.resize)
        np.testing.assert_array_equal(found, pooled.x_test[index])


@pytest.mark.parametrize("content", [b"", b"no picture", None])
def test_what_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "broken.png"
    if content is None:  # cut short
        halves().resize((300, 200)).effect_spread(20).save(path)
        content = path.read_bytes()[:200]
    path.write_bytes(content)
    with pytest.raises(SlimnetError, match=r"broken\.png cannot be read as a picture: "):
        read_picture(path, (8, 8))
    with pytest.raises(SlimnetError, match="is not there"):
        read_picture(tmp_path / "missing.png", (8, 8))
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "floats.tif")
    with pytest.raises(SlimnetError, match="floating-point"):
        read_picture(tmp_path / "floats.tif", (8, 8))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.png")
    with pytest.raises(SlimnetError, match=r"x\.png cannot be read as a picture: it is no file"):
        read_picture(tmp_path / "x.png", None)
