"""What a report is made of: a headline and sections, each a title and blocks. Texts are without markup."""

from __future__ import annotations

from dataclasses import dataclass

from sweeps.report.drawing import Figure


@dataclass(frozen=True)
class Paragraph:
    """Running text."""

    text: str


@dataclass(frozen=True)
class Code:
    """Text to copy, shown as it is; folded behind `summary` if there is one."""

    text: str
    summary: str = ""


@dataclass(frozen=True)
class Facts:
    """Pairs of a name and what it is."""

    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Cell:
    """What a table shows, what it is sorted by (None: always last), and where it leads."""

    text: str
    value: float | str | None = None
    link: str = ""


@dataclass(frozen=True)
class Row:
    """`mark` sets a row apart and says why; a `pinned` row stays on top however the table is sorted."""

    cells: tuple[Cell, ...]
    mark: str = ""
    pinned: bool = False
    colour: str = ""


@dataclass(frozen=True)
class Column:
    """A column of a table; neighbours of the same `group` stand under its name."""

    name: str
    group: str = ""
    text: bool = False  # otherwise numbers, which line up on the right


@dataclass(frozen=True)
class Table:
    """The first column names the rows."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    sortable: bool = False


Block = Paragraph | Code | Facts | Table | Figure


@dataclass(frozen=True)
class Section:
    """A part of the report; one without blocks is left out."""

    anchor: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Report:
    """All that is said of a study.

    Attributes:
        trial_texts: by the trial's number, what appears when the pointer is over its points.
    """

    title: str
    headline: str
    state: str
    sections: tuple[Section, ...]
    trial_texts: dict[int, str]
