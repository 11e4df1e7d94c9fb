"""A look at a study before it runs: its data, its network, what pruning can do to it, and how long all takes.

`examine` needs torch and is called in a process that has it; everything else works on what it found.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sweeps.check.advice import warnings_about
from sweeps.check.estimate import Pace, pace_as_taken, pace_as_tried, seconds_left, seconds_of
from sweeps.check.findings import Findings

if TYPE_CHECKING:
    from sweeps.config import Config

__all__ = [
    "Findings",
    "Pace",
    "examine",
    "pace_as_taken",
    "pace_as_tried",
    "seconds_left",
    "seconds_of",
    "warnings_about",
]


def examine(config: Config, data_dir: Path | None) -> Findings:
    """Load the data, build the network, trace, prune and time it; writes nothing but downloaded data.

    Raises:
        SlimnetError: the study cannot run, with the first thing that is wrong.
    """
    from sweeps.check.probe import probe  # imports torch

    return probe(config, data_dir)
