"""One driver per study: a lock that is released when its holder dies, and a note on who holds it."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from slimnet.errors import SlimnetError
from sweeps.files import write_json


class StudyBusyError(SlimnetError):
    """Another process holds the study."""


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold a study's folder for this process.

    Raises:
        StudyBusyError: naming the process that holds it.
    """
    note = folder / "driver.json"
    lock = FileLock(folder / "driver.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise StudyBusyError(
            f"{folder.name} is being run by {_holder(note)}; wait for it, or stop it"
        ) from None
    try:
        write_json(
            note, {"pid": os.getpid(), "host": platform.node(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        )
        yield
    finally:
        note.unlink(missing_ok=True)
        lock.release()


def is_held(folder: Path) -> bool:
    """Whether a process holds a study's folder; changes nothing."""
    if not (folder / "driver.json").exists():
        return False
    try:
        with FileLock(folder / "driver.lock", timeout=0):
            return False
    except (Timeout, OSError):  # or it is someone else's
        return True


def _holder(note: Path) -> str:
    try:
        holder = json.loads(note.read_text())
        return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (OSError, ValueError, KeyError):
        return "another process"
