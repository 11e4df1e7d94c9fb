"""The command that puts studies beside each other."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from slimnet.errors import SlimnetError
from sweeps.cli import studies
from sweeps.cli.options import RUNS, JsonOption, RunsOption
from sweeps.cli.show import print_json
from sweeps.config import shipped_configs
from sweeps.console import Console
from sweeps.files import write_text
from sweeps.report.compare import Compared, compare, compare_page, field_value, verdict
from sweeps.report.html import render

ConfigsArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="CONFIG CONFIG...",
        help=f"Two or more YAML files, or names of shipped configs: {', '.join(shipped_configs())}.",
    ),
]


def compare_command(configs: ConfigsArgument, runs: RunsOption = RUNS, as_json: JsonOption = False) -> None:
    """Compare the fronts and configs of studies.

    Shows how much each front covers and what differs in their configs, here and on a page in the report's
    folder of the first study.
    """
    found = [studies.read(config, runs) for config in configs]
    names = [study.name for study in found]
    if len(set(names)) < max(len(names), 2):
        raise SlimnetError(f"compare needs two or more different studies, not {', '.join(names)}")
    compared = compare(found)
    if as_json:
        print_json(_facts(compared))
        return
    page = runs / names[0] / "report" / f"beside-{'-'.join(names[1:])}.html"
    write_text(page, render(compare_page(compared)))
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
    console.say(f"comparison: {page}")


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
    }


def _row(facts: dict[str, Any]) -> dict[str, Any]:
    return {**facts, "front": len(facts["front"])}
