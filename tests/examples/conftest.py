"""What the tests of examples share: a copy of each folder, and programs that run in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PATIENCE = 240  # seconds

Call = Callable[..., str]


@pytest.fixture
def example(tmp_path: Path) -> Callable[[str], Call]:
    """Copies an example, and gives a function that runs Python in the copy and returns what that printed."""

    def begin(name: str) -> Call:
        folder = tmp_path / name
        shutil.copytree(ROOT / "examples" / name, folder)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

        def call(*arguments: str) -> str:
            done = subprocess.run(
                [sys.executable, *arguments],
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                env=environment,
            )
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout

        return call

    return begin
