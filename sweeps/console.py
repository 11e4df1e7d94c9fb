"""What the user sees while a sweep runs: a live display on a terminal, timestamped lines elsewhere."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from rich.cells import cell_len
from rich.columns import Columns
from rich.console import Console as RichConsole
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

from slimnet.wording import duration, plural
from sweeps.progress import Progress, RunningStage, listed, whose
from sweeps.tables import FittedTable

PIPE_WIDTH = 200  # characters, where the output is no terminal
PIPE_SECONDS = 60.0  # between lines on the whole sweep, where there is no live display
BAR_WIDTH = 30
# Words that lines are broken between. A quoted stretch is part of its word, as in --runs='a b': with a blank
# more in it, another command would be copied. An apostrophe after a letter, as in "network's", begins none.
_WORD = re.compile(r"""( *)((?:(?<!\w)'[^']*'|"(?:\\.|[^"\\])*"|[^ ])+)""")


class Console:
    """The output of one command. As a context manager it shows a live display if there is a terminal."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._out = RichConsole(highlight=False)
        self._err = RichConsole(stderr=True, highlight=False)
        self._quiet = quiet
        self._live: Live | None = None
        self._said = -PIPE_SECONDS  # when the last line on the whole sweep was printed
        self._linked = False  # whether the address on W&B was printed

    def __enter__(self) -> Self:
        if _is_terminal(self._out) and not self._out.is_dumb_terminal and not self._quiet:
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
        self.note(f"{time.strftime('%H:%M:%S')} {text}")

    def epoch(self, stage: RunningStage) -> None:
        """Print that an epoch has ended, where there is no live display."""
        if self._live is None:
            fresh = stage.accuracy is not None and stage.measured == round(stage.epoch)
            accuracy = f", validation {stage.accuracy:.1%}" if fresh else ""
            self.event(f"{_what(stage)}: epoch {stage.epoch:.0f} of {stage.epochs}{accuracy}")

    def show(self, progress: Progress) -> None:
        """Update the live display; without one, print a line on the whole sweep once a minute."""
        if self._live is not None:
            around = self._out.render_lines(display(replace(progress, front=())), pad=False)
            room = self._out.height - len(around) - len(("", "title", "headings"))
            self._live.update(display(replace(progress, front=progress.front[: max(0, room)])))
        elif time.monotonic() - self._said >= PIPE_SECONDS:
            self._said = time.monotonic()
            best = _best(progress)
            self.event(", ".join(_counts(progress)) + (f"; {best}" if best else ""))
            if progress.page and not self._linked:
                self._linked = True
                self.event(f"W&B: {progress.page}")

    def say(self, text: str = "") -> None:
        """Print a line of the command's result."""
        _print(self._out, text)

    def note(self, text: str) -> None:
        """Print a line, unless the console is quiet."""
        if not self._quiet:
            self.say(text)

    def error(self, text: str) -> None:
        """Print to stderr what went wrong."""
        _print(self._err, text)

    def table(self, rows: Sequence[Mapping[str, Any]], title: str | None = None) -> None:
        """Print a table.

        Args:
            rows: all with the same keys, which name the columns.
            title: printed above the table.
        """
        table = FittedTable(rows, title)
        if not _is_terminal(self._out) and "COLUMNS" not in os.environ:  # which watch(1) tells
            self._out.width = max(PIPE_WIDTH, table.least_width)
        self._out.print(table)


def _is_terminal(out: RichConsole) -> bool:
    """Whether there is a terminal, rather than a pipe that is to have colours (FORCE_COLOR)."""
    return out.is_terminal and out.file.isatty()


def _print(out: RichConsole, text: str) -> None:
    if _is_terminal(out):
        text = "\n".join(_between_words(line, out.width) for line in text.split("\n"))
    out.print(text, markup=False, soft_wrap=True)


def _between_words(line: str, width: int) -> str:
    """A line that a terminal breaks between words, as spaces fill its rows; it is copied as one line."""
    filled, at = "", 0
    for blank, word in _WORD.findall(line):
        size = cell_len(word)
        if at > 0 and at + len(blank) + size >= width > size:
            blank = " " * (width - at)
        filled += blank + word
        at = (at + len(blank) + size) % width
    return filled


def time_left(progress: Progress) -> str:
    """The time left in words."""
    if progress.seconds_left is None:
        return "estimating the time left"
    if progress.epochs_done >= progress.epochs_total:  # while latencies are measured
        return "nothing left to train"
    return f"{duration(progress.seconds_left)} left"


def display(progress: Progress) -> RenderableType:
    """What a terminal shows of a sweep that runs."""
    bar = ProgressBar(max(progress.epochs_total, 1), progress.epochs_done, width=BAR_WIDTH)
    counts = [Text(text) for text in _counts(progress)]
    head = Columns([bar, *counts], padding=(0, 2))  # as many in a line as there is room
    places = {stage.where for stage in progress.running} if len(progress.running) > 1 else set()
    running = [
        {
            "who": listed(stage.trials) or stage.beside or "dense",
            "stage": stage.name,
            "epoch": f"{stage.epoch:.1f} of {stage.epochs}" if stage.epochs else "",
            "images/s": "" if stage.images_per_second is None else f"{stage.images_per_second:,.0f}",
            "lambda": f"{stage.strength:g}",
            "ratio": "" if stage.ratio is None else f"{stage.ratio:g}",
            "val_accuracy": stage.accuracy,
            **({"where": stage.where} if len(places) > 1 else {}),
            **({"retry": stage.retry or None} if progress.retries else {}),
        }
        for stage in progress.running
    ]
    idle = f" ({plural(progress.idle, 'worker')} idle)" if progress.idle else ""
    parts: list[RenderableType] = [head, "", FittedTable(running, f"running{idle}")]
    if progress.front:
        more = progress.front_size - len(progress.front)
        title = f"front so far (and {more} more)" if more > 0 else "front so far"
        parts += ["", FittedTable(progress.front, title, kept=("trial", *progress.objectives))]
    if best := _best(progress):
        parts += ["", Text(best)]
    if progress.page:
        parts.append(Text(f"W&B: {progress.page}", style=f"link {progress.page}", overflow="fold"))
    return Group(*parts)


def _counts(progress: Progress) -> list[str]:
    """Trials, epochs, time spent and left, in words."""
    ends = {"stopped early": progress.trials_stopped, "failed": progress.trials_failed}
    some = "".join(f", {number} {how}" for how, number in ends.items() if number)
    spent = f"{duration(progress.seconds)} so far, {time_left(progress)}"
    retries = [plural(progress.retries, "retry")] if progress.retries else []
    return [
        f"{progress.trials_done} of {plural(progress.goal, 'trial')}{some}",
        f"{progress.epochs_done:,.0f} of {plural(round(progress.epochs_total), 'epoch')}",
        spent,
        *retries,
    ]


def _best(progress: Progress) -> str:
    """What the headline would name now, in words; "" before the dense network is trained."""
    if progress.dense_accuracy is None:
        return ""
    dense = f"the dense network's {progress.dense_accuracy:.1%}"
    if progress.best is None:
        return f"no smaller network within a point of {dense} yet"
    best = progress.best
    return (
        f"smallest within a point of {dense}: trial {best['trial']}, {best['params']:,} parameters, "
        f"{best['val_accuracy']:.1%}"
    )


def _what(stage: RunningStage) -> str:
    ratio = "" if stage.ratio is None else f", ratio {stage.ratio:g}"
    return f"{whose(stage.trials, stage.beside)}: {stage.name} at λ {stage.strength:.3g}{ratio}"
