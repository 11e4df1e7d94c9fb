"""One driver per study: a claim to its folder that ends when its holder dies, and a note on who holds it.

A second lock, of the whole runs folder, keeps studies from being begun or continued while something is
deleted there; a driver holds it for the moment in which it takes the first.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from slimnet.errors import SlimnetError
from sweeps.claim import Claim
from sweeps.files import write_json

NOTE = "driver.json"
EXIT_BUSY = 3  # of a process, as another one has the study


class StudyBusyError(SlimnetError):
    """Another process holds the study."""


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold a study's folder for this process, once nothing is being deleted in the runs folder.

    Raises:
        StudyBusyError: naming the process that holds it.
    """
    note = folder / NOTE
    claim = Claim(folder, "driver", on_lost=lambda: _leave(folder))
    with removal_lock(folder.parent):
        if not claim.take(wait=False, on_wait=_tell):
            raise _busy(folder)
        _write(note)
    try:
        yield
    finally:
        note.unlink(missing_ok=True)
        claim.release()


class Holder:
    """The process that holds a study's folder, if there is one; looking at it changes nothing.

    One of another machine may be dead, which shows if it is looked at again and again for a while.

    Args:
        folder: of the study.
    """

    def __init__(self, folder: Path) -> None:
        self._note = folder / NOTE
        self._claim = Claim(folder, "driver")

    def since(self) -> float | None:
        """When it has taken the folder, by the clock of the file system; None if none seems to hold it."""
        try:
            since = self._note.stat().st_mtime
        except FileNotFoundError:
            return None
        return since if self._claim.is_taken() else None


def is_held(folder: Path) -> bool:
    """Whether a process seems to hold a study's folder, at a glance."""
    return Holder(folder).since() is not None


def check_free(folder: Path) -> None:
    """Check that no process holds a study's folder, which is taken from one whose machine has died.

    Raises:
        StudyBusyError: naming the process that holds it.
    """
    if not is_held(folder):
        return
    claim = Claim(folder, "driver")
    if not claim.take(wait=False, on_wait=_tell):
        raise _busy(folder)
    (folder / NOTE).unlink(missing_ok=True)
    claim.release()


def removal_lock(runs: Path) -> FileLock:
    """The lock that keeps studies in a runs folder from being begun or continued."""
    return FileLock(runs / ".lock")


def _write(note: Path) -> None:
    """Note that this process holds a study."""
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    write_json(note, {"pid": os.getpid(), "host": platform.node(), "since": since})


def _tell(text: str) -> None:
    """Tell who waits of it, as it takes half a minute."""
    print(text, file=sys.stderr, flush=True)


def _leave(folder: Path) -> None:
    """End this process, as another machine runs the study, which may compute the same stages on a cluster."""
    text = f"Error: {folder.name} is run by {_holder(folder / NOTE)} now, as this machine seemed to be dead\n"
    os.write(2, text.encode())
    os._exit(EXIT_BUSY)


def _busy(folder: Path) -> StudyBusyError:
    holder = _holder(folder / NOTE)
    return StudyBusyError(f"{folder.name} is being run by {holder}; wait for it, or stop it")


def _holder(note: Path) -> str:
    try:
        holder = json.loads(note.read_text())
        return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (OSError, ValueError, KeyError):
        return "another process"
