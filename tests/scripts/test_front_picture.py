"""The picture of the front in the README, made from a study."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from PIL import Image

from slimnet.errors import SlimnetError

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
sys.path.insert(0, str(Path(__file__).parents[1] / "sweeps"))

import front_picture
from browser import CHROMIUM

PAGE = "<html><head></head><body style='background: rgb(0, 0, 255)'></body></html>"


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine to draw it")
def test_a_page_is_photographed(tmp_path: Path) -> None:
    front_picture.photograph(PAGE, tmp_path / "front.png")
    with Image.open(tmp_path / "front.png") as picture:
        assert picture.size == (front_picture.WIDTH, front_picture.HEIGHT)
        assert picture.convert("RGB").getpixel((5, 5)) == (0, 0, 255)


def test_without_a_browser_it_is_said_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SlimnetError, match=r"test-extras\.sh"):
        front_picture.photograph(PAGE, tmp_path / "front.png")
