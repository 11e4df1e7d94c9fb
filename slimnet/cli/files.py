"""Files that commands write: checked before the work, and resumable trainings beside them."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from types import FrameType
from typing import Any

import typer

from slimnet.errors import SlimnetError
from slimnet.invocation import interrupted
from slimnet.training.loop import Diverged
from slimnet.training.recovery import discard

EXIT_INTERRUPTED = 130


def check_output(path: Path, force: bool) -> None:
    """Refuse, before any work, a file that is there already or cannot be written."""
    if path.is_dir():
        raise SlimnetError(f"{path} is a folder; give the name of a file in it")
    if path.exists() and not force:
        raise SlimnetError(f"{path} is there already; choose another name, or replace it with --force")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise SlimnetError(f"{path} cannot be written: {folder} is not a folder that you may write to")


def partial_file(out: Path, settings: dict[str, Any], force: bool) -> Path:
    """Where the training for `out` with these settings is kept until it is complete.

    Raises:
        SlimnetError: one with other settings is there and `force`, which drops it, is not given.
    """
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    partial = out.with_name(f"{out.name}.{key}.partial")
    for other in out.parent.glob(f"{escape(out.name)}.*.partial"):
        if other == partial:
            continue
        if not force:
            raise SlimnetError(
                f"{other} is a training begun with other settings; repeat that command to continue it, "
                f"or drop it with --force"
            )
        discard(other)
    return partial


@contextmanager
def resumable(partial: Path) -> Iterator[None]:
    """A training that stays in `partial` when Ctrl-C ends it; `partial` goes when it is done or diverged."""
    try:
        yield
        discard(partial)
    except Diverged:
        discard(partial)
        raise
    except KeyboardInterrupt:
        kept = f"the epochs done are kept in {partial}" if partial.exists() else "no epoch was complete"
        typer.echo(interrupted(f"; {kept}"), err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None


@contextmanager
def tidied() -> Iterator[None]:
    """Let signals end what is done within by an exception, so that no half of a file is left."""

    def end(number: int, frame: FrameType | None) -> None:
        typer.echo(interrupted(), err=True)
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
