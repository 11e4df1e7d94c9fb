"""What the commands print on narrow terminals."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from running import Command
from terminals import use_terminal

from benchmarks import instant
from sweeps.executors.reporting import Compute

CONTROLS = ("--set", "controls={uniform: true, scratch: true, random: true}", "--set", "passes=2")
SEEDS = ("--set", "confirm={seeds: 2, points: 2}", "--trials", "4")


def test_every_number_of_every_command_is_whole(
    tmp_path: Path,
    command: Command,
    instantly: Callable[[Compute], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    instantly(instant.compute)
    at = ("smoke", "--runs", tmp_path)
    assert command("run", *at, "--wandb", "disabled", *CONTROLS, *SEEDS)[0] == 0
    (tmp_path / "stages" / "sparse" / "unused").mkdir()
    for arguments in (
        ("run", *at, "--wandb", "disabled", *CONTROLS, *SEEDS),
        ("status", *at),
        ("pareto", *at),
        ("plan", *at, *CONTROLS, *SEEDS),
        ("gc", "--dry-run", "--runs", tmp_path),
        ("check", "smoke", "--runs", tmp_path / "new"),
    ):
        _, wide, _ = command(*arguments)
        for columns in (60, 80, 120, 200):
            with monkeypatch.context() as patch:
                terminal = use_terminal(patch, columns)
                assert command(*arguments)[0] == 0
            _compare(wide, terminal.text, columns, numbers=arguments[0] != "check")  # of which times differ
        if arguments[0] == "pareto":  # each part of a table begins with the first column
            assert len(set(re.findall(r"uniform of trial \d", wide))) == 2


def _compare(wide: str, narrow: str, columns: int, numbers: bool) -> None:
    assert "…" not in narrow.replace("starting…", "")
    if numbers:
        assert not Counter(_numbers(wide)) - Counter(_numbers(narrow))
    other = re.compile(r":  |slimnet\.load")  # what to do next
    blanks = re.compile(r"\S  +\S")
    sentences = {_plain(line) for line in wide.splitlines() if not blanks.search(line)}
    lines = [line for line in narrow.splitlines() if not other.search(line)]
    of_tables = [line for line in lines if blanks.search(line) and _plain(line) not in sentences]
    assert not [line for line in of_tables if len(line.rstrip()) > columns]


def _plain(line: str) -> str:
    """A line without the blanks that break it between words, and without times, which differ."""
    return re.sub(" +", " ", re.sub(r"\d[\d.,]*", "0", line))


def _numbers(text: str) -> list[str]:
    return re.findall(r"(?<![\w.,])\d[\d.,]*\d|(?<![\w.,])\d(?![\w.,])", text)
