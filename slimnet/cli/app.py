"""The commands of `slimnet`, each in a module of its own."""

from __future__ import annotations

import sys

import typer

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
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("train")(train_command)
app.command("prune")(prune_command)
app.command("finetune")(finetune_command)
app.command("evaluate")(evaluate_command)
app.command("inspect")(inspect_command)
app.command("export")(export_command)


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
