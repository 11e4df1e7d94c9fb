"""The command that writes the report of a study, or serves it while the sweep runs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slimnet.errors import SlimnetError
from slimnet.wording import plural
from sweeps.cli import studies
from sweeps.cli.options import RUNS, ConfigArgument, RunsOption
from sweeps.console import Console
from sweeps.interruption import watch_signals
from sweeps.outputs import write_outputs
from sweeps.records import StudyRecord
from sweeps.report import write_report
from sweeps.report.copies import FOLDER
from sweeps.report.html import build, render
from sweeps.report.online import note_report
from sweeps.report.serving import serving

if TYPE_CHECKING:
    from sweeps.report.web.publish import Published

NEWS_SECONDS = 2.0  # between two looks at the study

WatchOption = Annotated[
    bool, typer.Option("--watch", help="Serve it to this machine alone, and refresh it while the sweep runs.")
]
PortOption = Annotated[
    int, typer.Option("--port", metavar="N", min=0, max=65535, help="Port to serve it on; 0 for a free one.")
]
WandbOption = Annotated[
    bool,
    typer.Option(
        "--wandb",
        help="Publish it on W&B too: a report and a view of the project, replacing those of before.",
    ),
]
ShareOption = Annotated[
    bool, typer.Option("--share", help="With --wandb: print a link with which everybody can see the report.")
]


def report_command(
    config: ConfigArgument,
    runs: RunsOption = RUNS,
    watch: WatchOption = False,
    port: PortOption = 0,
    wandb: WandbOption = False,
    share: ShareOption = False,
) -> None:
    """Write the HTML report, serve it live, or publish it on W&B.

    With the report it writes the front as it stands: pareto.json, pareto.csv and latency.json.
    """
    if watch and wandb:
        raise SlimnetError("--watch serves the page on this machine; leave out one of --watch and --wandb")
    check_publishing("report", wandb=wandb, share=share)
    record = studies.read(config, runs)
    if watch:
        _serve(record, config, runs, port)
        return
    page = write_outputs(runs / record.name, record)
    Console().say(f"report: {page}")
    if wandb:
        _publish(record, config, runs, share=share)
        write_report(record, page.parent)  # again, with where it was published


def check_publishing(command: str, *, wandb: bool, share: bool) -> None:
    """Check, before any work, that what a command makes can be published where that is asked for.

    Raises:
        SlimnetError: W&B cannot be used, or only a link to it is asked for.
    """
    if share and not wandb:
        raise SlimnetError("--share makes a link to what --wandb publishes; give both")
    if wandb:
        from sweeps.report.web.publish import check_usable

        check_usable(f"{command} --wandb")


def _publish(record: StudyRecord, config: str, runs: Path, *, share: bool) -> None:
    from sweeps.report.web.publish import publish

    sync = studies.Named(config, record.config, runs).command("sync")
    published = publish(record, runs / record.name, sync, share=share)
    note_report(runs / record.name / "wandb", published.place, published.report)
    console = Console()
    console.say(f"report on W&B: {published.report}")
    console.say(f"view on W&B: {published.view}")
    tell_published(console, published, [record.name], [sync])


def tell_published(
    console: Console, published: Published, names: Sequence[str], syncs: Sequence[str]
) -> None:
    """Print the link to a report on W&B that everybody can use, and which runs it lacks.

    Args:
        console: to print on.
        published: what was published.
        names, syncs: of the studies, each with the command that uploads its runs.
    """
    if published.shared:
        console.say(f"everybody with this link can see the report: {published.shared}")
    for name, sync, runs, lacking in zip(names, syncs, published.runs, published.lacking, strict=True):
        if lacking:
            console.say(
                f"{lacking} of {plural(runs, 'run')} of {name} are not on W&B, and so not in its panels; "
                f"upload with: {sync}"
            )


def _serve(record: StudyRecord, config: str, runs: Path, port: int) -> None:
    """Serve the report until Ctrl-C; of the study only the networks beside the report are written."""
    folder = runs / record.name / "report"
    with serving(folder / FOLDER, port) as served, watch_signals() as interruption:
        served.show(render(build(record, folder), live=True))
        Console().say(f"report: {served.address} follows the sweep; Ctrl-C ends this, not the sweep")
        shown = _progress(record)
        while not interruption.signals:
            time.sleep(NEWS_SECONDS)
            record = studies.read(config, runs)
            if _progress(record) != shown:
                served.show(render(build(record, folder), live=True))
                shown = _progress(record)


def _progress(record: StudyRecord) -> list[Any]:
    """What changes when there is news of a study."""
    chains = [one.stages for one in record.trials] + [one.stages for one in record.contenders]
    outcomes = [one.state for one in record.trials] + [one.state for one in record.contenders]
    stages = [record.dense, *(stage for stages in chains for stage in stages)]
    stages += [*record.curves.values(), *record.latencies.values()]
    return [record.goal, outcomes, [(stage.key, stage.state, stage.epochs_done) for stage in stages]]
