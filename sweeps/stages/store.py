"""Where stages are kept: in a folder, or at a URL with copies in the runs folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from sweeps.config.places import is_url
from sweeps.files import write_text
from sweeps.records import StageRecord
from sweeps.stages.chain import Stage
from sweeps.stages.folder import StageFolder
from sweeps.stages.mirrored import MirroredFolder
from sweeps.stages.remote import Remote
from sweeps.stages.scratch import drop_unused

SCRATCH = "SLIMNET_SCRATCH"  # an environment variable: a folder of this machine for copies
COPIES = ".copies-"  # before the name of a folder with copies of the stages at a URL
KEPT = 3600.0  # seconds for which a node of a cluster keeps a copy of a network that nothing uses
USED_BY = ".used-by-"  # before the name of a file that holds the path of a runs folder with stages there


class Store:
    """The folders of all stages, <kind>/<key>/.

    Args:
        runs: the folder of the studies.
        place: as `stages` of the config: a folder or a URL; runs/stages if not given.

    Attributes:
        remote: the URL; None if they are in a folder.
        is_elsewhere: whether they are in a folder that is not in that of the studies.
    """

    def __init__(self, runs: Path, place: str | None = None) -> None:
        self._runs, self._place = runs, place
        self.remote = Remote(place) if place is not None and is_url(place) else None
        self.is_elsewhere = place is not None and self.remote is None
        self._folder = Path(place) if place is not None and self.is_elsewhere else runs / "stages"

    @property
    def root(self) -> Path:
        """The folder that holds the stages, or this machine's copies of those at a URL."""
        if self.remote is None:
            return self._folder
        name = hashlib.sha256(self.remote.url.encode()).hexdigest()[:8]
        return Path(os.environ.get(SCRATCH) or self._folder).absolute() / f"{COPIES}{name}"

    def __str__(self) -> str:
        """Where the stages are, which all machines call it."""
        return str(self.remote or self.root)

    def note_user(self) -> None:
        """Note in a folder outside the runs folder that it has stages there, so that others leave them."""
        user = self._runs.resolve()
        if not self.root.resolve().is_relative_to(user / "stages"):
            name = hashlib.sha256(str(user).encode()).hexdigest()[:8]
            write_text(self.root / f"{USED_BY}{name}", f"{user}\n")

    def absolute(self) -> Store:
        """The same for a process with another working folder."""
        return Store(self._runs.absolute(), self._place)

    def folder(self, stage: Stage | StageRecord) -> StageFolder:
        """The folder of a stage, which need not exist yet."""
        path = self.root / stage.kind / stage.key
        return StageFolder(path) if self.remote is None else MirroredFolder(path, self.remote)

    def prefetch(self, stages: Iterable[Stage]) -> None:
        """Ask a URL about many stages at once, as they are going to be read.

        Raises:
            SlimnetError: the URL cannot be reached.
        """
        if self.remote is not None:
            keys = {f"{stage.kind}/{stage.key}/stage.json": None for stage in stages}
            self.remote.fetch(list(keys))

    def check(self) -> None:
        """See that stages can be written.

        Raises:
            SlimnetError: they cannot.
        """
        if self.remote is not None:
            self.remote.check()

    def drop_unused(self) -> None:
        """Delete this machine's copies of networks at the URL that nothing has used for a while."""
        if self.remote is not None:
            drop_unused(self.root, KEPT)
