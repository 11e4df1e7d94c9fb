"""The report as one self-contained HTML page, with styles, script, figures and plotly inside."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from sweeps.comparison import Comparison
from sweeps.files import write_text
from sweeps.records import StudyRecord
from sweeps.report import content
from sweeps.report.blocks import (
    Block,
    Cards,
    Cell,
    Code,
    Column,
    Facts,
    Paragraph,
    Report,
    Row,
    Section,
    Table,
)
from sweeps.report.copies import offer_networks
from sweeps.report.drawing import Drawing, Figure, Plot
from sweeps.report.shading import RAMP

SCRIPTS = ("labels.js", "page.js", "tables.js", "cards.js", "saving.js")
MOST_OPEN_KEYS = 16  # of a legend; more are behind a line to click


def write_report(study: StudyRecord, folder: Path, comparison: Comparison | None = None) -> Path:
    """Write `folder`/index.html, of 2 to 5 MB, in one step, and put the networks of the front beside it.

    Args:
        study: what is reported.
        folder: runs/<study>/report.
        comparison: the study's comparison; made if not given.

    Returns:
        The path of the page.

    Raises:
        SlimnetError: the file cannot be written.
    """
    page = folder / "index.html"
    write_text(page, render(build(study, folder, comparison)))
    return page


def build(study: StudyRecord, folder: Path, comparison: Comparison | None = None) -> Report:
    """The content of the page, and the networks of the front beside where it is to be; see `write_report`."""
    offered = offer_networks(study, folder)
    from sweeps.report.online import links, run_pages  # which need sweeps.tracking, and that this package

    kept = folder.parent / "wandb"
    report = content.report(study, offered, folder, comparison, run_pages(study, kept))
    return replace(report, links=links(kept))


def render(report: Report, *, live: bool = False) -> str:
    """The HTML of the page; a live one asks the server that it comes from for news, and follows them."""
    return Template(_file("page.html")).substitute(
        title=escape(report.title),
        subject=escape(report.subject),
        headline=_words(report.headline),
        state=escape(report.state),
        links=_links(report),
        contents="".join(
            f'<li><a href="#{part.anchor}">{escape(part.title)}</a></li>' for part in report.sections
        ),
        sections="\n".join(map(_section, report.sections)),
        style=_file("page.css"),
        figures=_embedded(
            {"drawings": _drawings(report), "trials": report.trial_texts, "cards": _card_data(report)}
        ),
        plotly=_file("plotly-cartesian.min.js"),
        script="\n".join(map(_file, (*SCRIPTS, *(["live.js"] if live else [])))),
        connect="; connect-src 'self'" if live else "",
    )


def _words(text: str) -> str:
    """A text whose `names` are shown as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _links(report: Report) -> str:
    shown = " · ".join(f'<a href="{escape(address)}">{escape(name)}</a>' for name, address in report.links)
    return f'<p class="links">{shown}</p>' if shown else ""


def _file(name: str) -> str:
    return (resources.files("sweeps.report") / name).read_text(encoding="utf-8")


def _drawings(report: Report) -> dict[str, Drawing]:
    """The drawing of every plot by its id in the page."""
    return {
        name: plot.drawing
        for section in report.sections
        for block in section.blocks
        if isinstance(block, Figure)
        for name, plot in _named_plots(block)
    }


def _named_plots(figure: Figure) -> list[tuple[str, Plot]]:
    plots = itertools.chain.from_iterable(figure.columns)
    return [(f"{figure.name}-{number}", plot) for number, plot in enumerate(plots)]


def _embedded(data: Any) -> str:
    """JSON that cannot end the script element around it."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.replace("<", "\\u003c")


def _section(section: Section) -> str:
    blocks = "\n".join(map(_block, section.blocks))
    return f'<section id="{section.anchor}">\n<h2>{escape(section.title)}</h2>\n{blocks}\n</section>'


def _block(block: Block) -> str:
    match block:
        case Paragraph(text):
            return f"<p>{_words(text)}</p>"
        case Code(text, summary):
            code = f'<pre tabindex="0"><code>{escape(text)}</code></pre>'
            return f"<details><summary>{escape(summary)}</summary>{code}</details>" if summary else code
        case Facts(pairs):
            items = "".join(
                f"<div><dt>{escape(name)}</dt><dd>{escape(fact)}</dd></div>" for name, fact in pairs
            )
            return f"<dl>{items}</dl>"
        case Table():
            return _table(block)
        case Figure():
            return _figure(block)
        case Cards():
            return _cards(block)


def _figure(figure: Figure) -> str:
    plots = iter(_named_plots(figure))
    columns = "".join(
        f'<div class="column">{"".join(_plot(*next(plots)) for _ in column)}</div>'
        for column in figure.columns
    )
    return (
        f'<figure class="drawing" id="figure-{figure.name}">{_choices(figure)}{_legend(figure)}'
        f'<div class="columns">{columns}</div><figcaption>{escape(figure.caption)}</figcaption>'
        f"{_save('SVG', 'PNG')}</figure>"
    )


def _plot(name: str, plot: Plot) -> str:
    title = f"<h3>{escape(plot.title)}</h3>" if plot.title else ""
    height = plot.drawing["layout"]["height"]
    return (
        f'{title}<div class="plot" data-plot="{name}" role="img" aria-label="{escape(plot.alt)}" '
        f'style="min-height:{height}px"></div>'
    )


def _cards(block: Cards) -> str:
    """The place of a card; the page's script fills it."""
    options = "".join(
        f'<option value="{card.anchor}"{" selected" if card.anchor == block.first else ""}>'
        f"{escape(card.title)}</option>"
        for card in block.cards
    )
    return (
        f'<div class="cards"><p class="pick"><select aria-label="Trial">{options}</select>'
        '<button type="button" data-step="-1">previous</button>'
        '<button type="button" data-step="1">next</button></p><article></article></div>'
    )


def _card_data(report: Report) -> dict[str, Any]:
    """What the script makes cards of; names of layers, which most cards share, are stored once."""
    found = [
        card
        for section in report.sections
        for block in section.blocks
        if isinstance(block, Cards)
        for card in block.cards
    ]
    names: dict[tuple[str, ...], int] = {}
    cards = {
        card.anchor: {
            "title": card.title,
            "state": card.state,
            "colour": card.colour,
            "facts": card.facts,
            "link": card.link,
            "run": card.run,
            "names": names.setdefault(tuple(card.layers), len(names)),
            "widths": list(card.layers.values()),
        }
        for card in found
    }
    return {"names": list(names), "cards": cards}


def _choices(figure: Figure) -> str:
    return "".join(
        f'<fieldset class="choice"><legend>{escape(choice.label)}</legend>'
        + "".join(
            f'<label><input type="radio" name="{figure.name}-{number}" value="{escape(option)}"'
            f"{'' if index else ' checked'}><span>{escape(option)}</span></label>"
            for index, option in enumerate(choice.options)
        )
        + "</fieldset>"
        for number, choice in enumerate(figure.choices)
    )


def _legend(figure: Figure) -> str:
    if figure.scale:
        strip = f'<span class="strip" style="background:linear-gradient(90deg,{",".join(RAMP)})"></span>'
        return f'<p class="scale">{escape(figure.scale.low)}{strip}{escape(figure.scale.high)}</p>'
    keys = "".join(
        f'<label style="--colour:{key.colour}"><input type="checkbox" value="{escape(key.name)}"'
        f"{' checked' if key.shown else ''}>{escape(key.name)}</label>"
        for key in figure.legend
    )
    if not keys:
        return ""
    legend = f'<div class="legend" role="group" aria-label="Shown in the figure">{keys}</div>'
    if len(figure.legend) <= MOST_OPEN_KEYS:
        return legend
    shown = sum(key.shown for key in figure.legend)
    count = f"{shown} of {len(figure.legend)} lines are shown: choose others"
    return f'<details class="keys"><summary>{count}</summary>{legend}</details>'


def _table(table: Table) -> str:
    pinned = "".join(_row(row, table.columns) for row in table.rows if row.pinned)
    others = "".join(_row(row, table.columns) for row in table.rows if not row.pinned)
    caption = escape(table.caption)
    return (
        f'<figure><div class="scroller" tabindex="0" role="region" aria-label="{caption}"><table>'
        f"<thead>{_groups(table)}<tr>{_heads(table)}</tr></thead>"
        f"{f'<tbody>{pinned}</tbody>' if pinned else ''}"
        f"<tbody{' data-sortable' if table.sortable else ''}>{others}</tbody></table></div>"
        f'<p class="swipe">The table is wider than the screen: scroll it sideways.</p>'
        f"<figcaption>{caption}</figcaption>{_save('CSV')}</figure>"
    )


def _save(*formats: str) -> str:
    buttons = "".join(
        f'<button type="button" data-format="{name.lower()}">{name}</button>' for name in formats
    )
    return f'<p class="save">Save as {buttons}</p>'


def _groups(table: Table) -> str:
    """A row above the column names with the names of their groups."""
    if not any(column.group for column in table.columns):
        return ""
    spans = [
        (group, len(list(names)))
        for group, names in itertools.groupby(table.columns, lambda column: column.group)
    ]
    cells = "".join(
        f'<th colspan="{span}" scope="colgroup">{escape(group)}</th>'
        if group
        else f'<td colspan="{span}"></td>'
        for group, span in spans
    )
    return f'<tr class="groups">{cells}</tr>'


def _heads(table: Table) -> str:
    def name(column: Column) -> str:
        return (
            f'<button type="button">{escape(column.name)}</button>' if table.sortable else escape(column.name)
        )

    sort = ' aria-sort="none"' if table.sortable else ""
    return "".join(f'<th scope="col"{sort}{_side(column)}>{name(column)}</th>' for column in table.columns)


def _row(row: Row, columns: Sequence[Column]) -> str:
    first, *others = row.cells
    colour = f'<span class="swatch" style="background:{row.colour}"></span>' if row.colour else ""
    mark = (
        f'<span class="mark" title="{escape(row.mark)}" role="img" aria-label="{escape(row.mark)}">●</span>'
    )
    head = f'<th scope="row"{_data_value(first)}>{colour}{_text(first)}{mark if row.mark else ""}</th>'
    cells = "".join(_cell(cell, column) for cell, column in zip(others, columns[1:], strict=True))
    return f"<tr{' class=marked' if row.mark else ''}>{head}{cells}</tr>"


def _cell(cell: Cell, column: Column) -> str:
    return f"<td{_side(column)}{_sort_key(cell)}>{_text(cell)}</td>"


def _text(cell: Cell) -> str:
    """What a cell shows; a link to a file beside the page saves it."""
    if not cell.link:
        return escape(cell.text)
    save = "" if cell.link.startswith(("#", "http")) else " download"
    return f'<a href="{escape(cell.link)}"{save}>{escape(cell.text)}</a>'


def _side(column: Column) -> str:
    return ' class="text"' if column.text else ""


def _sort_key(cell: Cell) -> str:
    """The attribute that a cell is sorted by; none if it equals the text, which the script reads then."""
    return "" if f"{cell.value}" == cell.text.replace(",", "") else _data_value(cell)


def _data_value(cell: Cell) -> str:
    if cell.value is None:
        return ""
    value = f"{cell.value:.6g}" if isinstance(cell.value, float) else f"{cell.value}"
    return f' data-value="{escape(value)}"'
