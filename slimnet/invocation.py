"""How this program was called, so that messages suggest commands that work when they are pasted."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

SCRIPTS = ("slimnet", "sweeps")


def program(name: str) -> str:
    """How to call a program of this environment: by its script, if this one was, else by `python -m`.

    A script is the same in every folder. `python -m sweeps` runs what is in the current folder first.
    """
    script = _script()
    if script is None:
        return shlex.join([sys.orig_argv[0], "-m", name])
    return shlex.quote(_shortest(script.with_name(name)))


def this_command() -> str:
    """The command line that the user gave, to be run again."""
    script = _script()
    if script is None:
        return shlex.join(sys.orig_argv)
    return shlex.join([_shortest(script), *sys.argv[1:]])


def interrupted(how: str = "") -> str:
    """What a command says that a signal has ended, and that can be given again."""
    return f"interrupted{how}. Go on with: {this_command()}"


def _shortest(script: Path) -> str:
    """Its name, where the shell finds it by that."""
    return script.name if shutil.which(script.name) == str(script) else str(script)


def _script() -> Path | None:
    """The console script that runs, if one does."""
    path = Path(sys.argv[0])
    return path if path.name in SCRIPTS else None
