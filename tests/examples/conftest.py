"""What the tests of examples share: a copy of each folder, and programs that run in it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "sweeps"))  # test folders are no packages

from running import PATIENCE, ROOT, python, stop_all

Call = Callable[..., str]


@pytest.fixture
def example(tmp_path: Path) -> Iterator[Callable[[str], Call]]:
    """Copies an example, and gives a function that runs Python in the copy and returns what that printed."""

    def begin(name: str) -> Call:
        folder = tmp_path / name
        shutil.copytree(ROOT / "examples" / name, folder)

        def call(*arguments: str) -> str:
            process = python(*arguments, env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, cwd=folder)
            out, err = process.communicate(timeout=PATIENCE)
            assert process.returncode == 0, out + err
            return out

        return call

    yield begin
    stop_all()
