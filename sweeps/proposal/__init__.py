"""A config for data and a network that somebody shows: sizes, epochs and a search space that suit them.

`propose` needs torch and is called in a process that has it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from slimnet.data.catalogue import ARRAYS, NAMES, Source
from slimnet.errors import SlimnetError
from slimnet.files import user_path

if TYPE_CHECKING:
    from sweeps.check import Findings
    from sweeps.proposal.choices import Proposal

LONGEST_NAME = 60  # characters of a study that is named after its data


@dataclass(frozen=True)
class Shown:
    """What is given.

    Attributes:
        study: a name for the study, after the data.
        data: the data.
        model: a network's name or factory; None for one that suits the pictures.
        folder: of the config, where factories are looked for first.
    """

    study: str
    data: Source
    model: str | None
    folder: Path


def shown(data: str, model: str | None, out: Path | None) -> Shown:
    """What the arguments of the command name.

    Raises:
        SlimnetError: nothing is there, or it is no data.
    """
    folder = (out.parent if out else Path.cwd()).resolve()
    path = user_path(data)
    if path.is_dir():
        kind = "npy" if (path / f"{ARRAYS[0]}.npy").is_file() else "folder"
        return Shown(_study(path.name), Source(kind, path), model, folder)
    if path.is_file():
        if path.suffix != ".npz":
            raise SlimnetError(
                f"{path} is no data set; show an npz file with the arrays {', '.join(ARRAYS)}, a folder with "
                "a folder of pictures per class, or package.module:function"
            )
        return Shown(_study(path.stem), Source("npz", path), model, folder)
    if data in NAMES and data not in ("factory", "folder", "npz", "npy"):
        return Shown(_study(data), Source(data), model, folder)
    if ":" in data:
        return Shown(_study(data.rpartition(":")[2]), Source("factory", folder, data), model, folder)
    raise SlimnetError(
        f"{data} is not there; show a folder with a folder of pictures per class, an npz file, a folder of "
        "npy files, or package.module:function that gives data"
    )


def propose(given: Shown, data_dir: Path | None) -> tuple[Proposal, Findings]:
    """Choose the fields of a config, by looking at the data and timing the network.

    Returns:
        The fields, and what a look at the config finds.

    Raises:
        SlimnetError: the data or the network cannot be used, with the first thing that is wrong.
    """
    from sweeps.proposal.choices import choose  # imports torch

    return choose(given, data_dir)


def _study(name: str) -> str:
    """A name that a study may have."""
    fitting = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:LONGEST_NAME]
    return fitting if fitting and fitting.lower() != "stages" else "study"
