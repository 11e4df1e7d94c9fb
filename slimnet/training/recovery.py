"""The checkpoints of a training in progress: the newest, and the one before should that be damaged."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from slimnet.checkpoint import Checkpoint, DamagedFileError, read, save

logger = logging.getLogger(__name__)


def previous(path: Path) -> Path:
    """Where the checkpoint before the one at `path` is kept."""
    return path.with_name(f"{path.name}.previous")


def keep(path: Path, model: nn.Module, training: dict[str, Any]) -> None:
    """Write the newest checkpoint; the one that was there becomes the one before.

    Raises:
        SlimnetError: as `slimnet.save`; both files are then as they were.
    """
    save(path, model, training=training, keep_old=previous(path))


def recover(path: Path, on_warning: Callable[[str], None] = logger.warning) -> Checkpoint | None:
    """The newest intact checkpoint; damaged ones are deleted, which `on_warning` is told of.

    The newest may also be missing, when the process was killed as it took its place.

    Returns:
        None when the training has to begin at its first epoch.

    Raises:
        SlimnetError: a file cannot be read, or is foreign rather than damaged.
    """
    defects: list[str] = []
    found: Checkpoint | None = None
    for file in (path, previous(path)):
        if found is None and file.exists():
            try:
                found = read(file)
            except DamagedFileError as error:
                defects.append(f"{file} {error.defect}")
                file.unlink()
    if defects:
        follows = "goes on from the checkpoint before" if found else "starts again from the beginning"
        on_warning(f"{', and '.join(defects)}; the training {follows}")
    return found


def discard(path: Path) -> None:
    """Delete the checkpoints of a training."""
    path.unlink(missing_ok=True)
    previous(path).unlink(missing_ok=True)
