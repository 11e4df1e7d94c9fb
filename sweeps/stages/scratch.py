"""The copy of a stage on this disk, in which it is computed, and what of it was last like the stage at a URL.

.store.json holds the latter.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from filelock import Timeout

from sweeps.claim import lock_of
from sweeps.files import write_json, write_text
from sweeps.stages.folder import SMALL_FILES, StageFolder
from sweeps.stages.manifest import Manifest, from_fields
from sweeps.stages.remote import OpenFile

BASE = ".store.json"

Stat = tuple[int, int]
"""Size and time of a file."""


@dataclass(frozen=True)
class Synced:
    """What this disk's copy and the URL agreed on last.

    Attributes:
        manifest: the stage.json of then.
        stat: of the checkpoint's file, if that was here too.
    """

    manifest: Manifest
    stat: Stat | None


@dataclass(frozen=True)
class Snapshot:
    """A stage as it is on this disk at a moment.

    Attributes:
        files: the text of the small files, by name.
        network: the file of the checkpoint; None if there is none.
    """

    files: dict[str, str]
    network: OpenFile | None


class Scratch:
    """The copy.

    Args:
        folder: with its files.
    """

    def __init__(self, folder: StageFolder) -> None:
        self.path = folder.path
        self.checkpoint = folder.checkpoint
        self._base = folder.path / BASE

    def files(self) -> dict[str, str]:
        """The text of the small files that there are, by name."""
        found = {}
        for name in SMALL_FILES:
            with suppress(FileNotFoundError):
                found[name] = (self.path / name).read_bytes().decode(errors="replace")
        return found

    def stat(self) -> Stat | None:
        """Of the checkpoint; None if there is none."""
        with suppress(FileNotFoundError):
            found = self.checkpoint.stat()
            return found.st_size, found.st_mtime_ns
        return None

    def snapshot(self) -> Snapshot:
        """All of it as it is now."""
        network = None
        with suppress(FileNotFoundError):
            network = OpenFile(self.checkpoint)
        return Snapshot(self.files(), network)

    def synced(self) -> Synced | None:
        """What it and the URL agreed on last; None if that is not known."""
        with suppress(OSError, ValueError, TypeError, LookupError, AttributeError):
            found = json.loads(self._base.read_bytes())
            stat = found["stat"]
            return Synced(from_fields(found["manifest"]), tuple(stat) if stat else None)
        return None

    def note(self, manifest: Manifest, stat: Stat | None) -> None:
        """Note what it and the URL agree on now."""
        write_json(self._base, {"manifest": asdict(manifest), "stat": stat})

    def forget_synced(self) -> None:
        """Note that the URL no longer has what they agreed on."""
        self._base.unlink(missing_ok=True)

    def forget_network(self) -> None:
        """Have the next upload leave out the network, which it keeps if only this disk lacks it."""
        if synced := self.synced():
            self.note(replace(synced.manifest, network=None, bytes=0), None)

    def drop_network(self) -> bool:
        """Delete the network, if there is another at the URL."""
        synced = self.synced()
        if synced is None or synced.manifest.network is None or self.stat() != synced.stat:
            return False
        self._delete_checkpoints()
        return True

    def become(self, found: Manifest) -> None:
        """Make it like the stage at the URL; its network comes when it is needed."""
        synced = self.synced()
        same = synced is not None and synced.manifest.network == found.network and self.stat() == synced.stat
        if not same:
            self._delete_checkpoints()
        self.write_files(found.files)
        self.note(found, synced.stat if same and synced else None)

    def write_files(self, files: dict[str, str]) -> None:
        """Make the small files these."""
        for name in SMALL_FILES:
            if name not in files:
                (self.path / name).unlink(missing_ok=True)
        here = self.files()
        for name in reversed(SMALL_FILES):
            if name in files and here.get(name) != files[name]:
                write_text(self.path / name, files[name])

    def touch(self) -> None:
        """Note that it is used."""
        with suppress(OSError):
            os.utime(self._base)

    def is_unused(self, seconds: float) -> bool:
        """Whether it has not been used for so long."""
        try:
            return time.time() - self._base.stat().st_mtime > seconds
        except OSError:
            return False

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Keep others of this machine from it; yields False if one has it, which has the newest."""
        self.path.mkdir(parents=True, exist_ok=True)
        lock = lock_of(self.path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def _delete_checkpoints(self) -> None:
        for path in (self.checkpoint, self.checkpoint.with_name(f"{self.checkpoint.name}.previous")):
            path.unlink(missing_ok=True)


def drop_unused(root: Path, seconds: float) -> None:
    """Delete the networks of copies that nothing has used for so long, and that are at the URL too.

    Args:
        root: the folder of all copies, <kind>/<key>/.
        seconds: how long; a stage that fetches a network needs it for a moment only.
    """
    for base in root.glob(f"*/*/{BASE}"):
        copy = Scratch(StageFolder(base.parent))
        if copy.is_unused(seconds):
            with copy.alone() as alone:
                if alone and copy.is_unused(seconds):  # still, as its use may have begun
                    copy.drop_network()
