"""The command that writes a config for data that it is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slimnet.errors import SlimnetError
from sweeps.check import warnings_about
from sweeps.cli import studies
from sweeps.cli.check import print_warnings, summary
from sweeps.cli.options import RUNS, DataOption
from sweeps.config import load_config
from sweeps.console import Console
from sweeps.executors import processes
from sweeps.files import write_text
from sweeps.proposal import propose, shown
from sweeps.proposal.template import render


def init_command(
    source: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="A folder with a folder of pictures per class, an npz file, a folder of npy files, or "
            "package.module:function that gives data.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="FILE", help="The config to write.", show_default="NAME.yaml here"
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NETWORK",
            help="Your network, package.module:function, or one by name, such as resnet20 or "
            "torchvision/mobilenet_v2.",
            show_default="a small ResNet that suits the pictures",
        ),
    ] = None,
    data_dir: DataOption = None,
) -> None:
    """Write a commented config for your data.

    Its sizes, epochs and search space suit the data and this machine. It looks at the data,
    times a network on them, and tries the config before it is written.
    """
    processes.warm_up()
    given = shown(source, model, out)
    out = out or Path(f"{given.study}.yaml")
    if out.exists():
        raise SlimnetError(f"{out} is there already; name another file with --out")
    proposal, found = processes.ask(propose, given, data_dir)
    write_text(out, render(proposal))
    settings, console = load_config(out), Console()
    console.say(f"data: {proposal.about}")
    for note in found.notes:
        console.say(f"  {note}")
    console.say(summary(found, proposal.seconds))
    print_warnings(console, warnings_about(settings, found))
    named = studies.Named(str(out), settings, RUNS, data_dir)
    console.say(f"written: {out}; look at it, then start with: {named.command('run')}")
