"""What is seen of a sweep: lines in a pipe, a live display on a terminal, little with --quiet."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import shlex
import shutil
import struct
import termios
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from running import PATIENCE, Sweep
from terminals import plain, use_terminal

from sweeps.console import Console, time_left
from sweeps.progress import Progress, RunningStage

LINE = re.compile(r"\d\d:\d\d:\d\d (trial|dense|prune|stopping|\d+ of \d+ trials)")

RUNNING = [
    RunningStage("sparse", (), 0.0, None, 1.5, 12, 0.713, measured=2),
    RunningStage("finetune", (3, 4), 0.02, 0.7, 2.0, 4, None, images_per_second=5432.1),
]
FRONT = [
    {"trial": n, "lambda": 0.01, "ratio": 0.5, "params": 1000 + n, "val_accuracy": 0.8} for n in range(12)
]


def progress(**changes: Any) -> Progress:
    facts: dict[str, Any] = {
        "trials_done": 5,
        "trials_stopped": 0,
        "trials_failed": 0,
        "goal": 12,
        "epochs_done": 40.25,
        "epochs_total": 100.0,
        "seconds_left": 125.0,
        "running": RUNNING,
        "front": FRONT[:10],
        "front_size": len(FRONT),
        "objectives": ("val_accuracy", "params"),
        "seconds": 300.0,
    }
    return Progress(**facts | changes)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Console], None]], str]:
    """What a terminal gets from a console."""

    def watch(show: Callable[[Console], None], columns: int = 100) -> str:
        ours, theirs = open_terminal()
        with monkeypatch.context() as patch, os.fdopen(theirs, "w") as screen:
            patch.setenv("TERM", "xterm-256color")
            patch.setenv("COLUMNS", str(columns))
            patch.setattr("sys.stdout", screen)
            show(Console())
        return read_all(ours)

    return watch


def open_terminal() -> tuple[int, int]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    return ours, theirs


def read_all(terminal: int) -> str:
    """Everything until all writers have closed it."""
    content = b""
    while True:
        try:
            chunk = os.read(terminal, 65536)
        except OSError:  # that is how Linux says that it is over
            chunk = b""
        if not chunk:
            os.close(terminal)
            return content.decode()
        content += chunk


def test_a_control_is_shown_by_its_name(
    terminal: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    name = "uniform control of trial 3 (seed 1)"
    stage = RunningStage("sparse", (), 0.0, None, 2.0, 16, beside=name)

    def show(console: Console) -> None:
        with console:
            console.show(progress(running=[stage]))

    assert name in plain(terminal(show, 140))
    Console().epoch(stage)
    assert f"{name}: sparse at λ 0: epoch 2 of 16" in capsys.readouterr().out


def test_the_display_shows_progress_what_runs_and_the_front(terminal: Callable[..., str]) -> None:
    def show(console: Console) -> None:
        with console:
            console.show(progress())
            console.event("trial 4 done")

    raw = terminal(show)
    text = plain(raw)
    assert "5 of 12 trials" in text
    assert "40 of 100 epochs" in text
    assert "2 min left" in text
    assert re.search(r"dense +sparse +1\.5 of 12 +0 +71\.3%", text)
    assert re.search(r"3, 4 +finetune +2\.0 of 4 +5,432 +0\.02 +0\.7", text)
    assert "front so far (and 2 more)" in text
    assert re.search(r"\d\d:\d\d:\d\d trial 4 done", text)
    assert "\x1b[?25l" in raw  # the cursor is hidden,
    assert raw.rindex("\x1b[?25h") > raw.rindex("\x1b[?25l")  # and comes back


def test_the_display_before_anything_is_known(terminal: Callable[..., str]) -> None:
    def show(console: Console) -> None:
        with console:
            console.show(progress(seconds_left=None, front=[], front_size=0, running=[], trials_failed=2))

    text = plain(terminal(show, columns=80))
    assert re.search(
        r"5 of 12 trials, 2 failed\s+40 of 100 epochs\s+5 min so far, estimating the time left", text
    )
    assert "front so far" not in text


ALL = {
    "trials_stopped": 2,
    "trials_failed": 1,
    "idle": 1,
    "retries": 3,
    "dense_accuracy": 0.861,
    "best": {"trial": 7, "params": 12345, "val_accuracy": 0.858},
    "page": "https://wandb.example/a-team-with-a-long-name/a-project-with-a-longer-name/of-this-study",
    "running": [
        replace(RUNNING[0], where="cuda:0 with 4 threads"),
        replace(RUNNING[1], where="cuda:1 with 4 threads", retry=1),
    ],
}


@pytest.mark.parametrize("colour", [True, False])
@pytest.mark.parametrize("columns", [60, 80, 120, 200])
def test_all_that_is_known_is_shown_at_every_width(
    columns: int, colour: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not colour:
        monkeypatch.setenv("NO_COLOR", "1")
    screen = use_terminal(monkeypatch, columns)
    with Console() as console:
        console.show(progress(**ALL))
    lines = [line.rstrip() for line in screen.text.splitlines()]
    assert max(map(len, lines)) <= columns
    assert not any("…" in line for line in lines if line != "starting…")
    text = " ".join(" ".join(lines).split())
    for fact in (
        "5 of 12 trials, 2 stopped early, 1 failed",
        "5 min so far, 2 min left",
        "3 retries",
        "running (1 worker idle)",
        "smallest within a point of the dense network's 86.1%: trial 7, 12,345 parameters, 85.8%",
        "5,432",
    ):
        assert fact in text, fact
    assert str(ALL["page"]) in text.replace(" ", "")
    assert {"cuda:0", "cuda:1"} <= set(text.split())
    written = screen.buffer
    assert isinstance(written, io.BytesIO)
    assert (b"\x1b[36m" in written.getvalue()) is colour  # the stage's cyan


def test_what_is_left_is_no_time_while_latencies_are_measured() -> None:
    assert time_left(progress(epochs_done=100.0, seconds_left=0.0)) == "nothing left to train"


def test_the_display_fits_a_low_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINES", "26")
    screen = use_terminal(monkeypatch, 60)
    with Console() as console:
        front = [{**row, "prune.params": 2000, "test_accuracy": 0.8} for row in FRONT]
        console.show(progress(front=front, **ALL))
    assert "front so far (and " in screen.text
    assert "test" not in screen.text  # for which there is no room; a column below the others would take more
    assert str(ALL["page"])[-20:] in screen.text  # the last line


def test_a_narrow_front_keeps_the_objectives(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"macs": 123_456_789, "test_accuracy": 0.79, "latency_ms": 1.25}
    front = [{**row, "prune.params": 2000, **facts} for row in FRONT]
    screen = use_terminal(monkeypatch, 50)
    with Console() as console:
        console.show(progress(front=front, objectives=("val_accuracy", "macs", "latency_ms")))
    (headings,) = {line for line in screen.text.splitlines() if "MACs" in line}
    assert {"trial", "validation", "MACs", "latency_ms"} <= set(headings.split())
    assert not {"parameters", "test"} & set(headings.split())


def test_a_terminal_breaks_lines_between_words_and_they_stay_one_line_to_copy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = "go on with: sweeps run a-config-in/a-folder-with-a-long-name.yaml --runs elsewhere --trials 20"
    screen = use_terminal(monkeypatch, 60)
    Console().say(command)
    (line,) = screen.text.splitlines()
    rows = [line[start : start + 60] for start in range(0, len(line), 60)]
    assert [row.split() for row in rows] == [
        ["go", "on", "with:", "sweeps", "run"],
        ["a-config-in/a-folder-with-a-long-name.yaml", "--runs", "elsewhere"],
        ["--trials", "20"],
    ]
    assert line.split() == command.split()


@pytest.mark.parametrize("columns", [40, 60, 80, 97, 100])
@pytest.mark.parametrize(
    "arguments",
    [
        ["--runs", "/data/my runs of today"],
        ["--set", "search.objectives={val_accuracy: maximize, macs: minimize}", "--trials", "20"],
        ["--runs", "/data/it's what \"we\" ran, of today and yesterday's", "--data-dir", "/data/my own"],
    ],
)
def test_what_is_copied_from_a_terminal_is_the_command_that_was_said(
    monkeypatch: pytest.MonkeyPatch, columns: int, arguments: list[str]
) -> None:
    command = ["sweeps", "run", "c.yaml", *arguments]
    glued = f"optuna --storage=\"${{USER}}\"{shlex.quote('@host of ours/a data base')} --name 'a b'"
    for said in (shlex.join(command), f"{shlex.join(command)} {glued}"):
        screen = use_terminal(monkeypatch, columns)
        Console().say(f"interrupted with 3 of the workers' trials; nothing is lost. {said}")
        assert shlex.split(screen.text[screen.text.index("sweeps") :]) == shlex.split(said)


def test_an_apostrophe_begins_no_quote(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = use_terminal(monkeypatch, 30)
    Console().say("the dense network's weights and the narrower networks' are kept")
    (line,) = screen.text.splitlines()
    assert [line[start : start + 30].strip() for start in range(0, len(line), 30)] == [
        "the dense network's weights",
        "and the narrower networks'",
        "are kept",
    ]


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = use_terminal(monkeypatch, 80)
    monkeypatch.setenv("TERM", "dumb")
    with Console() as console:
        console.epoch(RUNNING[1])
        console.show(progress(**ALL))
    assert "\x1b" not in screen.text
    first, second, third = screen.text.splitlines()
    assert "trials 3, 4: finetune at λ 0.02, ratio 0.7: epoch 2 of 4" in first
    assert second.endswith("trial 7, 12,345 parameters, 85.8%")
    assert third.endswith(f"W&B: {ALL['page']}")


def test_tables_are_as_wide_as_watch_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {f"a column of number {n}": 10**n for n in range(6)}
    Console().table([row])
    monkeypatch.setenv("COLUMNS", "70")  # as watch(1) does for the commands that it runs
    Console().table([row])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines[0]) > 100
    assert max(map(len, map(str.rstrip, lines[2:]))) <= 70


def test_epochs_are_lines_only_where_nothing_is_drawn(
    terminal: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    def show(console: Console) -> None:
        with console:
            console.epoch(RUNNING[0])

    assert "epoch 2 of 12" not in plain(terminal(show))


def test_lines_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    with Console() as console:
        console.epoch(RUNNING[0])
        console.show(progress())
        console.show(progress())  # within a minute
        console.note("a note")
    out, _ = capsys.readouterr()
    first, second, third = out.splitlines()
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d dense network: sparse at λ 0: epoch 2 of 12, validation 71\.3%", first
    )
    assert re.fullmatch(r"\d\d:\d\d:\d\d 5 of 12 trials, 40 of 100 epochs, 5 min so far, 2 min left", second)
    assert third == "a note"


def test_colours_in_a_pipe_leave_it_a_pipe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    line = "a line of words, longer than a terminal, that would be filled with spaces " * 3 + "but here"
    row = {f"a column of number {n}": 10**n for n in range(6)}
    with Console() as console:
        console.say(line)
        console.show(progress())
    console.table([row])
    said, stamped, headings, *cells = plain(capsys.readouterr().out).splitlines()
    assert said == line
    assert stamped.endswith("5 of 12 trials, 40 of 100 epochs, 5 min so far, 2 min left")
    assert headings.split("  ")[-1].strip() == "a column of number 5"
    assert len(cells) == 1


def test_quiet_leaves_the_answer_and_the_errors(capsys: pytest.CaptureFixture[str]) -> None:
    with Console(quiet=True) as console:
        console.event("an event")
        console.epoch(RUNNING[0])
        console.note("a note")
        console.say("[the] answer")
        console.error("a mistake")
    assert capsys.readouterr() == ("[the] answer\n", "a mistake\n")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "estimating the time left"),
        (0.2, "1 s left"),
        (89, "89 s left"),
        (125, "2 min left"),
        (5399, "90 min left"),
        (9000, "2.5 h left"),
    ],
)
def test_durations(seconds: float | None, said: str) -> None:
    assert time_left(progress(seconds_left=seconds)) == said


def test_a_sweep_in_a_pipe_prints_stamped_lines_and_no_control_characters(finished: Sweep) -> None:
    output = (finished.runs / "output.txt").read_text()
    assert "\x1b" not in output
    assert "\r" not in output
    events = [line for line in output.splitlines() if re.match(r"\d\d:\d\d", line)]
    assert all(LINE.match(line) for line in events)
    assert sum(" epoch " in line for line in events) == len(finished.epochs())
    assert sum(" done: " in line for line in events) == 3


def test_a_sweep_on_a_terminal_draws_while_it_runs(sweep: Sweep) -> None:
    ours, theirs = open_terminal()
    process = sweep.start(terminal=theirs, env={"TERM": "xterm-256color"})
    os.close(theirs)
    raw = read_all(ours)
    assert process.wait(PATIENCE) == 0
    text = plain(raw)
    assert re.search(r"[012] of 3 trials", text)
    assert "running" in text
    assert "the goal is reached" in text.replace("\r\n", " ")
    assert raw.rindex("\x1b[?25h") > raw.rindex("\x1b[?25l")


def test_a_quiet_sweep_prints_its_result_only(finished: Sweep, sweep: Sweep) -> None:
    shutil.copytree(finished.runs, sweep.runs)
    result = sweep.run("--quiet")
    assert (result.returncode, result.stderr) == (0, "")
    first, *_, last = result.stdout.splitlines()
    assert first.startswith("Pareto front of smoke")
    assert last == f"report: {sweep.folder / 'report' / 'index.html'}"


def test_a_line_tells_an_accuracy_only_of_the_epoch_that_was_measured(
    capsys: pytest.CaptureFixture[str],
) -> None:
    console = Console()
    for epoch in (5.0, 6.0):
        console.epoch(RunningStage("sparse", (1,), 0.01, None, epoch, 15, 0.713, measured=5))
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("epoch 5 of 15, validation 71.3%")
    assert second.endswith("epoch 6 of 15")
