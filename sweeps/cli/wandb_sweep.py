"""Commands for W&B's own sweeps: make one, and run a trial of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
import yaml

from slimnet.errors import SlimnetError
from slimnet.invocation import program
from sweeps.cli import studies
from sweeps.cli.options import RUNS, ConfigArgument, DataOption, RunsOption, SetOption
from sweeps.cli.run import run_command
from sweeps.config import load_config
from sweeps.console import Console
from sweeps.records import StudyRecord


def wandb_sweep_command(
    config: ConfigArgument,
    scheduler: Annotated[
        bool,
        typer.Option(
            "--scheduler", help="Points come from this config's sampler, which another command then runs."
        ),
    ] = False,
    show: Annotated[
        bool, typer.Option("--print", help="Print the sweep's YAML, for W&B's page, and make nothing.")
    ] = False,
    overrides: SetOption = [],  # noqa: B006 - typer reads it as the default and copies it
    runs: RunsOption = RUNS,
) -> None:
    """Make a W&B sweep whose agents run trials of a config.

    Agents that see the same runs folder share stages. Without --scheduler W&B chooses the points.
    """
    from sweeps.wandb_sweeps.definition import definition

    settings = load_config(config, overrides)
    studies.check_search(settings)
    found = Path(config)
    name = str(found.resolve()) if found.is_file() else config
    trial = [
        name,
        *(word for override in overrides for word in ("--set", override)),
        "--runs",
        str(runs.resolve()),
    ]
    sweep = definition(settings, trial, scheduled=scheduler)
    if show:
        print(yaml.safe_dump(sweep, sort_keys=False, allow_unicode=True), end="")
        return
    from sweeps.tracking.mode import require_key
    from sweeps.tracking.sdk import create_sweep

    require_key("wandb-sweep needs W&B", "use --print and make it on W&B's page")
    path, page = create_sweep(sweep, settings.wandb.project, settings.wandb.entity)
    console = Console()
    console.say(f"sweep on W&B: {page}")
    if scheduler:
        console.say(f"begin to choose points:  {program('wandb')} sweep-scheduler {path}")
    console.say(f"run trials:              {program('wandb')} agent {path}")


def wandb_trial_command(
    config: ConfigArgument,
    overrides: SetOption = [],  # noqa: B006
    runs: RunsOption = RUNS,
    data_dir: DataOption = None,
) -> None:
    """Run the trial that an agent of a W&B sweep was given.

    Agents give this command themselves.
    """
    from sweeps.state import read_study
    from sweeps.wandb_sweeps.trial import followed, overrides_of

    whole = load_config(config, overrides)
    run, own = overrides_of(whole)
    settings = load_config(config, [*overrides, *own])

    def read() -> StudyRecord | None:
        try:
            return read_study(runs, settings) if (runs / settings.study / "config.yaml").exists() else None
        except SlimnetError:
            return None

    with followed(run, whole, runs / settings.study, read):
        run_command(config, overrides=[*overrides, *own], runs=runs, data_dir=data_dir, quiet=True)
