"""Stages at a URL: what readers see of them, what is taken over, and what an outage or a kill leaves."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from object_store import S3, Fault, new_place
from running import wait_until

import slimnet.checkpoint
from slimnet.errors import SlimnetError
from sweeps.claim import ClaimLostError
from sweeps.config import load_config, resolve
from sweeps.stages import Stage, StageFolder, Store, chain
from sweeps.stages import lease as leases
from sweeps.stages import remote as remotes
from sweeps.stages.lease import Lease
from sweeps.stages.remote import OpenFile, Remote, UnreachableError
from sweeps.stages.scratch import Scratch
from sweeps.stages.store import KEPT

METRICS = {"params": 5, "macs": 7, "val_accuracy": 0.5, "test_accuracy": 0.25}


@pytest.fixture(params=["memory", "file", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty place of each kind."""
    yield from new_place(request, tmp_path)


@pytest.fixture
def stage() -> Stage:
    return chain(resolve(load_config("smoke"), {"sparse.lambda": 0.02, "prune.ratio": 0.5}), "float32")[0]


@pytest.fixture
def at(tmp_path: Path, url: str, stage: Stage) -> Callable[[str], StageFolder]:
    """The stage's folder in one of several runs folders that share a place."""

    def folder(runs: str) -> StageFolder:
        return Store(tmp_path / runs, url).folder(stage)

    return folder


def result(stage: Stage) -> dict[str, Any]:
    return {
        "kind": stage.kind, "key": stage.key, "metrics": METRICS, "seconds": 1.0, "environment": {},
    }  # fmt: skip


def train(folder: StageFolder, *epochs: int) -> None:
    """What a worker does for some epochs."""
    for epoch in epochs:
        folder.checkpoint.write_bytes(b"epoch %d" % epoch)
        folder.append({"epoch": epoch, "loss": 1 / epoch})
        folder.publish()


def held(folder: StageFolder, work: Callable[[], None] = lambda: None) -> str:
    """Hold a folder and work there; what the checkpoint holds then."""
    with folder.hold(lambda: False) as alone:
        assert alone
        before = folder.checkpoint.read_bytes().decode() if folder.checkpoint.exists() else ""
        work()
    return before


def finish(folder: StageFolder, stage: Stage, *epochs: int) -> None:
    """What a worker does for the last epochs."""
    train(folder, *epochs)
    folder.checkpoint.write_bytes(b"the network")
    folder.commit(result(stage))


def killed_before_its_upload(folder: StageFolder, epoch: int) -> None:
    """What a worker leaves that was killed when it had saved an epoch."""
    folder.checkpoint.write_bytes(b"epoch %d" % epoch)
    folder.append({"epoch": epoch, "loss": 1 / epoch})


def test_asking_makes_nothing(at: Callable[[str], StageFolder], stage: Stage, tmp_path: Path) -> None:
    assert at("a").read(stage).state == "missing"
    assert not (tmp_path / "a").exists()


def test_a_stage_goes_on_elsewhere_and_its_network_is_fetched_when_needed(
    at: Callable[[str], StageFolder], stage: Stage, url: str
) -> None:
    one, other = at("a"), at("b")
    one.prepare(stage)
    held(one, lambda: train(one, 1))
    record = other.read(stage)
    assert (record.state, record.epochs_done, record.history) == ("partial", 1, one.history())
    assert not other.checkpoint.exists()

    assert held(other, lambda: train(other, 2)) == "epoch 1"
    assert at("c").read(stage).epochs_done == 2

    def finish() -> None:
        one.checkpoint.write_bytes(b"the network")
        one.commit(result(stage))

    assert held(one, finish) == "epoch 2"
    record = other.read(stage)
    assert (record.state, record.metrics) == ("done", METRICS)
    assert not other.checkpoint.exists()  # that of the second epoch would be another
    assert (network := other.network()) is not None
    assert network.read_bytes() == b"the network"
    assert json.loads((other.path / "spec.json").read_text()) == stage.spec.dump()
    assert sorted(name[:10] for name in objects(url)) == ["checkpoint", "stage.json"]  # no garbage, no lease


def test_a_torn_upload_leaves_what_was_there_and_goes_with_the_next_worker(
    at: Callable[[str], StageFolder], stage: Stage, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = at("a")
    held(one, lambda: train(one, 1))
    killed, reached = pytest.MonkeyPatch(), threading.Event()

    def hang(*arguments: object) -> None:
        reached.set()
        threading.Event().wait()

    killed.setattr(Remote, "replace", hang)
    killed.setattr(leases, "BEAT", 1e6)
    folder = at("a")
    threading.Thread(target=lambda: held(folder, lambda: train(folder, 2)), daemon=True).start()
    wait_until(reached.is_set)
    killed.undo()
    assert len([name for name in objects(url) if "checkpoint" in name]) == 2

    monkeypatch.setattr(leases, "EXPIRES", 0.0)  # as of a dead one
    assert at("b").read(stage).epochs_done == 1
    assert held(at("b")) == "epoch 1"
    assert len([name for name in objects(url) if "checkpoint" in name]) == 1


def test_an_outage_costs_nothing(
    at: Callable[[str], StageFolder], stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Epochs go on, are uploaded later, and a worker that ends waits for that, or is stopped."""
    monkeypatch.setattr(remotes, "PATIENCE", 0.0)
    monkeypatch.setattr(remotes, "PAUSE", 0.01)
    one, said, stop = at("a"), list[str](), threading.Event()
    with one.hold(stop.is_set, said.append) as alone:
        assert alone
        down = pytest.MonkeyPatch()
        down.setattr(Remote, "replace", unreachable)
        train(one, 1, 2)
        wait_until(lambda: bool(said))
        stop.set()
    down.undo()
    assert "goes on, and is uploaded later" in said[0]
    assert at("b").read(stage).state == "missing"
    assert one.epochs_done() == 2

    assert at("a").mend(stage)[0].epochs_done == 2  # the next driver makes it good
    assert at("b").read(stage).epochs_done == 2
    assert held(at("b")) == "epoch 2"


def test_a_failure_and_its_retry_reach_others(at: Callable[[str], StageFolder], stage: Stage) -> None:
    at("a").fail("the loss became nan", "")
    assert at("b").read(stage).state == "failed"
    at("b").forget_failure()
    assert at("a").read(stage).state == "missing"


def test_a_damaged_copy_is_taken_from_there_again(at: Callable[[str], StageFolder], stage: Stage) -> None:
    one = at("a")
    held(one, lambda: train(one, 1))
    (one.path / "history.jsonl").write_text("no JSON\n")
    record, said = at("a").mend(stage)
    assert (record.epochs_done, said) == (1, [])

    def finish() -> None:
        train(one, 2)
        one.commit(result(stage))

    held(one, finish)
    one.checkpoint.write_bytes(b"bad")
    assert at("a").mend(stage)[0].state == "done"
    assert (network := at("a").network()) is not None
    assert network.read_bytes() == b"epoch 2"


def test_a_damaged_network_is_fetched_anew(at: Callable[[str], StageFolder], stage: Stage) -> None:
    one, other = at("a"), at("b")

    def finish() -> None:
        train(one, 1, 2)
        one.commit(result(stage))

    held(one, finish)
    other.fetch_network()
    assert other.drop_network()
    assert not other.drop_network()
    assert (network := other.network()) is not None
    assert network.read_bytes() == b"epoch 2"


def test_a_network_that_nothing_has_used_for_a_while_is_kept_at_the_url_alone(
    tmp_path: Path, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "a", f"memory://{tmp_path}/place")
    one = store.folder(stage)

    def drop(age: float) -> bool:
        used = time.time() - age
        os.utime(one.path / ".store.json", (used, used))
        store.drop_unused()
        return not one.checkpoint.exists()

    def finish() -> None:
        train(one, 1, 2)
        one.commit(result(stage))

    held(one, finish)
    with one.hold(lambda: False):
        assert not drop(2 * KEPT), "it is in use"
    assert not drop(KEPT / 2)
    is_unused = Scratch.is_unused

    def just_before_its_use(scratch: Scratch, seconds: float) -> bool:
        try:
            return is_unused(scratch, seconds)
        finally:
            one.fetch_network()

    with monkeypatch.context() as patched:
        patched.setattr(Scratch, "is_unused", just_before_its_use)
        assert not drop(2 * KEPT), "it has been used since"
    assert drop(2 * KEPT)
    assert store.folder(stage).state() == "done"
    one.fetch_network()
    store.drop_unused()
    assert one.checkpoint.read_bytes() == b"epoch 2"
    one.checkpoint.write_bytes(b"what is not at the URL")
    assert not drop(2 * KEPT)


def test_an_outage_is_met_once_and_then_left_alone_for_a_while(
    tmp_path: Path, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else who asks about many stages waits for each."""
    folder, asked = Store(tmp_path / "a", f"memory://{tmp_path}/place").folder(stage), list[str]()

    def hang_up(self: object, path: str, **options: object) -> bytes:
        asked.append(path)
        raise ConnectionError("the line is dead")

    monkeypatch.setattr(remotes, "PATIENCE", 0.0)
    monkeypatch.setattr(type(fsspec.filesystem("memory")), "cat_file", hang_up)
    for _ in range(3):
        with pytest.raises(UnreachableError, match="the line is dead"):
            folder.read(stage)
    assert len(asked) == 1
    monkeypatch.undo()
    monkeypatch.setattr(remotes, "REST", 0.0)
    assert folder.read(stage).state == "missing"


def test_a_network_given_up_is_computed_again_everywhere(
    at: Callable[[str], StageFolder], stage: Stage
) -> None:
    one = at("a")

    def finish() -> None:
        train(one, 1, 2)
        one.commit(result(stage))

    held(one, finish)
    assert at("b").read(stage).state == "done"
    at("b").give_up_network("it is damaged")
    assert at("a").mend(stage)[0].state == "missing"
    assert at("a").network() is None


def test_there_is_one_writer(at: Callable[[str], StageFolder], monkeypatch: pytest.MonkeyPatch) -> None:
    """Another waits; of a writer that is dead, until its counter has stood still."""
    monkeypatch.setattr(leases, "LOOK", 0.01)
    monkeypatch.setattr(leases, "BEAT", 0.02)
    monkeypatch.setattr(leases, "EXPIRES", 0.5)
    one = at("a")
    with one.hold(lambda: False) as alone:
        assert alone
        began = time.monotonic()
        with at("b").hold(lambda: time.monotonic() - began > 1.0) as other:
            assert not other
        train(one, 1)
    with at("b").hold(lambda: False) as other:
        assert other


def test_a_writer_that_was_away_undoes_nothing_and_learns_of_it(
    at: Callable[[str], StageFolder], stage: Stage, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "LOOK", 0.01)
    one, other = at("a"), at("b")

    def go_on() -> None:
        train(one, 1)
        wait_until(lambda: at("c").read(stage).epochs_done == 1)
        monkeypatch.setattr(leases, "EXPIRES", 0.0)  # as if it had given no sign of life
        held(other, lambda: finish(other, stage, 2))
        train(one, 2)

    with pytest.raises(ClaimLostError, match=r"another took .* over"):
        held(one, go_on)
    assert at("c").read(stage).state == "done"
    assert sorted(name[:10] for name in objects(url)) == ["checkpoint", "stage.json"]


def test_a_driver_that_begins_uploads_nothing_while_another_computes(
    at: Callable[[str], StageFolder], stage: Stage
) -> None:
    one, other = at("a"), at("b")
    held(one, lambda: train(one, 1))
    killed_before_its_upload(one, 2)
    with other.hold(lambda: False) as alone:
        assert alone
        assert at("a").mend(stage)[0].epochs_done == 2
        assert at("c").read(stage).epochs_done == 1
        train(other, 2, 3)
    assert at("a").mend(stage)[0].epochs_done == 3
    assert held(at("c")) == "epoch 3"


def test_one_of_two_takes_the_lease_of_a_dead_writer(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "EXPIRES", -1.0)
    Remote(url).write("a/b/lease.json", b'{"owner": "dead", "beat": 7}')
    one, other = Lease(Remote(url), "a/b/lease.json"), Lease(slow := Remote(url), "a/b/lease.json")
    look, took = slow.look, list[bool]()

    def first(name: str) -> tuple[bytes | None, str | None]:
        found = look(name)
        slow.look = look  # type: ignore[method-assign]
        took.append(one.take())
        return found

    slow.look = first  # type: ignore[method-assign]
    assert (other.take(), took) == (False, [True])
    one.check()
    one.release()
    assert objects(url) == []


def test_an_answer_that_was_lost_is_no_other_writer(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    remote, create = Remote(url), Remote.create

    def lost(self: Remote, name: str, content: bytes) -> bool:
        create(self, name, content)
        raise UnreachableError("the line is dead")

    lease = Lease(remote, "a/b/lease.json")
    monkeypatch.setattr(Remote, "create", lost)
    with pytest.raises(UnreachableError):
        lease.take()
    assert lease.take()
    lease.release()


def test_an_upload_that_came_late_is_made_good(
    at: Callable[[str], StageFolder], stage: Stage, url: str
) -> None:
    one, (files, path) = at("a"), fsspec.core.url_to_fs(url, use_listings_cache=False)
    manifest = f"{path}/{stage.kind}/{stage.key}/stage.json"
    held(one, lambda: train(one, 1))
    late = files.cat_file(manifest)
    held(one, lambda: finish(one, stage, 2))
    files.pipe_file(manifest, late)
    assert at("c").read(stage).state == "partial"
    assert at("a").mend(stage)[0].state == "done"
    assert at("c").read(stage).state == "done"
    assert (network := at("c").network()) is not None
    assert network.read_bytes() == b"the network"


def test_a_failure_and_a_retry_elsewhere_leave_the_checkpoint(
    at: Callable[[str], StageFolder], stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(path: Path) -> None:
        if not path.exists():
            raise SlimnetError("it is missing")

    monkeypatch.setattr(slimnet.checkpoint, "read", read)
    one = at("a")
    held(one, lambda: train(one, 1, 2))
    at("driver").read(stage)
    at("driver").fail("its process died", "")
    assert at("other").read(stage).state == "failed"
    at("other").forget_failure()
    assert at("c").read(stage).state == "partial"
    assert held(at("c")) == "epoch 2"


def test_what_was_deleted_there_by_hand_and_computed_again_is_taken_over(
    at: Callable[[str], StageFolder], stage: Stage, url: str
) -> None:
    one, other, files = at("a"), at("b"), fsspec.filesystem(url.partition(":")[0])
    for epoch in (1, 2):
        held(one, lambda epoch=epoch: train(one, epoch))  # type: ignore[misc]
    held(one, lambda: finish(one, stage))
    assert at("c").read(stage).state == "done"
    files.rm(url, recursive=True)
    held(other, lambda: finish(other, stage, 1, 2))
    assert at("c").mend(stage)[0].state == "done"
    assert (network := at("c").network()) is not None
    assert network.read_bytes() == b"the network"


def test_a_write_begins_when_the_one_before_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what comes late undoes it."""
    monkeypatch.setattr(remotes, "ANSWER", 0.05)
    monkeypatch.setattr(remotes, "PATIENCE", 0.0)
    monkeypatch.setattr(remotes, "REST", 0.0)
    remote, gate, begun = Remote("memory://late"), threading.Event(), list[bytes]()
    memory = type(fsspec.filesystem("memory"))
    pipe = memory.pipe_file

    def late(self: Any, path: str, value: bytes, **options: Any) -> None:
        begun.append(value)
        assert value != b"old" or gate.wait(30)
        pipe(self, path, value, **options)

    monkeypatch.setattr(memory, "pipe_file", late)
    for content in (b"old", b"new"):
        with pytest.raises(UnreachableError, match="no answer within"):
            remote.write("it", content)
    assert begun == [b"old"]
    gate.set()
    remote.write("it", b"new")
    assert remote.read("it") == b"new"
    remote.delete("it")


def test_s3_refuses_a_write_over_what_was_not_seen(s3: S3) -> None:
    remote = Remote(s3.new_place())
    assert remote.replace("a/it", b"one", None)
    assert remote.replace("a/it", b"one", None)  # as when the first answer was lost
    assert not remote.replace("a/it", b"other", None)
    _, tag = remote.look("a/it")
    assert remote.replace("a/it", b"two", tag)
    assert not remote.replace("a/it", b"late", tag)
    assert remote.read("a/it") == b"two"
    remote.delete("a/it")
    assert not remote.replace("a/it", b"late", tag)


@pytest.mark.slow  # the clients of S3 wait before they try again
def test_what_a_server_refuses_or_a_line_breaks_is_sent_again_and_readers_see_whole_epochs(
    s3: S3, stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, network = s3.new_place(), bytes(2 * remotes.CHUNK + 7)  # in three parts
    one, said, stop = Store(tmp_path / "one", url).folder(stage), list[str](), threading.Event()
    faults: dict[str, list[Fault]] = {
        "partNumber=1": ["busy", "deaf"],
        "partNumber=2": ["cut", "busy", "cut"],
        "uploadId=": ["busy", "deaf"],
        "stage.json": ["cut", "busy", "deaf"],
    }
    down = threading.Event()

    def fault(method: str, address: str) -> Fault | None:
        kind = next((kind for kind in faults if kind in address), None)
        if method not in ("PUT", "POST") or kind is None or one.epochs_done() < 2:
            return None
        return "busy" if down.is_set() else faults[kind].pop(0) if faults[kind] else None

    def seen() -> tuple[str, int]:
        record = Store(tmp_path / "other", url).folder(stage).read(stage)
        return record.state, record.epochs_done

    monkeypatch.setattr(s3.line, "fault", fault)
    for name, seconds in {"PATIENCE": 3.0, "PAUSE": 0.1, "LONGEST_PAUSE": 1.0}.items():
        monkeypatch.setattr(remotes, name, seconds)
    with one.hold(stop.is_set, said.append) as alone:
        assert alone
        train(one, 1)
        wait_until(lambda: seen() == ("partial", 1))
        down.set()
        train(one, 2)
        wait_until(lambda: bool(said))
        states = [seen()]
        down.clear()
        one.append({"epoch": 3, "loss": 0.1})
        one.checkpoint.write_bytes(network)
        one.commit(result(stage))

        def is_done() -> bool:
            states.append(seen())
            return states[-1][0] == "done"

        wait_until(is_done)
    assert re.search(
        r"cannot be reached \(.*request rate.*\); the stage goes on, and is uploaded later", said[0]
    )
    assert states[0] == ("partial", 1)
    assert set(states) <= {("partial", 1), ("partial", 2), ("done", stage.epochs)}
    assert not any(faults.values())
    fetched = Store(tmp_path / "other", url).folder(stage).network()
    assert fetched is not None
    assert fetched.read_bytes() == network
    assert sorted(name[:10] for name in objects(url)) == ["checkpoint", "stage.json"]


def test_a_slow_line_is_no_outage_while_something_moves(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one on which nothing moves is."""
    if url.startswith("s3"):
        pytest.skip("its smallest part takes too long")
    monkeypatch.setattr(remotes, "CHUNK", 10)
    monkeypatch.setattr(remotes, "STILL", 0.5)
    monkeypatch.setattr(remotes, "PATIENCE", 0.0)
    (tmp_path / "file").write_bytes(b"x" * 60)
    chunks = OpenFile.chunks

    def slowly(self: OpenFile, pause: float = 0.15) -> Iterator[bytes]:
        for chunk in chunks(self):
            time.sleep(pause)
            yield chunk

    monkeypatch.setattr(OpenFile, "chunks", slowly)
    Remote(url).upload("a/b/file", OpenFile(tmp_path / "file"))
    Remote(url).download("a/b/file", tmp_path / "copy", 60)
    assert (tmp_path / "copy").read_bytes() == b"x" * 60
    monkeypatch.setattr(OpenFile, "chunks", lambda self: slowly(self, 1.0))
    with pytest.raises(UnreachableError, match="no answer within"):
        Remote(url).upload("a/b/other", OpenFile(tmp_path / "file"))


def test_a_place_that_cannot_be_reached_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remotes, "PATIENCE", 0.0)
    with pytest.raises(UnreachableError, match="the stages at file:///proc/none cannot be reached"):
        Store(tmp_path, "file:///proc/none").check()


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*arguments: object, **options: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(Exception, match="pip install s3fs"):
        Store(tmp_path, "s3://bucket").check()


def objects(url: str) -> list[str]:
    """The names of all objects at a place."""
    files, path = fsspec.core.url_to_fs(url, use_listings_cache=False)
    return [name.rpartition("/")[2] for name in files.find(path)]


def unreachable(*arguments: object) -> None:
    raise UnreachableError("the stages cannot be reached")
