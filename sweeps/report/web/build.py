"""A study's report and view as W&B's objects, built without a server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from types import MappingProxyType
from typing import Any

import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws

from sweeps.comparison import Comparison
from sweeps.records import StudyRecord
from sweeps.report import content
from sweeps.report.blocks import Block, Cards, Cell, Code, Column, Facts, Paragraph, Row, Section, Table
from sweeps.report.drawing import Figure
from sweeps.report.figures.marks import trial_id
from sweeps.report.shading import Shading
from sweeps.report.view import StudyView
from sweeps.report.web.panels import Grid, columns, grids, run_table, tables, widths
from sweeps.report.web.runs import Runs
from sweeps.report.wording import UNKNOWN, count

ON_DISK = ("networks",)  # sections about files beside the HTML page
TITLES = {"trial": "Layer by layer"}  # where only a part of a section is shown
MOST_ROWS = 100  # of a table in the text; of more, those that are marked: a grid lists all runs


class WebPages:
    """What is published of a study.

    Attributes:
        report: the report, to be saved.
        mark: what the report is found by again, in its description.
        sections: of the view of the project's page, which follow those of the report.
        runs: the filter of the view's runs.
        columns: of the view's table of runs.
    """

    def __init__(
        self,
        study: StudyRecord,
        entity: str,
        project: str,
        former: Sequence[str] = (),
        addresses: Mapping[int, str] = MappingProxyType({}),
        *,
        place_known: bool = True,
    ) -> None:
        """Build both.

        Args:
            study: what is reported.
            entity, project: where it is to be published.
            former: ids of runs there that were begun again under others, which no panel shows.
            addresses: of the trials' runs there, by trial.
            place_known: False to leave out of the panels where their runs are, which asks the server.
        """
        comparison = Comparison(study)
        self._view = StudyView(study, comparison)
        self._shading = Shading.of(self._view)
        self._runs = Runs(study, former)
        self._place = {"entity": entity, "project": project} if place_known else {}
        found = content.report(study, {}, PurePath(), comparison, addresses)
        kept = [section for section in found.sections if section.anchor not in ON_DISK]
        self.columns = columns(self._view)
        self.mark = f"Study {study.uid}"
        self.runs = self._runs.every()
        self.report = wr.Report(
            entity=entity,
            project=project,
            title=study.name,  # it becomes part of the address
            description=f"{found.subject}. {found.state}. {self.mark}",
            width="fluid",
            blocks=[
                wr.CalloutBlock(text=found.headline),
                wr.TableOfContents(),
                *(block for section in kept for block in self._section(section)),
            ],
        )
        self.sections = [made for section in kept if (made := self._panel_section(section))]

    def _section(self, section: Section) -> list[Any]:
        """The title and the blocks of a section; nothing if W&B has no panel for any of its figures."""
        blocks = [made for block in section.blocks for made in self._block(block)]
        if section.anchor == "trials":
            blocks += [self._grid(run_table(self._runs)), self._grid(tables(self._view, self._runs))]
        return [wr.H2(text=TITLES.get(section.anchor, section.title)), *blocks] if blocks else []

    def _block(self, block: Block) -> Iterator[Any]:
        match block:
            case Figure():
                for grid in grids(self._view, self._shading, self._runs, block):
                    yield self._grid(grid)
            case Cards():
                if layers := self._layers(block):
                    yield wr.MarkdownBlock(text=markdown(layers))
                    yield self._grid(widths(self._view, self._runs))
            case _:
                yield from written(block)

    def _grid(self, grid: Grid) -> Any:
        runs = wr.Runset(
            name=self._view.study.name,
            filters=grid.runs,
            order=[wr.OrderBy(wr.SummaryMetric("val_accuracy"))],
            pinned_columns=self.columns if grid.listed else [],
            **self._place,
        )
        return wr.PanelGrid(runsets=[runs], panels=grid.panels, hide_run_sets=not grid.listed)

    def _layers(self, cards: Cards) -> Table | None:
        """The channels of each layer, in the dense network and in the networks of the front."""
        anchors = {trial_id(trial) for trial in self._view.complete if trial.number in self._view.front}
        front = [card for card in cards.cards if card.anchor in anchors and card.layers]
        if not front:
            return None
        names = dict.fromkeys(name for card in front for name in card.layers)
        before = {name: both[0] for card in front for name, both in card.layers.items()}
        after = {
            name: [f"{card.layers[name][1]}" if name in card.layers else UNKNOWN for card in front]
            for name in names
        }
        rows = tuple(Row(tuple(map(Cell, (name, f"{before[name]}", *after[name])))) for name in names)
        titles = (Column("layer", text=True), Column("before"), *(Column(card.title) for card in front))
        return Table("Output channels of each layer.", titles, rows)

    def _panel_section(self, section: Section) -> Any | None:
        made = [
            grid
            for block in section.blocks
            if isinstance(block, Figure)
            for grid in grids(self._view, self._shading, self._runs, block)
        ]
        if section.anchor == "trials":
            made.append(tables(self._view, self._runs))
        panels = [panel for grid in made for panel in grid.panels]
        return ws.Section(name=section.title, panels=panels, is_open=True) if panels else None


def written(block: Paragraph | Code | Facts | Table) -> Iterator[Any]:
    """A block without panels."""
    match block:
        case Paragraph(text):
            yield wr.P(text=text)
        case Code(text, summary):
            if summary:
                yield wr.P(text=f"{summary}:")
            yield wr.CodeBlock(code=text, language="yaml" if "YAML" in summary else "python")
        case Facts(pairs):
            yield wr.UnorderedList(items=[f"{name}: {value}" for name, value in pairs])
        case Table():
            yield wr.MarkdownBlock(text=markdown(block))


def markdown(table: Table) -> str:
    """A table as markdown; of many rows, those that are marked or pinned."""
    rows, caption = table.rows, table.caption
    if len(rows) > MOST_ROWS:
        rows = tuple(row for row in rows if row.mark or row.pinned)
        caption += f" Of {count(len(table.rows))} rows the marked ones are shown; all runs are listed below."
    names = (f"{column.group} · {column.name}" if column.group else column.name for column in table.columns)
    lines = [
        [_words(name) for name in names],
        [":--" if column.text else "--:" for column in table.columns],
        *(
            [f"{'● ' * bool(row.mark and not at)}{_cell(cell)}" for at, cell in enumerate(row.cells)]
            for row in rows
        ),
    ]
    body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"{body}\n\n{_plain(caption)}"


def _cell(cell: Cell) -> str:
    """The text of a cell, which links to a run; places in the page on disk are not here."""
    text = _words(cell.text)
    return f"[{text}]({cell.link})" if cell.link.startswith("http") else text


def _words(text: str) -> str:
    return _plain(text).replace("|", "\\|").replace("\n", " ")


def _plain(text: str) -> str:
    """A text without markup of markdown, which names in a config may look like."""
    return text.replace("*", "\\*").replace("_", "\\_").replace("<", "&lt;")
