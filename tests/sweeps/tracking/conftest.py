"""The real wandb SDK, with a server on the loopback to talk to."""

from __future__ import annotations

from pathlib import Path

import pytest
from wandb_account import no_account, server, wait

__all__ = ["no_account", "server", "wait"]


@pytest.fixture
def study_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "smoke"
    folder.mkdir(parents=True)
    return folder
