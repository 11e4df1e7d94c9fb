"""`slimnet`: the steps of a pruning experiment by hand, from one file to the next."""

from slimnet.cli.app import main

__all__ = ["main"]
