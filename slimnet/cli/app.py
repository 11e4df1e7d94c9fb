"""The commands of `slimnet`, each in a module of its own.

These modules import what needs torch inside the commands, so that help, completion and mistakes are quick.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from slimnet import __version__
from slimnet.cli.evaluate import evaluate_command
from slimnet.cli.export import export_command
from slimnet.cli.finetune import finetune_command
from slimnet.cli.inspect import inspect_command
from slimnet.cli.prune import prune_command
from slimnet.cli.train import train_command
from slimnet.errors import SlimnetError
from slimnet.training.memory import keep_memory

EXIT_USAGE = 2

app = typer.Typer(
    name="slimnet",
    help="Train a network sparsely, prune it, fine-tune it: each step reads a file and writes one.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("train")(train_command)
app.command("prune")(prune_command)
app.command("finetune")(finetune_command)
app.command("evaluate")(evaluate_command)
app.command("inspect")(inspect_command)
app.command("export")(export_command)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"slimnet {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Options that belong to no command."""


def main() -> None:
    """Run the command line; a mistake of the user's is a message and exit status 2, never a traceback."""
    keep_memory()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # γ and bars, whatever the encoding
    try:
        app()
    except SlimnetError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(EXIT_USAGE)
