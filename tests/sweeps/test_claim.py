"""Who works in a folder that several machines see."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from running import PATIENCE, wait_until

from sweeps import claim
from sweeps.claim import Claim, ClaimLostError


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim, "LOOK_EVERY", 0.01)
    monkeypatch.setattr(claim, "BEAT", 0.05)
    monkeypatch.setattr(claim, "EXPIRY", 0.5)


class Elsewhere(Claim):
    """A claim on another machine, whose locks are not seen here."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as there:
            there.setattr(claim, "machine", lambda: "another")
            there.setattr(claim, "network_file_system", lambda folder: "nfs")
            super().__init__(folder)

    def fall_silent(self) -> None:
        """Die, or sleep, as seen from here."""
        self._over.set()


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Elsewhere:
    return Elsewhere(tmp_path, monkeypatch)


def lease(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / ".lease").read_text())
    return content


def test_a_claim_gives_signs_of_life_and_leaves_nothing_but_its_lock(tmp_path: Path) -> None:
    mine = Claim(tmp_path)
    assert mine.take()
    wait_until(lambda: lease(tmp_path)["beats"] > 1)
    mine.check()
    mine.release()
    assert {path.name for path in tmp_path.iterdir()} <= {".lock"}


def test_a_living_owner_on_another_machine_is_waited_for(tmp_path: Path, elsewhere: Elsewhere) -> None:
    assert elsewhere.take()
    mine = Claim(tmp_path)
    assert not mine.take(wait=False)
    assert mine.is_taken()
    taken = threading.Event()

    def take() -> None:
        assert mine.take()
        taken.set()

    threading.Thread(target=take).start()
    assert not taken.wait(4 * claim.EXPIRY)  # it gives signs of life all the while
    elsewhere.release()
    assert taken.wait(PATIENCE)
    assert lease(tmp_path)["machine"] == claim.machine()
    mine.release()


def taken_over(folder: Path, elsewhere: Elsewhere) -> Claim:
    """A claim to a folder whose owner has fallen silent."""
    assert elsewhere.take()
    elsewhere.fall_silent()
    mine = Claim(folder)
    assert mine.take(wait=False)
    return mine


def test_a_silent_owner_is_dead_and_writes_nothing_if_it_wakes_up(
    tmp_path: Path, elsewhere: Elsewhere
) -> None:
    mine = taken_over(tmp_path, elsewhere)
    with pytest.raises(ClaimLostError, match=r"another machine took .* over"):
        elsewhere.check()
    elsewhere.release()
    mine.check()
    assert lease(tmp_path)["machine"] == claim.machine()
    mine.release()


def test_one_who_wakes_up_after_another_has_finished_and_left_writes_nothing(
    tmp_path: Path, elsewhere: Elsewhere
) -> None:
    taken_over(tmp_path, elsewhere).release()
    assert not (tmp_path / ".lease").exists()
    with pytest.raises(ClaimLostError, match=r"another machine took .* over"):
        elsewhere.check()
    assert not (tmp_path / ".lease").exists()


def test_a_lease_that_someone_deletes_is_written_anew(tmp_path: Path) -> None:
    mine = Claim(tmp_path)
    assert mine.take()
    (tmp_path / ".lease").unlink()
    wait_until((tmp_path / ".lease").exists)
    mine.check()
    mine.release()


def test_each_check_sees_that_another_has_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim, "BEAT", 10.0)  # a suspended machine's clock may stand still
    monkeypatch.setattr(claim, "EXPIRY", 1_000.0)
    mine = Claim(tmp_path)
    assert mine.take()
    mine.check()
    (tmp_path / ".lease").write_text('{"machine": "another", "owner": "other", "beats": 0}')
    with pytest.raises(ClaimLostError):
        mine.check()
    mine.release()
    assert lease(tmp_path)["owner"] == "other"


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="Linux")
def test_time_in_which_the_machine_was_suspended_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.clock_gettime
    monkeypatch.setattr(
        time, "clock_gettime", lambda which: real(which) + 60 * (which == time.CLOCK_BOOTTIME)
    )
    assert claim._clock() - time.monotonic() > 59


@pytest.mark.parametrize("defect", ["cannot be read", "half"])
def test_a_lease_that_cannot_be_read_for_a_moment_is_not_lost(tmp_path: Path, defect: str) -> None:
    lost = threading.Event()
    mine = Claim(tmp_path, on_lost=lost.set)
    assert mine.take()
    path = tmp_path / ".lease"
    content, broken = path.read_text(), tmp_path / "broken"
    if defect == "half":
        broken.write_text("{")
    else:
        broken.symlink_to(path)  # an OSError: too many levels of symbolic links
    with mine._writing:
        broken.replace(path)
    assert not lost.wait(4 * claim.BEAT)
    mine.check()
    path.unlink()
    path.write_text(content)
    beats = lease(tmp_path)["beats"]
    wait_until(lambda: lease(tmp_path)["beats"] > beats)
    mine.release()
    assert not lost.is_set()


def test_a_lease_that_is_being_written_is_anothers(tmp_path: Path) -> None:
    (tmp_path / ".lease").write_text("{")
    mine = Claim(tmp_path)
    assert mine.is_taken()
    before = time.monotonic()
    assert mine.take(wait=False)
    assert time.monotonic() - before > claim.EXPIRY
    mine.release()


def test_of_several_who_wait_for_a_dead_owner_one_takes_the_folder(
    tmp_path: Path, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert elsewhere.take()
    elsewhere.fall_silent()
    others = [Claim(tmp_path)]
    for number in range(3):
        with monkeypatch.context() as there:
            there.setattr(claim, "machine", lambda number=number: f"machine-{number}")
            there.setattr(claim, "network_file_system", lambda folder: "nfs")
            others.append(Claim(tmp_path))
    taken: list[bool] = []
    threads = [threading.Thread(target=lambda c=c: taken.append(c.take(wait=False))) for c in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == [False, False, False, True]


def test_an_owner_of_this_machine_that_was_killed_keeps_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claim, "EXPIRY", 10_000.0)
    content = {"machine": claim.machine(), "owner": "killed", "beats": 7}
    (tmp_path / ".lease").write_text(json.dumps(content))
    left = tmp_path / f".lease-{claim.machine()}-1-abc"
    left.write_text("{")
    mine = Claim(tmp_path)
    assert not mine.is_taken()
    assert mine.take()
    assert not left.exists()
    mine.release()


@pytest.mark.parametrize(
    ("machine", "is_local", "free"),
    [
        ("this-2", True, True),
        ("renamed-1", True, True),
        ("another-2", True, False),
        ("this-2", False, False),
        ("renamed-1", False, False),
    ],
)
def test_a_machine_that_was_started_again_or_renamed_knows_its_leases_on_a_disk_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str, is_local: bool, free: bool
) -> None:
    monkeypatch.setattr(claim, "EXPIRY", 10_000.0)
    monkeypatch.setattr(claim, "machine", lambda: "this-1")
    monkeypatch.setattr(claim, "is_local", lambda folder: is_local)
    content = {"machine": machine, "owner": "former", "beats": 7}
    (tmp_path / ".lease").write_text(json.dumps(content))
    mine = Claim(tmp_path)
    assert mine.is_taken() is not free
    if free:
        assert mine.take(wait=False)
        mine.release()
