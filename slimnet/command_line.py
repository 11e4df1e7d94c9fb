"""What the command lines `slimnet` and `sweeps` share."""

# Without postponed annotations: typer could not find `show_version` by its name.
import sys
from typing import Annotated

import typer

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


def print_in_any_encoding() -> None:
    """Let this process print "?" for characters, such as λ, that the encoding of its output lacks."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
