"""What the user sees while a sweep runs: a live display on a terminal, timestamped lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from rich.console import Console as RichConsole
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from slimnet.wording import duration
from sweeps.progress import Progress, RunningStage

PIPE_WIDTH = 200  # characters, where the output is no terminal
PIPE_SECONDS = 60.0  # between lines on the whole sweep, where there is no live display
MOST_TRIALS = 6  # trial numbers listed for a stage
TEXTS = (
    "network",
    "state",
    "reason",
    "control",
    "comparison",
    "group",
    "kept whole because",
    "what",
)  # columns of words
HEADINGS = {
    "trial": "trial",
    "lambda": "λ",
    "sparse.lambda": "λ",
    "sparse.target": "target",
    "ratio": "ratio",
    "prune.ratio": "ratio",
    "params": "parameters",
    "macs": "MACs",
    "val_accuracy": "validation",
    "test_accuracy": "test",
}


class Console:
    """The output of one command. As a context manager it shows a live display if there is a terminal."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._out = RichConsole(highlight=False)
        if not self._out.is_terminal:
            self._out.width = PIPE_WIDTH
        self._err = RichConsole(stderr=True, highlight=False)
        self._quiet = quiet
        self._live: Live | None = None
        self._said = time.monotonic()  # when the last line on the whole sweep was printed

    def __enter__(self) -> Self:
        if self._out.is_terminal and not self._quiet:
            self._live = Live(Text("starting…"), console=self._out, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def event(self, text: str) -> None:
        """Print an event with its time, unless the console is quiet."""
        if not self._quiet:
            self._out.print(f"{time.strftime('%H:%M:%S')} {text}", markup=False, soft_wrap=True)

    def epoch(self, stage: RunningStage) -> None:
        """Print that an epoch has ended, where there is no live display."""
        if self._live is None:
            fresh = stage.accuracy is not None and stage.measured == round(stage.epoch)
            accuracy = f", validation {stage.accuracy:.1%}" if fresh else ""
            self.event(f"{_what(stage)}: epoch {stage.epoch:.0f} of {stage.epochs}{accuracy}")

    def show(self, progress: Progress) -> None:
        """Update the live display; without one, print a line on the whole sweep once a minute."""
        if self._live is not None:
            self._live.update(_draw(progress))
        elif time.monotonic() - self._said >= PIPE_SECONDS:
            self._said = time.monotonic()
            self.event(", ".join(_counts(progress)))

    def say(self, text: str = "") -> None:
        """Print a line of the command's result."""
        self._out.print(text, markup=False, soft_wrap=True)

    def note(self, text: str) -> None:
        """Print a line, unless the console is quiet."""
        if not self._quiet:
            self.say(text)

    def error(self, text: str) -> None:
        """Print to stderr what went wrong."""
        self._err.print(text, markup=False, soft_wrap=True)

    def table(self, rows: Sequence[Mapping[str, Any]], title: str | None = None) -> None:
        """Print a table.

        Args:
            rows: all with the same keys, which name the columns.
            title: printed above the table.
        """
        self._out.print(_table(rows, title))


def time_left(seconds: float | None) -> str:
    """The time left in words; `seconds` is None before it can be estimated."""
    return "estimating the time left" if seconds is None else duration(seconds)


def _draw(progress: Progress) -> RenderableType:
    head = Table.grid(padding=(0, 2))
    head.add_column(max_width=30, ratio=1)  # in a narrow terminal the bar shrinks, not the numbers
    for _ in range(3):
        head.add_column(no_wrap=True)
    head.add_row(
        ProgressBar(total=max(progress.epochs_total, 1), completed=progress.epochs_done),
        *_counts(progress),
    )
    running = Table(box=None, padding=(0, 2, 0, 0), title="running", title_justify="left")
    for heading in ("trial", "stage", "epoch", "images/s", "λ", "ratio", "validation"):
        running.add_column(heading, style="cyan" if heading == "stage" else "", justify="left")
    for stage in progress.running:
        running.add_row(
            _trials(stage),
            stage.name,
            f"{stage.epoch:.1f} of {stage.epochs}" if stage.epochs else "",
            "" if stage.images_per_second is None else f"{stage.images_per_second:,.0f}",
            f"{stage.strength:g}",
            "" if stage.ratio is None else f"{stage.ratio:g}",
            "" if stage.accuracy is None else f"{stage.accuracy:.1%}",
        )
    parts: list[RenderableType] = [head, "", running]
    if progress.front:
        more = progress.front_size - len(progress.front)
        title = f"front so far (and {more} more)" if more > 0 else "front so far"
        parts += ["", _table(progress.front, title)]
    return Group(*parts)


def _counts(progress: Progress) -> tuple[str, str, str]:
    """Trials, epochs and time left, in words."""
    failed = f", {progress.trials_failed} failed" if progress.trials_failed else ""
    left = time_left(progress.seconds_left)
    return (
        f"{progress.trials_done} of {progress.goal} trials{failed}",
        f"{progress.epochs_done:.0f} of {progress.epochs_total:.0f} epochs",
        f"{left} left" if progress.seconds_left is not None else left,
    )


def _table(rows: Sequence[Mapping[str, Any]], title: str | None) -> Table:
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for key in rows[0] if rows else []:
        table.add_column(HEADINGS.get(key, key), justify="left" if key in TEXTS else "right")
    for row in rows:
        table.add_row(*(_cell(key, value) for key, value in row.items()))
    return table


def _cell(key: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if key.endswith("accuracy"):
        return f"{value:.1%}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if key == "lambda" and isinstance(value, float):
        return f"{value:.3g}"  # adjusted to a target, it has many digits
    return f"{value:g}" if isinstance(value, float) else str(value)


def _trials(stage: RunningStage) -> str:
    more = len(stage.trials) - MOST_TRIALS
    numbers = ", ".join(map(str, stage.trials[:MOST_TRIALS]))
    return f"{numbers} and {more} more" if more > 0 else numbers or stage.beside or "dense"


def _what(stage: RunningStage) -> str:
    ratio = "" if stage.ratio is None else f", ratio {stage.ratio:g}"
    who = f"trial {_trials(stage)}" if stage.trials else stage.beside or "dense network"
    return f"{who}: {stage.name} at λ {stage.strength:g}{ratio}"
