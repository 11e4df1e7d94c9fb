"""Folders of small pictures, and a data folder of the test's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

COLOURS = {"cat": (200, 60, 60), "dog": (60, 200, 60), "eel": (60, 60, 200)}
Draw = Callable[..., Path]


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where what is decoded and remembered goes."""
    folder = tmp_path / "kept"
    monkeypatch.setenv("SLIMNET_DATA", str(folder))
    return folder


@pytest.fixture
def draw(tmp_path: Path) -> Draw:
    """Draws a folder per class below `where`, with `count` noisy pictures in each, of odd sizes if asked."""

    def call(where: str = "pets", count: int = 10, *, odd: bool = False, first: int = 0) -> Path:
        for label, (name, colour) in enumerate(COLOURS.items()):
            folder = tmp_path / where / name
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(first, first + count):
                size = (12 + number % 5, 10 + 3 * label) if odd else (12, 10)
                noise = np.random.default_rng([label, number]).integers(-40, 40, (size[1], size[0], 3))
                pixels = (np.array(colour) + noise).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number:03}.png")
        return tmp_path / where

    return call
