"""The command that puts studies beside each other."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from slimnet.errors import SlimnetError
from sweeps.cli import studies
from sweeps.cli.options import RUNS, JsonOption, RunsOption
from sweeps.cli.report import ShareOption, check_publishing, tell_published
from sweeps.cli.show import print_json
from sweeps.config import shipped_configs
from sweeps.console import Console
from sweeps.files import write_text
from sweeps.report.compare import Compared, compare, compare_page, field_value, verdict
from sweeps.report.html import render
from sweeps.report.online import comparison_links, note_report

LONGEST = 200  # letters of the names in a file's; most file systems allow 255 in all

ConfigsArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="CONFIG",
        help=f"Two or more YAML files, or names of shipped configs: {', '.join(shipped_configs())}.",
    ),
]


def compare_command(
    configs: ConfigsArgument,
    runs: RunsOption = RUNS,
    as_json: JsonOption = False,
    wandb: Annotated[
        bool,
        typer.Option(
            "--wandb",
            help="Publish it on W&B too: a report in the first study's project, replacing the one of before.",
        ),
    ] = False,
    share: ShareOption = False,
) -> None:
    """Compare the fronts and configs of studies.

    Shows how much each front covers and what differs in their configs, here and on a page in the report's
    folder of the first study.
    """
    if as_json and wandb:
        raise SlimnetError("--json only prints; leave out one of --json and --wandb")
    check_publishing("compare", wandb=wandb, share=share)
    found = [studies.read(config, runs) for config in configs]
    names = [study.name for study in found]
    if len(set(names)) < max(len(names), 2):
        twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
        found_alone = f"{twice} is named twice" if twice else f"{names[0]} is the only one"
        raise SlimnetError(f"compare needs two or more different studies, and {found_alone}")
    compared = compare(found)
    if as_json:
        print_json(_facts(compared))
        return
    console = Console()
    for reservation in compared.reservations:
        console.note(reservation)
    console.table([_row(facts) for facts in _facts(compared)["studies"]])
    console.say(verdict(compared))
    rows = [
        {"field": path, **dict(zip(names, map(field_value, values), strict=True))}
        for path, values in compared.differences.items()
    ]
    if rows:
        console.table(rows, "What differs in their configs")
    page = runs / names[0] / "report" / page_name(names)
    _write(page, compared, runs)
    console.say(f"comparison: {page}")
    if wandb:
        _publish(console, compared, configs, runs, share=share)
        _write(page, compared, runs)  # again, with where it was published


def _write(page: Path, compared: Compared, runs: Path) -> None:
    links = comparison_links(runs / compared.studies[0].name / "wandb", page.name)
    write_text(page, render(replace(compare_page(compared), links=links)))


def _publish(
    console: Console, compared: Compared, configs: Sequence[str], runs: Path, *, share: bool
) -> None:
    from sweeps.report.web.publish import publish_comparison

    names = [study.name for study in compared.studies]
    syncs = [
        studies.Named(config, study.config, runs).command("sync")
        for config, study in zip(configs, compared.studies, strict=True)
    ]
    published = publish_comparison(compared, [runs / name for name in names], syncs, share=share)
    note_report(runs / names[0] / "wandb", page_name(names), published.report)
    console.say(f"comparison on W&B: {published.report}")
    tell_published(console, published, names, syncs)


def page_name(names: Sequence[str]) -> str:
    """The file in the first study's report of what studies are compared on, one for each set of others.

    No name of a study holds a "+". Where the others' names are too long for a file, it is named by a hash.
    """
    others = "+".join(names[1:])
    if len(others) > LONGEST:
        others = hashlib.sha256(others.encode()).hexdigest()[:16]
    return f"beside-{others}.html"


def _facts(compared: Compared) -> dict[str, Any]:
    return {
        "studies": [
            {
                "study": study.name,
                "trials": len(study.complete),
                "front": study.front,
                "hypervolume": compared.volumes[index] if compared.volumes else None,
            }
            for index, study in enumerate(compared.studies)
        ],
        "objectives": compared.objectives,
        "differences": compared.differences,
        "reservations": compared.reservations,
        "verdict": verdict(compared),
    }


def _row(facts: dict[str, Any]) -> dict[str, Any]:
    return {**facts, "front": len(facts["front"])}
