"""The command line `sweeps`: its commands, and how it ends on an error."""

from __future__ import annotations

import logging
import os
import sys

import slimnet
from slimnet.command_line import EXIT_USAGE, make_app, run_app
from slimnet.errors import SlimnetError
from sweeps.cli.check import check_command
from sweeps.cli.compare import compare_command
from sweeps.cli.export import export_command
from sweeps.cli.init import init_command
from sweeps.cli.maintain import doctor_command, retry_command, sync_command
from sweeps.cli.plan import plan_command
from sweeps.cli.remove import gc_command, rm_command
from sweeps.cli.report import report_command
from sweeps.cli.run import run_command
from sweeps.cli.show import pareto_command, status_command
from sweeps.cli.wandb_sweep import wandb_sweep_command, wandb_trial_command
from sweeps.cli.watch import watch_command
from sweeps.console import Console
from sweeps.study import EXIT_BUSY, StudyBusyError

app = make_app(
    "sweeps",
    "Find out how small a convolutional network can get, by sweeps over how it is pruned and trained.",
    version=f"sweeps of slimnet {slimnet.__version__}",
)
app.command("run")(run_command)
app.command("init")(init_command)
app.command("check")(check_command)
app.command("plan")(plan_command)
app.command("status")(status_command)
app.command("watch")(watch_command)
app.command("pareto")(pareto_command)
app.command("report")(report_command)
app.command("compare")(compare_command)
app.command("export")(export_command)
app.command("sync")(sync_command)
app.command("retry")(retry_command)
app.command("rm")(rm_command)
app.command("gc")(gc_command)
app.command("wandb-sweep")(wandb_sweep_command)
app.command("wandb-trial", hidden=True)(wandb_trial_command)
app.command("doctor")(doctor_command)


def main() -> None:
    """Run the command line; a mistake of the user ends in a message and an exit status, not a traceback."""
    logging.getLogger("sweeps").addHandler(logging.NullHandler())  # what is logged, only `run` keeps
    try:
        run_app(app)
    except StudyBusyError as error:
        Console().error(f"Error: {error}")
        sys.exit(EXIT_BUSY)
    except SlimnetError as error:
        Console().error(f"Error: {error}")
        sys.exit(EXIT_USAGE)
    except OSError as error:  # a full disk, a folder that has become unwritable
        what = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
        Console().error(f"Error: {what}; fix that and run the command again")
        sys.exit(EXIT_USAGE)
    finally:
        if "wandb" in sys.modules:  # whose own end at exit has no bound
            from sweeps.tracking import sdk

            sdk.shut_down()
        if "sweeps.executors.ray_head" in sys.modules:  # nor has Ray's while its head hangs
            from sweeps.executors import ray_head

            end = sys.exception()
            if isinstance(end, SystemExit) and ray_head.hangs():
                _end_at_once(0 if end.code is None else end.code if isinstance(end.code, int) else 1)


def _end_at_once(status: int) -> None:
    """End this process without anything that Python or a package does at exit."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)
