"""Markdown: tables, and numbers as the page writes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sweeps.comparison import Measured
from sweeps.report.wording import UNKNOWN


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, text: int = 1) -> str:
    """A table whose first `text` columns are words, to the left; the others are numbers, to the right."""
    if not (body := list(rows)):
        return "Nothing yet."
    lines = [header, ["---" if index < text else "---:" for index in range(len(header))], *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def percent(fraction: float | None) -> str:
    """0.93294 -> "93.29"."""
    return UNKNOWN if fraction is None else f"{100 * fraction:.2f}"


def with_error(one: Measured, metric: str) -> str:
    """Mean and standard error of an accuracy, in percent: "93.29 ± 0.21"."""
    error = one.standard_error(metric)
    mean = percent(one.mean(metric))
    return mean if error is None else f"{mean} ± {percent(error)}"


def millions(macs: float | None) -> str:
    """119700000 -> "119.7 M"."""
    return UNKNOWN if macs is None else f"{macs / 1e6:,.1f} M"
