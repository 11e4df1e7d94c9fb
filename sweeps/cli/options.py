"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sweeps.config import shipped_configs

RUNS = Path("runs")

ConfigArgument = Annotated[
    str,
    typer.Argument(
        metavar="CONFIG",
        help=f"A YAML file, or the name of a shipped config: {', '.join(shipped_configs())}.",
    ),
]
TrialsOption = Annotated[
    int | None, typer.Option("--trials", metavar="N", help="Number of trials; overrides search.trials.")
]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", metavar="N", help="Number of worker processes; overrides workers.")
]
ExecutorOption = Annotated[
    str | None,
    typer.Option(
        "--executor", metavar="KIND", help="Where stages run: local or ray; overrides executor.kind."
    ),
]
SetOption = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a config field, such as sparse.epochs=2. May be repeated.",
    ),
]
RunsOption = Annotated[Path, typer.Option("--runs", metavar="DIR", help="Folder of the studies and stages.")]
DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="DIR",
        help="Folder of the data sets, which are downloaded there if missing.",
        show_default="the user's cache",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
