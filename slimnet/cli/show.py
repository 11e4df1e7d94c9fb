"""Plain text for terminals and pipes: tables, small histograms, and the progress of a training."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from slimnet.wording import duration

BARS = " ▁▂▃▄▅▆▇█"
REDRAW_SECONDS = 0.1


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> str:
    """Columns under headings, each set to the left or right by its character of `align`: "<" or ">"."""
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    return "\n".join(
        "  ".join(
            f"{cell:{side}{width}}" for cell, side, width in zip(row, align, widths, strict=True)
        ).rstrip()
        for row in [headings, *rows]
    )


def small_histogram(counts: Sequence[int]) -> str:
    """One character per bin; any count above 0 can be seen."""
    top = max(*counts, 1)
    return "".join(BARS[-(-count * (len(BARS) - 1) // top)] for count in counts)


def describe(metrics: dict[str, Any]) -> str:
    """Size and accuracy in a line."""
    return (
        f"{metrics['params']:,} parameters, {metrics['macs']:,} MACs, "
        f"validation {metrics['val_accuracy']:.1%}, test {metrics['test_accuracy']:.1%}"
    )


def print_written(metrics: dict[str, Any], out: Path) -> None:
    """The end of a training: the network, and its file."""
    print(f"{describe(metrics)}\nwritten: {out}")


class Progress:
    """A line per epoch, and on a terminal one more that moves with the steps."""

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs
        self._live = sys.stdout.isatty()
        self._began, self._before = time.monotonic(), 0
        self._drawn = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Leave no moving line behind, however the training ends."""
        self._clear()

    def step(self, epoch: int, step: int, steps: int) -> None:
        """A step of an epoch is done."""
        now = time.monotonic()
        if self._live and now - self._drawn >= REDRAW_SECONDS:
            self._drawn = now
            done = epoch - 1 + step / steps
            print(
                f"\r\x1b[Kepoch {epoch} of {self._epochs}, step {step} of {steps}{self._left(done)}",
                end="",
                flush=True,
            )

    def resume(self, history: list[dict[str, Any]]) -> None:
        """The training continues after the epochs that are done already."""
        self._began, self._before = time.monotonic(), len(history)
        print(f"going on after epoch {len(history)} of {self._epochs}", flush=True)

    def epoch(self, history: list[dict[str, Any]]) -> None:
        """An epoch is done."""
        done, row = len(history), history[-1]
        validation = f", validation {row['val_accuracy']:.1%}" if "val_accuracy" in row else ""
        near_zero = (
            f", γ near 0 {row['near_zero']:.0%}" if "near_zero" in row else ""
        )  # not without BatchNorm
        self._clear()
        print(
            f"epoch {done:{len(str(self._epochs))}} of {self._epochs}: loss {row['loss']:.3f}, "
            f"train {row['train_accuracy']:.1%}{validation}{near_zero}{self._left(done)}",
            flush=True,
        )

    def _clear(self) -> None:
        if self._live:
            print("\r\x1b[K", end="", flush=True)

    def _left(self, done: float) -> str:
        if done >= self._epochs or done <= self._before:
            return ""
        pace = (time.monotonic() - self._began) / (done - self._before)
        return f", {duration(pace * (self._epochs - done))} left"


def print_json(facts: Any) -> None:
    """Facts for a program to read."""
    print(json.dumps(facts, indent=2, ensure_ascii=False))
