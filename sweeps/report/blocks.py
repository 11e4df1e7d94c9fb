"""The parts of a report: a headline and sections, each a title and blocks. Texts have no markup."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sweeps.report.drawing import Figure


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of text."""

    text: str


@dataclass(frozen=True)
class Code:
    """Text to copy, shown verbatim; collapsed under `summary` if there is one."""

    text: str
    summary: str = ""


@dataclass(frozen=True)
class Facts:
    """Pairs of a name and a value."""

    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: what it shows.
        value: what it is sorted by; None is always last.
        link: the address that it links to, if any.
    """

    text: str
    value: float | str | None = None
    link: str = ""


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        cells: one for each column.
        mark: why the row is marked; "" if it is not.
        pinned: whether it stays on top however the table is sorted.
        colour: of a swatch before its name, as #rrggbb; "" for none.
    """

    cells: tuple[Cell, ...]
    mark: str = ""
    pinned: bool = False
    colour: str = ""


@dataclass(frozen=True)
class Column:
    """A column of a table; adjacent columns of the same `group` share a heading."""

    name: str
    group: str = ""
    text: bool = False  # otherwise numbers, which line up on the right


@dataclass(frozen=True)
class Table:
    """A table, whose first column names the rows."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    sortable: bool = False


@dataclass(frozen=True)
class Card:
    """All about one thing, such as a trial.

    Attributes:
        anchor: its address in the page, which links and clicks on points lead to.
        title: its name.
        state: how far it is, in words.
        facts: pairs of a name and a value.
        layers: the output channels of its layers, before and after, by name.
        link: the address of its file, if any.
        run: that of its run on W&B, if any.
        colour: of a swatch before its name, as #rrggbb.
    """

    anchor: str
    title: str
    state: str
    facts: tuple[tuple[str, str], ...]
    layers: Mapping[str, tuple[int, int]]
    link: str
    run: str
    colour: str


@dataclass(frozen=True)
class Cards:
    """Cards, of which one is shown at a time; at first that with the anchor `first`."""

    cards: tuple[Card, ...]
    first: str


Block = Paragraph | Code | Facts | Table | Figure | Cards


@dataclass(frozen=True)
class Section:
    """A part of the report; one without blocks is left out."""

    anchor: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Report:
    """The whole content of a report.

    Attributes:
        title: the study's name.
        subject: the network and the data, by name.
        headline: its result in plain words.
        state: how far it is.
        sections: in order, without empty ones.
        trial_texts: by the trial's number, the text shown when the pointer is over its points.
        links: other places that show the study, each with its address.
    """

    title: str
    subject: str
    headline: str
    state: str
    sections: tuple[Section, ...]
    trial_texts: dict[int, str]
    links: tuple[tuple[str, str], ...] = ()
