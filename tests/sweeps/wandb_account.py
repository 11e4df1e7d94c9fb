"""Keeps the real wandb SDK away from the user's account and settings, and gives it a server to talk to."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_wandb import API_KEY, FakeWandb
from projected import PATIENCE, Wait

from sweeps.tracking import mode, sdk

TEARDOWN_SECONDS = 20  # a service that hears it ends at once


@pytest.fixture(autouse=True)
def no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No key, no settings, a working folder that must stay empty, and a fresh SDK."""
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith("WANDB_") or name == "NETRC"]:
        del os.environ[name]
    before.pop("WANDB_SERVICE", None)  # of a service that is ended here
    home, cwd = tmp_path / "home", tmp_path / "cwd"
    home.mkdir()
    cwd.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB__FILE_STREAM_TRANSMIT_INTERVAL", "0.1")  # seconds; 15 by default
    monkeypatch.chdir(cwd)
    _forget_settings()
    yield
    _forget_settings()
    os.environ.clear()
    os.environ.update(before)
    assert list(cwd.iterdir()) == [], "something was written into the working folder"
    assert not (home / ".local").exists(), "something was written into the home"


def _forget_settings() -> None:
    """The SDK reads its environment once per process; another test file may have had it read already."""
    if sys.modules.get("wandb"):  # a test may have put None there
        sdk.shut_down(TEARDOWN_SECONDS)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeWandb]:
    """A running server and an environment that points the SDK to it."""
    fake = FakeWandb()
    fake.start()
    monkeypatch.setenv("WANDB_BASE_URL", fake.url)
    monkeypatch.setenv("WANDB_API_KEY", API_KEY)
    yield fake
    fake.stop()
    assert fake.unknown == [], f"the server was asked for {fake.unknown}"


@pytest.fixture(autouse=True)
def wait(monkeypatch: pytest.MonkeyPatch) -> Wait:
    """Sets how long the SDK waits for a server, from seconds that no busy machine needs."""

    def set_to(seconds: float) -> None:
        monkeypatch.setattr(sdk, "INIT_TIMEOUT", seconds)
        monkeypatch.setattr(sdk, "FINISH_TIMEOUT", seconds)
        monkeypatch.setattr(mode, "ANSWER_SECONDS", seconds)

    set_to(PATIENCE)
    return set_to
