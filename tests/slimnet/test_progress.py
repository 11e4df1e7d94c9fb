"""What is told of a long piece of work, on a terminal and in a log."""

from __future__ import annotations

import sys

import pytest

from slimnet.progress import ProgressLine


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which tests set."""
    now = [0.0]
    monkeypatch.setattr("slimnet.progress.time.monotonic", lambda: now[0])
    return now


def work(line: ProgressLine, clock: list[float], seconds: float) -> None:
    for done in range(5):
        clock[0] = done * seconds / 4
        line("decoding", done, 4)


def test_a_log_has_a_line_now_and_then(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    work(ProgressLine(), clock, seconds=4)
    assert capsys.readouterr().err == ""
    work(ProgressLine(), clock, seconds=120)
    assert capsys.readouterr().err == (
        "decoding: 1 of 4, 2 min left\ndecoding: 2 of 4, 60 s left\ndecoding: 3 of 4, 30 s left\n"
        "decoding: all 4 in 2 min\n"
    )


def test_a_terminal_has_a_line_that_moves_and_goes(
    clock: list[float], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    line = ProgressLine()
    work(line, clock, seconds=4)
    line("all pictures are grey", 0, 0)
    shown = capsys.readouterr().err.split("\r\x1b[K")
    assert shown == [
        "",
        "decoding: 1 of 4, 3 s left",
        "decoding: 2 of 4, 2 s left",
        "decoding: 3 of 4, 1 s left",
        "",
        "all pictures are grey\n",
    ]


def test_a_sentence_is_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    ProgressLine()("waiting for another process", 0, 0)
    assert capsys.readouterr().err == "waiting for another process\n"
