"""Outputs that go away: how a process ends, or goes on, whose reader has gone or whose device is full."""

from __future__ import annotations

import errno
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BEGIN = "import sys; from slimnet.streams import guard_streams, outlive_output; guard_streams(); "
GO_ON = "outlive_output(lambda reason: print(reason, file=sys.stderr)); "
LINES = "print('a line', flush=True); sys.stdin.read(); print('another λ', flush=True); print(3); "


def begin(code: str, **options: Any) -> subprocess.Popen[bytes]:
    """A process that prints a line, waits for the end of its input, and prints another."""
    given = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen([sys.executable, "-c", BEGIN + code], **given)


def lose_reader(process: subprocess.Popen[bytes]) -> str:
    """Read a line as `head -1` does; returns what the process then says on stderr."""
    assert process.stdout is not None
    assert process.stdout.readline() == b"a line\n"
    process.stdout.close()
    process.stdout = None
    return process.communicate()[1].decode()


def test_a_process_without_a_reader_ends_by_sigpipe_and_says_nothing() -> None:
    process = begin(LINES)
    assert lose_reader(process) == ""
    assert process.returncode == -signal.SIGPIPE


def test_one_that_outlives_its_output_says_so_once() -> None:
    process = begin(GO_ON + LINES)
    assert lose_reader(process) == f"{os.strerror(errno.EPIPE)}\n"
    assert process.returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(
    ("code", "status", "told"), [("", 1, "the output cannot be written ({});"), (GO_ON, 0, "{}\n")]
)
def test_a_full_device_is_told_once(code: str, status: int, told: str) -> None:
    with open("/dev/full", "wb") as full:
        process = begin(code + LINES, stdout=full)
        _, err = process.communicate()
    assert process.returncode == status
    assert err.decode().count(told.format(os.strerror(errno.ENOSPC))) == 1


@pytest.mark.parametrize("code", [LINES, GO_ON + LINES])
def test_closed_outputs_are_no_error(code: str) -> None:
    command = 'exec "$0" -c "$1" <&- >&- 2>&-'
    code = (BEGIN + code).replace("sys.stdin.read()", "1")
    assert subprocess.run(["sh", "-c", command, sys.executable, code]).returncode == 0


def test_a_closed_terminal_is_a_hangup_unless_that_is_ignored() -> None:
    for ignored in (False, True):
        ours, theirs = pty.openpty()
        hup = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); " if ignored else ""
        process = begin(hup + GO_ON + LINES, stdout=theirs, start_new_session=True)
        os.close(theirs)
        assert os.read(ours, 100) == b"a line\r\n"
        os.close(ours)
        _, err = process.communicate()
        assert process.returncode == (0 if ignored else -signal.SIGHUP)
        assert err.decode() == (f"{os.strerror(errno.EIO)}\n" if ignored else "")


def test_a_letter_that_the_encoding_lacks_is_a_question_mark() -> None:
    process = begin(LINES, env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    assert process.communicate()[0] == b"a line\nanother ?\n3\n"
