"""The file that ships can be made again from upstream's files, byte for byte."""

import subprocess
import sys
import zlib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
SOURCE = Path("/usr/share/datasets/fashion-mnist")


@pytest.mark.skipif(
    not SOURCE.is_dir(), reason=f"{SOURCE} (Debian package dataset-fashion-mnist) is not there"
)
@pytest.mark.skipif("ng" in zlib.ZLIB_RUNTIME_VERSION, reason="zlib-ng compresses to other bytes than zlib")
def test_the_script_writes_the_shipped_file(tmp_path: Path) -> None:
    out = tmp_path / "fashion-mini.npz"
    subprocess.run(
        [sys.executable, REPOSITORY / "scripts" / "make_fashion_mini.py", "--out", out], check=True
    )
    assert out.read_bytes() == (REPOSITORY / "slimnet" / "data" / "fashion-mini.npz").read_bytes()
    assert list(tmp_path.iterdir()) == [out]
