"""Tables that fit: no number is ever cut, however narrow the terminal.

Columns of words wrap. Where that is not enough, the table is parted into several below each other, each of
which begins with the first column.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, JustifyMethod, RenderResult
from rich.table import Table
from rich.text import Text

GAP = 2  # between columns
WORD = 16  # a longer word of a column of words may be broken
UNBROKEN = {"field"}  # but in these, where it is one to copy
WORDS = {
    "network",
    "state",
    "reason",
    "control",
    "comparison",
    "group",
    "kept whole because",
    "what",
    "who",
    "stage",
    "where",
    "study",
    "field",
}
"""The columns of words; all others hold numbers."""

HEADINGS = {
    "lambda": "λ",
    "sparse.lambda": "λ",
    "sparse.target": "target",
    "prune.ratio": "ratio",
    "params": "parameters",
    "macs": "MACs",
    "val_accuracy": "validation",
    "test_accuracy": "test",
    "who": "trial",
}
STYLES = {"stage": "cyan"}


@dataclass(frozen=True)
class FittedTable:
    """A table for rich to print, as wide as there is room.

    Attributes:
        rows: all with the same keys, which name the columns.
        title: printed above the table.
        kept: the columns that always stay; if there are any, others without room are left out rather than put
            below.
    """

    rows: Sequence[Mapping[str, Any]]
    title: str | None = None
    kept: Sequence[str] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The title, and the table in one part or several."""
        if self.title:
            yield Text(self.title, style="italic")
        columns = self._columns
        if self.kept:
            columns = _fitting(columns, self.kept, options.max_width)
        first, *others = _parts(columns, options.max_width)
        yield _table(first, options.max_width)
        for part in others:
            if any(cell for column in part[1:] for cell in column.cells):
                yield ""
                yield _table(part, options.max_width)

    @property
    def least_width(self) -> int:
        """The width below which the table is parted."""
        return _least_width(self._columns)

    @property
    def _columns(self) -> list[_Column]:
        keys = list(self.rows[0]) if self.rows else []
        return [_Column(key, [_cell(key, row[key]) for row in self.rows]) for key in keys]


@dataclass(frozen=True)
class _Column:
    key: str
    cells: list[str]

    @property
    def heading(self) -> str:
        return HEADINGS.get(self.key, self.key)

    @property
    def has_words(self) -> bool:
        return self.key in WORDS

    @property
    def least_width(self) -> int:
        """The width below which something would be cut that should not."""
        if not self.has_words:
            return self.most_width
        words = (word for text in (self.heading, *self.cells) for word in text.split())
        longest = max(map(cell_len, words), default=0)
        return longest if self.key in UNBROKEN else min(WORD, longest)

    @property
    def most_width(self) -> int:
        """The width in which nothing wraps."""
        return max(map(cell_len, (self.heading, *self.cells)))


def _least_width(columns: Sequence[_Column]) -> int:
    return sum(column.least_width + GAP for column in columns) - GAP


def _fitting(columns: Sequence[_Column], kept: Sequence[str], width: int) -> list[_Column]:
    """The columns that are kept, and of the others as many as fit beside them; in their order."""
    chosen = {column.key: column for column in columns if column.key in kept}
    for column in columns:
        if _least_width([*chosen.values(), column]) <= width:
            chosen[column.key] = column
    return [column for column in columns if column.key in chosen]


def _parts(columns: Sequence[_Column], width: int) -> list[list[_Column]]:
    """The columns of each part: as many as fit, the first column before them."""
    parts = [list(columns[:1])]
    for column in columns[1:]:
        if len(parts[-1]) > 1 and _least_width([*parts[-1], column]) > width:
            parts.append([columns[0]])
        parts[-1].append(column)
    return parts


def _widths(columns: Sequence[_Column], width: int) -> dict[str, int]:
    """The width of each column; those of words share equally what there is beyond the least."""
    widths = {column.key: column.least_width for column in columns}
    room = max(0, width - _least_width(columns))
    words = sorted(
        (column for column in columns if column.has_words), key=lambda c: c.most_width - c.least_width
    )
    for place, column in enumerate(words):
        widths[column.key] = min(column.most_width, column.least_width + room // (len(words) - place))
        room -= widths[column.key] - column.least_width
    first = next(iter(widths.values()), 0)
    beside = max(WORD, width - GAP - first)  # for the only other one, if it is too wide
    return {key: min(own, beside if place else width) for place, (key, own) in enumerate(widths.items())}


def _table(columns: Sequence[_Column], width: int) -> Table:
    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False)
    widths = _widths(columns, width)
    for column in columns:
        justify: JustifyMethod = "left" if column.has_words else "right"
        style = STYLES.get(column.key, "")
        table.add_column(
            column.heading, justify=justify, style=style, width=widths[column.key], overflow="fold"
        )
    for row in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*map(Text, row))
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
