"""The comparison of studies as a report on W&B, built without a server."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import wandb_workspaces.reports.v2 as wr

from sweeps.records import StudyRecord
from sweeps.report.blocks import Block, Cards
from sweeps.report.compare import Compared, compare_page
from sweeps.report.drawing import Figure
from sweeps.report.figures.fronts import colours
from sweeps.report.figures.marks import SIZES
from sweeps.report.web.build import written
from sweeps.report.web.panels import HALF
from sweeps.report.web.runs import Runs
from sweeps.report.wording import METRICS


@dataclass(frozen=True)
class Shown:
    """Where the runs of a study are.

    Attributes:
        entity, project: of W&B.
        former: ids of runs there that were begun again under others, which no panel shows.
        front: ids of the runs there of the trials on its front.
    """

    entity: str
    project: str
    former: Sequence[str]
    front: Sequence[str]


def mark(studies: Sequence[StudyRecord]) -> str:
    """What the report on some studies is found by again, in its description."""
    uids = " ".join(sorted(study.uid for study in studies))
    return f"Comparison {hashlib.sha256(uids.encode()).hexdigest()[:16]}"


def comparison(compared: Compared, places: Sequence[Shown], *, place_known: bool = True) -> Any:
    """The report, to be saved in the project of the first study.

    Args:
        compared: the studies.
        places: where the runs of each are.
        place_known: False to leave out of the panels where their runs are, which asks the server.
    """
    page = compare_page(compared)
    blocks = [
        made
        for section in page.sections
        for made in (wr.H2(text=section.title), *_made(section.blocks, compared, places, place_known))
    ]
    return wr.Report(
        entity=places[0].entity,
        project=places[0].project,
        title=page.title,
        description=f"{page.subject}. {page.state}. {mark(compared.studies)}",
        width="fluid",
        blocks=[wr.CalloutBlock(text=page.headline), *blocks],
    )


def _made(
    blocks: Sequence[Block], compared: Compared, places: Sequence[Shown], place_known: bool
) -> Iterator[Any]:
    for block in blocks:
        if isinstance(block, Figure):
            yield wr.P(
                text="A colour for each study: the networks of its front, each a link to its run. Up and to "
                "the left is better."
            )
            yield _fronts(compared, places, place_known)
        elif not isinstance(block, Cards):
            yield from written(block)


def _fronts(compared: Compared, places: Sequence[Shown], place_known: bool) -> Any:
    """The fronts of all studies in one chart, for each size."""
    shades = colours(compared.studies)
    sets = [
        wr.Runset(
            name=study.name,
            filters=Runs(study, place.former).some(study.trials[number] for number in study.front),
            order=[wr.OrderBy(wr.SummaryMetric("val_accuracy"))],
            **({"entity": place.entity, "project": place.project} if place_known else {}),
        )
        for study, place in zip(compared.studies, places, strict=True)
    ]
    charts = [
        wr.ScatterPlot(
            title=f"{METRICS['val_accuracy']} over {name}",
            x=wr.SummaryMetric(metric),
            y=wr.SummaryMetric("val_accuracy"),
            log_x=True,
            layout=wr.Layout(x=HALF * index, y=0, w=HALF, h=12),
        )
        for index, (name, metric) in enumerate(SIZES.items())
    ]
    painted = {
        run: shades[study.name]
        for study, place in zip(compared.studies, places, strict=True)
        for run in place.front
    }
    return wr.PanelGrid(runsets=sets, panels=charts, custom_run_colors=painted)
