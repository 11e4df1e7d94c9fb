"""A stage at a URL, and its copy on this disk, in which it is computed.

At the URL a stage is two objects in <kind>/<key>/:

    stage.json           the text of its small files, and which object holds its network: written last, and in
                         one step, so that what it names belongs together
    checkpoint-<x>.pt    its checkpoint, under a name that no other has had

beside lease.json while somebody computes it. On this disk, .store.json says what of the copy is at the URL.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from filelock import Timeout

from slimnet.errors import SlimnetError
from sweeps.claim import ClaimLostError, lock_of
from sweeps.files import write_json, write_text
from sweeps.records import Row, StageRecord
from sweeps.stages.chain import Stage
from sweeps.stages.folder import SMALL_FILES, StageFolder
from sweeps.stages.lease import LOOK, Lease
from sweeps.stages.remote import OpenFile, Remote, UnreachableError, Warn, when_reachable
from sweeps.stages.uploads import Uploads

FORMAT = 1  # of stage.json
FRESH = 2.0  # seconds for which what was seen at the URL counts as new

logger = logging.getLogger("sweeps.stages")


@dataclass(frozen=True)
class Manifest:
    """What stage.json holds.

    Attributes:
        version: raised whenever it is written.
        generation: drawn anew whenever it is written.
        files: the text of the small files, by name.
        network: the object that holds the checkpoint; None if there is none.
        bytes: of it.
    """

    version: int
    generation: str
    files: dict[str, str]
    network: str | None = None
    bytes: int = 0

    @property
    def progress(self) -> tuple[bool, int]:
        """Whether the stage is done, and its epochs."""
        return _progress(self.files)

    def content(self) -> dict[str, Any]:
        """As JSON."""
        return {"format": FORMAT, **asdict(self)}


@dataclass(frozen=True)
class Synced:
    """What this disk's copy and the URL agreed on last.

    Attributes:
        manifest: the stage.json of then.
        stat: size and time of the checkpoint's file, if that was here too.
    """

    manifest: Manifest
    stat: tuple[int, int] | None


@dataclass(frozen=True)
class Snapshot:
    """A stage as it is on this disk at a moment.

    Attributes:
        files: the text of the small files, by name.
        network: the file of the checkpoint; None if there is none.
    """

    files: dict[str, str]
    network: OpenFile | None


class MirroredFolder(StageFolder):
    """A stage's folder on this disk, kept like the stage at a URL.

    Who holds it uploads each finished epoch in the background. All others take over what is newer there.

    Args:
        path: of the folder.
        remote: the place of all stages.
    """

    def __init__(self, path: Path, remote: Remote) -> None:
        super().__init__(path)
        self._remote = remote
        self._name = f"{path.parent.name}/{path.name}"
        self._uploads: Uploads[Snapshot] | None = None  # while it is held
        self._lease: Lease | None = None  # then, too
        self._tried = ""  # the generation that was written last, perhaps without an answer
        self._seen = -FRESH

    @property
    def manifest(self) -> str:
        """The name of the object that is written last."""
        return f"{self._name}/stage.json"

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
        if self.checkpoint.is_file():
            return
        self._take_over(push=False)
        if self.state() == "done":
            with lock_of(self.path):
                self._download()

    def drop_network(self) -> bool:
        """Delete this disk's copy of the network, if there is another at the URL."""
        synced = self._synced()
        if synced is None or synced.manifest.network is None or self._stat() != synced.stat:
            return False
        self.checkpoint.unlink(missing_ok=True)
        return True

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
            lease = self._new_lease()
            try:
                if not (
                    alone
                    and self._taken(lease, stop, warn)
                    and when_reachable(lambda: self._begin(lease), stop, warn)
                ):
                    yield False
                    return
                self._lease = lease
                self._uploads = Uploads(lambda snapshot: self._push(snapshot, lease), warn)
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
            self._uploads.put(self._snapshot())
            return
        try:
            self._take_over(push=True)
        except UnreachableError as error:
            logger.warning("%s: %s; it is uploaded later", self._name, error.what)

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
        with suppress(UnreachableError), self._alone_here() as alone:
            if alone:
                self._download()  # as a checkpoint that is not here seems damaged
        had_network = self._stat() is not None
        super().forget_failure()
        if had_network and self._stat() is None:
            self._forget_network()
        self.publish()

    # Mending

    def mend(self, stage: Stage) -> tuple[StageRecord, list[str]]:
        """Bring this disk and the URL to the same state; what is damaged here is taken from there."""
        synced = self._synced()
        if synced is not None and self._look(stage)[1]:
            with self._alone_here() as alone:
                if alone:
                    self._write_small(synced.manifest.files)
        self.publish()
        record, said = super().mend(stage)
        if said:
            self.publish()
        return record, said

    def give_up_network(self, reason: str) -> list[str]:
        """Set aside the network of a finished stage, which is damaged; its epochs are lost."""
        said = super().give_up_network(reason)
        self._forget_network()
        self.publish()
        return said

    # This disk and the URL

    def _taken(self, lease: Lease, stop: Callable[[], bool], warn: Warn) -> bool:
        """Wait for the right to write at the URL; False if `stop` ended that."""
        taken: list[bool] = []
        while when_reachable(lambda: taken.append(lease.take()), stop, warn):
            if taken[-1]:
                return True
            end = time.monotonic() + LOOK
            while time.monotonic() < end and not stop():
                time.sleep(min(0.2, LOOK))
        return False

    def _new_lease(self) -> Lease:
        return Lease(self._remote, f"{self._name}/lease.json")

    def _begin(self, lease: Lease) -> None:
        """Bring this disk up to date, with the checkpoint, and delete what torn uploads have left."""
        self._bring_up_to_date(lease)
        if self.state() != "done":
            self._download()
        synced = self._synced()
        kept = synced.manifest.network if synced else None
        left = [name for name in self._remote.names(self._name) if "/checkpoint-" in name and name != kept]
        self._remote.delete(*left)

    def _bring_up_to_date(self, lease: Lease) -> None:
        """Take over what is newer at the URL, or upload what is newer here; with the lease."""
        found, _ = self._look_at_url()
        if self._align(found):
            self._push(self._snapshot(), lease, over=found)

    @contextmanager
    def _alone_here(self) -> Iterator[bool]:
        """Keep others of this machine from the copy; yields False if one has it, which has the newest."""
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

    def _take_over(self, *, push: bool) -> None:
        """Take over what is newer at the URL, and upload what is newer here if `push` and nobody computes it.

        Nothing is done while a process of this machine holds the stage: it has the newest.

        Raises:
            UnreachableError: the URL cannot be reached.
        """
        self._seen = time.monotonic()
        found = self._manifest()
        if found is None and not (push and self.path.exists()):
            return
        with self._alone_here() as alone:
            if not alone:
                return
            synced = self._synced()
            known = synced.manifest if synced else None
            if found and known and found.version <= known.version and found.generation != known.generation:
                found, _ = self._look_at_url()  # a process of this machine may have uploaded since
            if not (self._align(found) and push):
                return
            lease = self._new_lease()
            try:
                if lease.take():  # else who has it uploads what is newer
                    self._bring_up_to_date(lease)
            except ClaimLostError as error:
                logger.warning("%s: %s", self._name, error)
            finally:
                lease.release()

    def _align(self, found: Manifest | None) -> bool:
        """Take over what is newer at the URL.

        What was not changed here follows the URL, unless a former writer came late there. Of two that went on
        apart, the one that is further counts.

        Returns:
            Whether what is here is newer.
        """
        synced, files, stat = self._synced(), self._small(), self._stat()
        known = synced.manifest if synced else None
        has_network = stat is not None or known is None or known.network is None
        if found is None:
            if not (has_network and (set(files) - {"spec.json"} or stat)):
                return False
            self._base.unlink(missing_ok=True)  # what it names is gone
            return True
        progress, is_news = _progress(files), known is None or found.generation != known.generation
        trained = stat not in (None, synced and synced.stat)  # else of a done stage, it is another's
        changed = known is None or files != known.files or (trained and not known.progress[0])
        if changed:
            is_newer = not is_news or (has_network and progress > found.progress)
        else:
            late = known is not None and is_news and found.version <= known.version
            is_newer = late and has_network and not trained and progress > found.progress
        if not is_newer and (is_news or (trained and not changed)):
            self._apply(found, synced)
        return is_newer

    def _apply(self, found: Manifest, synced: Synced | None) -> None:
        """Make this disk's copy like the stage at the URL; its network comes when it is needed."""
        same = synced is not None and synced.manifest.network == found.network and self._stat() == synced.stat
        if not same:
            self._drop_checkpoints()
        self._write_small(found.files)
        self._note(found, synced.stat if same and synced else None)

    def _write_small(self, files: dict[str, str]) -> None:
        for name in SMALL_FILES:
            if name not in files:
                (self.path / name).unlink(missing_ok=True)
        here = self._small()
        for name in reversed(SMALL_FILES):
            if name in files and here.get(name) != files[name]:
                write_text(self.path / name, files[name])

    def _drop_checkpoints(self) -> None:
        for path in (self.checkpoint, self.checkpoint.with_name(f"{self.checkpoint.name}.previous")):
            path.unlink(missing_ok=True)

    def _download(self) -> None:
        """Fetch the checkpoint that this disk's copy lacks."""
        synced = self._synced()
        if synced is None or synced.manifest.network is None or self.checkpoint.is_file():
            return
        manifest = synced.manifest
        try:
            self._remote.download(manifest.network or "", self.checkpoint, manifest.bytes)
        except FileNotFoundError:
            return  # the training begins anew, or the network is computed again
        self._note(manifest, self._stat())

    def _snapshot(self) -> Snapshot:
        network = None
        with suppress(FileNotFoundError):
            network = OpenFile(self.checkpoint)
        return Snapshot(self._small(), network)

    def _forget_network(self) -> None:
        """Have the next upload leave out the network, which it keeps if only this disk lacks it."""
        if synced := self._synced():
            self._note(replace(synced.manifest, network=None, bytes=0), None)

    def _push(self, snapshot: Snapshot, lease: Lease, over: Manifest | None = None) -> None:
        """Upload a snapshot; until it is whole there, what was there before counts.

        Args:
            snapshot: what to upload.
            lease: of this process.
            over: what is there, if it is not what was synced last.

        Raises:
            ClaimLostError: another has written there, or has the lease.
        """
        lease.check()
        synced, generation = self._synced(), secrets.token_hex(8)
        known = synced.manifest if synced else None
        version = max(over.version if over else 0, known.version if known else 0) + 1
        manifest = Manifest(version, generation, snapshot.files)
        stat = snapshot.network.stat if snapshot.network else None
        uploaded: list[str] = []
        is_known = synced is not None and stat == synced.stat and (over is None or over == known)
        if known is not None and (snapshot.network is None or (is_known and known.network)):
            manifest = replace(manifest, network=known.network, bytes=known.bytes)
        elif snapshot.network is not None:
            uploaded = [f"{self._name}/checkpoint-{generation}.pt"]
            self._remote.upload(uploaded[0], snapshot.network)
            manifest = replace(manifest, network=uploaded[0], bytes=snapshot.network.stat[0])
        there, tag = self._look_at_url()
        if there is None and manifest.network and not uploaded:  # it was deleted by hand, with the network
            self._base.unlink(missing_ok=True)
            self._push(snapshot, lease)
            return
        try:
            lease.check()
            expected = over or known
            if there and there.generation not in (expected and expected.generation, self._tried):
                lease.lose()
            self._tried = generation
            content = json.dumps(manifest.content(), ensure_ascii=False).encode()
            if not self._remote.replace(self.manifest, content, tag):
                lease.lose()
        except ClaimLostError:
            self._remote.delete(*uploaded)
            raise
        self._note(manifest, stat)
        former = {one.network for one in (known, there) if one and one.network} - {manifest.network}
        self._remote.delete(*sorted(filter(None, former)))

    def _look_at_url(self) -> tuple[Manifest | None, str | None]:
        """What is at the URL at this moment, and its tag for `Remote.replace`."""
        content, tag = self._remote.look(self.manifest)
        return self._parsed(content), tag

    def _manifest(self) -> Manifest | None:
        """What is at the URL; None if there is nothing, or nothing that can be read."""
        return self._parsed(self._remote.read(self.manifest))

    def _parsed(self, content: bytes | None) -> Manifest | None:
        if content is None:
            return None
        try:
            found = json.loads(content)
            if found.pop("format") != FORMAT:
                raise SlimnetError(
                    f"{self._remote.url}/{self.manifest} was written by another version of slimnet; "
                    "use that one"
                )
            return _manifest(found)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            logger.warning("%s/%s is damaged: %s", self._remote.url, self.manifest, error)
            return None

    def _synced(self) -> Synced | None:
        with suppress(OSError, ValueError, TypeError, LookupError):
            found = json.loads(self._base.read_bytes())
            stat = found["stat"]
            return Synced(_manifest(found["manifest"]), tuple(stat) if stat else None)
        return None

    def _note(self, manifest: Manifest, stat: tuple[int, int] | None) -> None:
        write_json(self._base, {"manifest": asdict(manifest), "stat": stat})

    def _small(self) -> dict[str, str]:
        """The text of the small files that there are."""
        found = {}
        for name in SMALL_FILES:
            with suppress(FileNotFoundError):
                found[name] = (self.path / name).read_bytes().decode(errors="replace")
        return found

    def _stat(self) -> tuple[int, int] | None:
        with suppress(FileNotFoundError):
            found = self.checkpoint.stat()
            return found.st_size, found.st_mtime_ns
        return None

    @property
    def _base(self) -> Path:
        return self.path / ".store.json"


def _manifest(content: dict[str, Any]) -> Manifest:
    """The manifest in JSON.

    Raises:
        TypeError: it is none.
    """
    found = Manifest(**content)
    texts = [found.generation, *found.files, *found.files.values(), found.network or ""]
    numbers = (found.version, found.bytes)
    if not all(isinstance(text, str) for text in texts) or not all(isinstance(n, int) for n in numbers):
        raise TypeError("it is no manifest")
    return found


def _progress(files: dict[str, str]) -> tuple[bool, int]:
    return "result.json" in files, files.get("history.jsonl", "").count("\n")
