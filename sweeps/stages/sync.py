"""Keeps a stage at a URL and its copy on this disk alike: what is newer on either side is taken over.

At the URL a stage is two objects in <kind>/<key>/:

    stage.json           the text of its small files, and which object holds its network: written last, and in
                         one step, so that what it names belongs together
    checkpoint-<x>.pt    its checkpoint, under a name that no other has had

beside lease.json while somebody computes it.
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import replace

from slimnet.errors import SlimnetError
from sweeps.claim import ClaimLostError
from sweeps.stages.lease import Lease
from sweeps.stages.manifest import AnotherFormatError, Manifest, dump, load, progress_in
from sweeps.stages.remote import Remote
from sweeps.stages.scratch import Scratch, Snapshot

logger = logging.getLogger("sweeps.stages")


class Sync:
    """A stage at a URL, and its copy here.

    Args:
        remote: the place of all stages.
        name: the folder of the stage there.
        scratch: its copy here.

    Methods raise UnreachableError if the URL cannot be reached.
    """

    def __init__(self, remote: Remote, name: str, scratch: Scratch) -> None:
        self.name = name
        self._remote, self._scratch = remote, scratch
        self._manifest = f"{name}/stage.json"  # the object that is written last
        self._tried = ""  # the generation that was written last, perhaps without an answer
        self._torn: set[str] = (
            set()
        )  # uploads that nothing has named yet; without an answer, they may be there

    def new_lease(self) -> Lease:
        """A lease of the stage, to be taken."""
        return Lease(self._remote, f"{self.name}/lease.json")

    def begin(self, lease: Lease) -> None:
        """Bring this disk up to date, with the checkpoint, and delete what torn uploads have left."""
        self._bring_up_to_date(lease)
        is_done, _ = progress_in(self._scratch.files())
        if not is_done:
            self.download()
        synced = self._scratch.synced()
        kept = synced.manifest.network if synced else None
        left = [name for name in self._remote.names(self.name) if "/checkpoint-" in name and name != kept]
        self._remote.delete(*left)

    def take_over(self, *, push: bool) -> None:
        """Take over what is newer at the URL, and upload what is newer here if `push` and nobody computes it.

        Nothing is done while a process of this machine holds the stage: it has the newest.
        """
        found = self._parsed(self._remote.read(self._manifest))
        if found is None and not (push and self._scratch.path.exists()):
            return
        with self._scratch.alone() as alone:
            if not alone:
                return
            synced = self._scratch.synced()
            known = synced.manifest if synced else None
            if found and known and found.version <= known.version and found.generation != known.generation:
                found, _ = self._look()  # a process of this machine may have uploaded since
            if not (self._align(found) and push):
                return
            lease = self.new_lease()
            try:
                if lease.take():  # else who has it uploads what is newer
                    self._bring_up_to_date(lease)
            except ClaimLostError as error:
                logger.warning("%s: %s", self.name, error)
            finally:
                lease.release()

    def download(self) -> None:
        """Fetch the checkpoint that this disk's copy lacks."""
        synced = self._scratch.synced()
        if synced is None or synced.manifest.network is None or self._scratch.checkpoint.is_file():
            return
        manifest = synced.manifest
        try:
            self._remote.download(manifest.network or "", self._scratch.checkpoint, manifest.bytes)
        except FileNotFoundError:
            return  # the training begins anew, or the network is computed again
        self._scratch.note(manifest, self._scratch.stat())

    def push(self, snapshot: Snapshot, lease: Lease, over: Manifest | None = None) -> None:
        """Upload a snapshot; until it is whole there, what was there before counts.

        Args:
            snapshot: what to upload.
            lease: of this process.
            over: what is there, if it is not what was synced last.

        Raises:
            ClaimLostError: another has written there, or has the lease.
        """
        lease.check()
        synced, generation = self._scratch.synced(), secrets.token_hex(8)
        known = synced.manifest if synced else None
        version = max(over.version if over else 0, known.version if known else 0) + 1
        manifest = Manifest(version, generation, snapshot.files)
        stat = snapshot.network.stat if snapshot.network else None
        uploaded: list[str] = []
        is_known = synced is not None and stat == synced.stat and (over is None or over == known)
        if known is not None and (snapshot.network is None or (is_known and known.network)):
            manifest = replace(manifest, network=known.network, bytes=known.bytes)
        elif snapshot.network is not None:
            uploaded = [f"{self.name}/checkpoint-{generation}.pt"]
            self._torn.update(uploaded)
            self._remote.upload(uploaded[0], snapshot.network)
            manifest = replace(manifest, network=uploaded[0], bytes=snapshot.network.stat[0])
        there, tag = self._look()
        if there is None and manifest.network and not uploaded:  # it was deleted by hand, with the network
            self._scratch.forget_synced()
            self.push(snapshot, lease)
            return
        try:
            lease.check()
            expected = over or known
            if there and there.generation not in (expected and expected.generation, self._tried):
                lease.lose()
            self._tried = generation
            if not self._remote.replace(self._manifest, dump(manifest), tag):
                lease.lose()
        except ClaimLostError:
            self._remote.delete(*uploaded)
            raise
        self._scratch.note(manifest, stat)
        former = {one.network for one in (known, there) if one and one.network} | self._torn
        self._remote.delete(*sorted(former - {manifest.network}))
        self._torn.clear()

    def _bring_up_to_date(self, lease: Lease) -> None:
        """Take over what is newer at the URL, or upload what is newer here; with the lease."""
        found, _ = self._look()
        if self._align(found):
            self.push(self._scratch.snapshot(), lease, over=found)

    def _align(self, found: Manifest | None) -> bool:
        """Take over what is newer at the URL.

        What was not changed here follows the URL, unless a former writer came late there. Of two that went on
        apart, the one that is further counts.

        Returns:
            Whether what is here is newer.
        """
        scratch = self._scratch
        synced, files, stat = scratch.synced(), scratch.files(), scratch.stat()
        known = synced.manifest if synced else None
        has_network = stat is not None or known is None or known.network is None
        if found is None:
            if not (has_network and (set(files) - {"spec.json"} or stat)):
                return False
            scratch.forget_synced()  # what it names is gone
            return True
        progress, is_news = progress_in(files), known is None or found.generation != known.generation
        trained = stat not in (None, synced and synced.stat)  # else of a done stage, it is another's
        changed = known is None or files != known.files or (trained and not known.progress[0])
        if changed:
            is_newer = not is_news or (has_network and progress > found.progress)
        else:
            late = known is not None and is_news and found.version <= known.version
            is_newer = late and has_network and not trained and progress > found.progress
        if not is_newer and (is_news or (trained and not changed)):
            scratch.become(found)
        return is_newer

    def _look(self) -> tuple[Manifest | None, str | None]:
        """What is at the URL at this moment, and its tag for `Remote.replace`."""
        content, tag = self._remote.look(self._manifest)
        return self._parsed(content), tag

    def _parsed(self, content: bytes | None) -> Manifest | None:
        """What is at the URL; None if there is nothing, or nothing that can be read."""
        if content is None:
            return None
        where = f"{self._remote.url}/{self._manifest}"
        try:
            return load(content)
        except AnotherFormatError:
            raise SlimnetError(f"{where} was written by another version of slimnet; use that one") from None
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            logger.warning("%s is damaged: %s", where, error)
            return None
