"""Tables: no number is cut, and no line is longer than the terminal."""

from __future__ import annotations

import re
from typing import Any

import pytest
from terminals import use_terminal

from sweeps.console import Console
from sweeps.progress import Progress, RunningStage

WIDTHS = (60, 80, 120, 200)
REASON = "sparse: the training diverged in epoch 3; a smaller learning rate may help"
ROWS: list[dict[str, Any]] = [
    {
        "trial": number,
        "sparse.lambda": 0.00123456,
        "finetune.schedule": "one-cycle",
        "params": 23_513_162,
        "macs": 1_234_567_890_123,
        "val_accuracy": 0.91234,
        "test_accuracy": "91.2 % ± 0.3 %",
        "latency": "0.123 / 45.6",
        "sparse": "epoch 120 of 1200",
        "reason": REASON,
    }
    for number in (8, 12345)
]
NUMBERS = [
    "12,345", "0.00123456", "23,513,162", "1,234,567,890,123", "91.2%", "91.2 % ± 0.3 %", "0.123 / 45.6",
    "epoch 120 of 1200",
]  # fmt: skip


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("colourless", [False, True])
def test_no_number_is_cut(monkeypatch: pytest.MonkeyPatch, columns: int, colourless: bool) -> None:
    if colourless:
        monkeypatch.setenv("NO_COLOR", "1")
    terminal = use_terminal(monkeypatch, columns)
    Console().table(ROWS, "A title of several words that may wrap where there is not enough room for it")
    lines = terminal.text.splitlines()
    assert max(map(len, lines)) <= columns
    assert "…" not in terminal.text
    for number in NUMBERS:
        assert any(re.search(rf"(^| ){re.escape(number)}( |$)", line) for line in lines), number
    assert REASON in " ".join(terminal.text.split()) or columns < 100  # else between other cells


def test_a_part_begins_with_the_first_column(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = use_terminal(monkeypatch, 30)
    Console().table([{"trial": n, "params": 10**9 + n, "macs": 10**12 + n} for n in range(2)])
    assert [line.rstrip() for line in terminal.text.splitlines()] == [
        "trial     parameters",
        "    0  1,000,000,000",
        "    1  1,000,000,001",
        "",
        "trial               MACs",
        "    0  1,000,000,000,000",
        "    1  1,000,000,000,001",
    ]


def test_names_of_fields_are_not_broken_where_their_values_are(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = use_terminal(monkeypatch, 60)
    fields = ("search.space.finetune.weights", "finetune.batch_size")
    by = "{by: prune.score, gamma: {choices: [fresh]}}"
    Console().table([{"field": field, "one study": by, "another": by} for field in fields])
    lines = terminal.text.splitlines()
    assert max(map(len, lines)) <= 60
    for field in fields:
        assert sum(line.startswith(f"{field} ") for line in lines) == 2, "in both parts"


def test_a_table_in_a_pipe_is_one_however_wide(capsys: pytest.CaptureFixture[str]) -> None:
    Console().table([{f"column {number}": "x" * 40 for number in range(10)}])
    _, row = capsys.readouterr().out.splitlines()
    assert row.split() == ["x" * 40] * 10
    Console().table([])
    assert capsys.readouterr().out.strip() == ""


@pytest.mark.parametrize("columns", WIDTHS)
def test_the_display_cuts_no_number(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    beside = "uniform control of trial 3 (seed 1)"
    running = [
        RunningStage("finetune-2", (3, 44, 555), 0.000123, 0.75, 20.5, 1400, 0.91, 20, 12345.6),
        RunningStage("sparse", (), 0.0, None, 1.5, 12, beside=beside),
    ]
    front = [{key: value for key, value in row.items() if key != "reason"} for row in ROWS]
    progress = Progress(
        trials_done=1234,
        trials_failed=12,
        goal=10_000,
        epochs_done=123_456,
        epochs_total=1_234_567,
        seconds_left=None,
        running=running,
        front=front,
        front_size=2,
        objectives=("val_accuracy", "params"),
    )
    monkeypatch.setenv("LINES", "60")
    terminal = use_terminal(monkeypatch, columns)
    with Console() as console:
        console.show(progress)
    assert "…" not in terminal.text.replace("starting…", "")
    numbers = ["1234 of 10,000 trials, 12 failed", "123,456 of 1,234,567 epochs", "20.5 of 1400", "12,346"]
    kept = [
        "12,345",
        "23,513,162",
        "91.2%",
    ]  # of the front; what else has no room is left out, as rows count too
    for number in (*numbers, *(NUMBERS if columns == 200 else kept)):
        assert number in terminal.text, number
    if columns < 200:
        assert "epoch 120" not in terminal.text
