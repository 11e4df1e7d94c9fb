"""What the command lines `slimnet` and `sweeps` share."""

# Without postponed annotations: typer could not find `show_version` by its name.
import sys
from typing import Annotated

import typer

from slimnet.streams import guard_streams

EXIT_USAGE = 2


def make_app(name: str, about: str, version: str) -> typer.Typer:
    """A command line without commands yet, with the option --version.

    Args:
        name: of the program.
        about: what it does, for its help.
        version: what --version prints.
    """
    app = typer.Typer(
        name=name,
        help=about,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )

    def show_version(wanted: bool) -> None:
        if wanted:
            print(version)
            raise typer.Exit

    @app.callback()
    def options(
        version: Annotated[
            bool,
            typer.Option(
                "--version", callback=show_version, is_eager=True, help="Show the version and exit."
            ),
        ] = False,
    ) -> None:
        """Options that belong to no command."""

    return app


def run_app(app: typer.Typer) -> None:
    """Run a command line whose output may go away; see `slimnet.streams`.

    Raises:
        SlimnetError: of the command, or its output cannot be written.
    """
    guard_streams()
    try:
        app()
    finally:
        sys.stdout.flush()  # here, where a failure still has a message
