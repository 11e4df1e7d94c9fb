"""The networks of the front beside the page, under names that say what they are."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from slimnet.errors import SlimnetError
from slimnet.files import aside_of
from sweeps.records import StudyRecord

FOLDER = "networks"


def offer_networks(study: StudyRecord, report: Path) -> Mapping[int, str]:
    """Put the networks of the front into the report's folder, so that links live as long as the page.

    They take no room on the disk: they are further names of the same files, where it has such, else copies.
    Networks that have left the front are removed.

    Args:
        study: whose front it is.
        report: the folder of the page.

    Returns:
        The address of each network from the page, by trial; without those that are not on this disk.

    Raises:
        SlimnetError: a file cannot be written.
    """
    folder = report / FOLDER
    sources = {number: study.trials[number].stages[-1].source.checkpoint for number in study.front}
    names = {number: f"{study.name}-trial-{number}.pt" for number, path in sources.items() if path.is_file()}
    try:
        for number, name in names.items():
            folder.mkdir(parents=True, exist_ok=True)
            _share(sources[number], folder / name)
        for path in folder.glob("*-trial-*.pt"):
            if path.name not in names.values():
                path.unlink(missing_ok=True)  # another process may have
    except OSError as error:
        raise SlimnetError(f"cannot write {error.filename}: {error.strerror}") from error
    return {number: f"{FOLDER}/{name}" for number, name in names.items()}


def _share(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where the disk has no such."""
    if target.exists() and (target.samefile(source) or _same(source, target)):
        return
    aside = aside_of(target)  # as a run and `report` may do this at once
    try:
        try:
            os.link(source, aside)
        except OSError:
            shutil.copy2(source, aside)
        os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)  # it stays where both names already are of one file


def _same(source: Path, target: Path) -> bool:
    one, other = source.stat(), target.stat()
    return (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns)
