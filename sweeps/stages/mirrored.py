"""The folder of a stage whose place is a URL: its copy on this disk, kept like the stage there."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sweeps.claim import lock_of
from sweeps.records import Row, StageRecord
from sweeps.stages.chain import Stage
from sweeps.stages.folder import StageFolder
from sweeps.stages.lease import Lease
from sweeps.stages.remote import Remote, UnreachableError, Warn, when_reachable
from sweeps.stages.scratch import Scratch, Snapshot
from sweeps.stages.sync import Sync
from sweeps.stages.uploads import Uploads

FRESH = 2.0  # seconds for which what was seen at the URL counts as new

logger = logging.getLogger("sweeps.stages")


class MirroredFolder(StageFolder):
    """A stage's folder on this disk, kept like the stage at a URL.

    Who holds it uploads each finished epoch in the background. All others take over what is newer there.

    Args:
        path: of the folder.
        remote: the place of all stages.
    """

    def __init__(self, path: Path, remote: Remote) -> None:
        super().__init__(path)
        self._scratch = Scratch(self)
        self._sync = Sync(remote, f"{path.parent.name}/{path.name}", self._scratch)
        self._uploads: Uploads[Snapshot] | None = None  # while it is held
        self._lease: Lease | None = None  # then, too
        self._seen = -FRESH

    # Reading

    def read(self, stage: Stage) -> StageRecord:
        """The stage as the URL holds it now.

        Raises:
            UnreachableError: the URL cannot be reached.
        """
        self._take_over(push=False)
        return super().read(stage)

    def history(self) -> list[Row]:
        """A row per finished epoch, also of one that is computed elsewhere."""
        if time.monotonic() - self._seen > FRESH and self.state() != "done":
            with suppress(UnreachableError):
                self._take_over(push=False)
        return super().history()

    def network(self) -> Path | None:
        """The file of the network, fetched if it is not on this disk."""
        with suppress(UnreachableError):
            self.fetch_network()
        return super().network()

    def fetch_network(self) -> None:
        """Have the network of a finished stage on this disk.

        Raises:
            UnreachableError: the URL cannot be reached.
        """
        self._scratch.touch()
        if self.checkpoint.is_file():
            return
        self._take_over(push=False)
        if self.state() == "done":
            with lock_of(self.path):
                self._sync.download()

    def drop_network(self) -> bool:
        """Delete this disk's copy of the network, if there is another at the URL."""
        return self._scratch.drop_network()

    # Writing

    def is_prepared(self) -> bool:
        """True, as machines share only the URL."""
        return True

    @contextmanager
    def hold(
        self, stop: Callable[[], bool], warn: Warn = logger.warning, *, wait: bool = True
    ) -> Iterator[bool]:
        """Hold the stage on this disk and at the URL, from which it is brought up to date."""
        self.path.mkdir(parents=True, exist_ok=True)
        with super().hold(stop, warn, wait=wait) as alone:
            lease = self._sync.new_lease()
            try:
                if not (
                    alone
                    and lease.acquire(stop, warn)
                    and when_reachable(lambda: self._sync.begin(lease), stop, warn)
                ):
                    yield False
                    return
                self._lease = lease
                self._uploads = Uploads(lambda snapshot: self._sync.push(snapshot, lease), warn)
                try:
                    yield True
                finally:
                    self._uploads.finish(stop)
                    self._uploads = self._lease = None
                lease.raise_if_lost()
            finally:
                lease.release()

    def check(self) -> None:
        """See that the stage is still this process's, on this disk and, as far as is known, at the URL."""
        super().check()
        if self._lease is not None:
            self._lease.raise_if_lost()

    def publish(self) -> None:
        """Have the URL hold what this disk holds: soon, for who holds the stage, else now if possible."""
        if self._uploads is not None:
            self._uploads.put(self._scratch.snapshot())
            return
        try:
            self._take_over(push=True)
        except UnreachableError as error:
            logger.warning("%s: %s; it is uploaded later", self._sync.name, error.what)

    def commit(self, result: dict[str, Any]) -> None:
        """Write the result, after which the stage is done."""
        super().commit(result)
        self.publish()

    def fail(self, reason: str, detail: str) -> None:
        """Record why the stage failed, unless it is done elsewhere."""
        with suppress(UnreachableError):
            self._take_over(push=False)
        if self.state() != "done":
            super().fail(reason, detail)
            self.publish()

    def forget_failure(self) -> None:
        """Let the stage run again, from its last epoch."""
        with suppress(UnreachableError), self._scratch.alone() as alone:
            if alone:
                self._sync.download()  # as a checkpoint that is not here seems damaged
        had_network = self._scratch.stat() is not None
        super().forget_failure()
        if had_network and self._scratch.stat() is None:
            self._scratch.forget_network()
        self.publish()

    # Mending

    def mend(self, stage: Stage) -> tuple[StageRecord, list[str]]:
        """Bring this disk and the URL to the same state; what is damaged here is taken from there."""
        synced = self._scratch.synced()
        if synced is not None and self._look(stage)[1]:
            with self._scratch.alone() as alone:
                if alone:
                    self._scratch.write_files(synced.manifest.files)
        self.publish()
        record, said = super().mend(stage)
        if said:
            self.publish()
        return record, said

    def give_up_network(self, reason: str) -> list[str]:
        """Set aside the network of a finished stage, which is damaged; its epochs are lost."""
        said = super().give_up_network(reason)
        self._scratch.forget_network()
        self.publish()
        return said

    def _take_over(self, *, push: bool) -> None:
        self._seen = time.monotonic()
        self._sync.take_over(push=push)
