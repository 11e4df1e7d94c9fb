"""The command that shows a run from another terminal."""

from __future__ import annotations

import time

from sweeps.cli import studies
from sweeps.cli.options import RUNS, ConfigArgument, DataOption, RunsOption
from sweeps.config import load_config
from sweeps.console import Console
from sweeps.interruption import watch_signals
from sweeps.progress import ProgressFile
from sweeps.report.summary import how_far
from sweeps.state import read_study
from sweeps.study import Holder

EVERY = 0.5  # seconds


def watch_command(config: ConfigArgument, runs: RunsOption = RUNS, data_dir: DataOption = None) -> None:
    """Show a run live, from another terminal.

    Ends with the run, also when its machine gives no sign of life any more; or with Ctrl-C, which does not
    touch the run. Changes nothing.
    """
    settings = load_config(config)
    folder, console = runs / settings.study, Console()
    holder = Holder(folder)
    since = holder.since()
    if since is None:
        record = read_study(runs, studies.last_config(config, runs))
        console.say(f"study {record.name} is not being run: {how_far(record)}")
        named = studies.Named(config, record.config, runs, data_dir)
        if not record.ended:
            console.say(f"run it with: {named.command('run')}")
        console.say(f"every trial: {named.command('status')}")
        return
    file, named = ProgressFile(folder), studies.Named(config, settings, runs, data_dir)
    with watch_signals() as interruption, console:
        while holder.since() is not None and not interruption.signals:
            if (progress := file.read(since)) is not None:
                console.show(progress)
            time.sleep(EVERY)
    if interruption.signals:
        console.say(f"the run goes on; watch it again with: {named.command('watch')}")
    else:
        record = read_study(runs, studies.last_config(config, runs))
        console.say(f"the run has ended: {how_far(record)}")
        if not record.ended:
            console.say(f"go on with:  {named.command('run')}")
        console.say(f"every trial: {named.command('status')}")
