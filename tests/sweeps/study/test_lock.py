"""Who may run a study, on file systems with and without `flock`."""

from __future__ import annotations

import errno
import fcntl
import itertools
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from running import PATIENCE

from sweeps import claim
from sweeps.config import load_config
from sweeps.stages import Store, chain
from sweeps.study import StudyBusyError, check_free, hold, is_held

pytestmark = pytest.mark.filterwarnings("ignore:flock not supported")


@pytest.fixture(params=["flock", "no flock"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study's folder, on either kind of file system."""
    if request.param == "no flock":

        def refuse(descriptor: int, operation: int) -> None:
            raise OSError(errno.ENOSYS, "Function not implemented")

        monkeypatch.setattr(fcntl, "flock", refuse)
    folder = tmp_path / "study"
    folder.mkdir()
    return folder


def test_one_process_holds_a_study_and_the_next_may_afterwards(folder: Path) -> None:
    for _ in range(2):
        with hold(folder), pytest.raises(StudyBusyError, match="study is being run by process"), hold(folder):
            pass


def test_one_worker_holds_a_stage(folder: Path) -> None:
    stage = chain(load_config("smoke"), "float32")[0]
    mine, other = (Store(folder).folder(stage) for _ in range(2))
    mine.prepare(stage)
    asked: list[bool] = []

    def stop() -> bool:
        asked.append(True)
        return len(asked) > 2

    with mine.hold(lambda: False) as alone:
        assert alone
        with other.hold(stop) as also:
            assert not also
    with other.hold(lambda: False) as alone:
        assert alone


def test_a_lock_file_of_a_process_that_has_died_holds_nobody_up(tmp_path: Path) -> None:
    script = """
import errno, fcntl, os, sys
from pathlib import Path
from sweeps.study import hold

def refuse(descriptor, operation):
    raise OSError(errno.ENOSYS, "Function not implemented")

fcntl.flock = refuse
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    if len(sys.argv) > 2:
        os._exit(0)
"""
    for further in (["dies"], []):
        command = [sys.executable, "-W", "ignore", "-c", script, str(tmp_path), *further]
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.stdout, done.stderr) == ("held\n", "")


TAKEN_OVER = """
import sys, time
from pathlib import Path
from sweeps import claim
from sweeps.study import hold

claim.BEAT = 0.05
with hold(Path(sys.argv[1])):
    (Path(sys.argv[1]) / "driver.lease").write_text('{"machine": "another", "owner": "other", "beats": 0}')
    time.sleep(100)
"""


def test_a_driver_whose_study_another_machine_has_taken_over_ends(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    command = [sys.executable, "-c", TAKEN_OVER, str(folder)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert ended.returncode == 3
    assert ended.stderr.startswith("Error: study is run by process ")


def test_what_wants_a_study_to_be_free_tells_a_dead_driver_from_one_that_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(claim, "EXPIRY", 0.5)
    note, lease = tmp_path / "driver.json", tmp_path / "driver.lease"
    note.write_text('{"pid": 1, "host": "node7", "since": "then"}')
    lease.write_text('{"machine": "node7-12345678", "owner": "other", "beats": 0}')
    assert is_held(tmp_path)
    check_free(tmp_path)
    assert "was last held by node7; it is taken over if" in capsys.readouterr().err
    assert not is_held(tmp_path)
    check_free(tmp_path)
    assert capsys.readouterr().err == ""
    with hold(tmp_path), pytest.raises(StudyBusyError):
        check_free(tmp_path)
    assert capsys.readouterr().err == ""


def test_a_study_of_a_machine_that_died_is_taken_over_and_of_one_that_lives_is_not(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claim, "EXPIRY", 0.5)
    lease = folder / "driver.lease"
    lease.write_text('{"machine": "another", "owner": "other", "beats": 0}')
    with hold(folder):
        assert "another" not in lease.read_text()

    lease.write_text('{"machine": "another", "owner": "other", "beats": 0}')
    over = threading.Event()

    def beat() -> None:
        for beats in itertools.count():
            lease.write_text(f'{{"machine": "another", "owner": "other", "beats": {beats}}}')
            if over.wait(0.05):
                return

    living = threading.Thread(target=beat)
    living.start()
    with pytest.raises(StudyBusyError), hold(folder):
        pass
    over.set()
    living.join()
