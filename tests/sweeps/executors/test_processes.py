"""Processes for questions, and how they start on each system."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from running import wait_until_gone

from slimnet.errors import SlimnetError
from sweeps.executors import processes
from sweeps.machine import core_count, look


def test_a_question_is_answered_in_a_process_that_has_torch() -> None:
    found = processes.ask(look, "cpu")
    assert (found.kind, found.count) == ("cpu", 1)
    assert multiprocessing.active_children() == []


def test_what_the_user_did_wrong_is_said_here_as_it_was_said_there() -> None:
    wish = "xpu" if sys.platform == "darwin" else "mps"
    with pytest.raises(SlimnetError, match=f"device is {wish}, but torch finds no "):
        processes.ask(look, wish)


def test_a_defect_has_its_traceback() -> None:
    with pytest.raises(RuntimeError, match=r"(?s)Traceback.*takes 0 positional"):
        processes.ask(core_count, "too much")


def test_a_process_that_is_killed_is_told_in_one_sentence() -> None:
    with pytest.raises(SlimnetError, match=r"its process was killed by SIGKILL; .*, while it was looking"):
        processes.ask(signal.raise_signal, signal.SIGKILL)


def test_only_linux_forks_processes_that_have_loaded_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    methods = ["spawn", "forkserver"]
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: methods)
    monkeypatch.setattr(sys, "platform", "linux")
    assert processes.start_method() == "forkserver"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert processes.start_method() == "spawn"
    monkeypatch.setattr(sys, "platform", "linux")
    methods.remove("forkserver")
    assert processes.start_method() == "spawn"


def count_up(send: processes.Send, stop: Callable[[], bool]) -> None:
    number = 0
    while not stop():
        send(number := number + 1)


def test_a_process_that_is_told_to_rest_sends_nothing_until_it_is_to_go_on() -> None:
    child = processes.start(count_up, name="counting")
    try:
        assert (last := child.connection.recv()) == 1
        child.tell(-7)
        while (message := child.connection.recv()) != -7:
            last = message
            assert last < 1_000_000
        assert not child.connection.poll(0.1)
        child.tell("go on")
        assert child.connection.recv() == last + 1
    finally:
        child.end()


ASKING = """
import sys, time
from sweeps.executors import processes

processes.start_method = lambda: sys.argv[1]
if __name__ == "__main__":
    child = processes.start(processes._answer, time.sleep, 1000, name="sleeper")
    print(child.process.pid, flush=True)
    time.sleep(1000)
"""


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_a_question_dies_with_who_asked(method: str, tmp_path: Path) -> None:
    (tmp_path / "asking.py").write_text(ASKING)
    asking = subprocess.Popen(
        [sys.executable, str(tmp_path / "asking.py"), method],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    assert asking.stdout is not None
    pid = int(asking.stdout.readline())
    asking.send_signal(signal.SIGKILL)
    asking.communicate()
    wait_until_gone([pid])
