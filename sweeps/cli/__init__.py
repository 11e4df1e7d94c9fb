"""`sweeps`: the commands. Those that need no torch start without it."""

from sweeps.cli.app import main

__all__ = ["main"]
