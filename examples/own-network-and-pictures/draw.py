"""Draws pictures of three shapes into a folder per class: python draw.py FOLDER"""

import random
import sys
from pathlib import Path

from PIL import Image, ImageDraw

SHAPES = ("cross", "disc", "square")
COUNT = 200  # of each


def draw(shape: str, dice: random.Random) -> Image.Image:
    """A picture of a shape, of any size, place and colour."""
    side = dice.randint(32, 48)
    picture = Image.new("RGB", (side, side), tuple(dice.choices(range(100), k=3)))
    pen, colour = ImageDraw.Draw(picture), tuple(dice.choices(range(100, 256), k=3))
    radius = dice.randint(6, 12)
    x, y = (dice.randint(radius, side - radius) for _ in range(2))
    if shape == "disc":
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    elif shape == "square":
        pen.rectangle((x - radius, y - radius, x + radius, y + radius), fill=colour)
    else:
        pen.line((x - radius, y - radius, x + radius, y + radius), colour, width=3)
        pen.line((x - radius, y + radius, x + radius, y - radius), colour, width=3)
    return picture


def main(folder: Path) -> None:
    """Draw all pictures, the same ones every time."""
    for shape in SHAPES:
        (folder / shape).mkdir(parents=True, exist_ok=True)
        for number in range(COUNT):
            draw(shape, random.Random(f"{shape} {number}")).save(folder / shape / f"{number:03}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
