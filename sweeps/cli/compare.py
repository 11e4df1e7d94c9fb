"""The command that puts studies beside each other."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
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

LONGEST = 200  # letters of the names in a file's; most file systems allow 255 in all

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
    write_text(page, render(compare_page(compared)))
    console.say(f"comparison: {page}")


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
