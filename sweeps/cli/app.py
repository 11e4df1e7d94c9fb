"""The command line as a whole: its commands, and how it ends when something is wrong."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import slimnet
from slimnet.errors import SlimnetError
from sweeps.cli.maintain import doctor_command, retry_command, sync_command
from sweeps.cli.run import run_command
from sweeps.cli.show import pareto_command, plan_command, report_command, status_command
from sweeps.console import Console
from sweeps.study import StudyBusyError

EXIT_USAGE, EXIT_BUSY = 2, 3

app = typer.Typer(
    name="sweeps",
    help="Find out how small a convolutional network can get: sweeps over λ and pruning ratios.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("run")(run_command)
app.command("plan")(plan_command)
app.command("status")(status_command)
app.command("pareto")(pareto_command)
app.command("report")(report_command)
app.command("sync")(sync_command)
app.command("retry")(retry_command)
app.command("doctor")(doctor_command)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sweeps of slimnet {slimnet.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Find out how small a convolutional network can get: sweeps over λ and pruning ratios."""


def main() -> None:
    """Run the command line; a mistake of the user's is a message and an exit status, never a traceback."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # λ, whatever the terminal's encoding
    try:
        app()
    except StudyBusyError as error:
        Console().error(f"Error: {error}")
        sys.exit(EXIT_BUSY)
    except SlimnetError as error:
        Console().error(f"Error: {error}")
        sys.exit(EXIT_USAGE)
    except OSError as error:  # a full disk, a folder that has become unwritable
        Console().error(f"Error: {error.filename}: {error.strerror}; mend that and give the command again")
        sys.exit(EXIT_USAGE)
