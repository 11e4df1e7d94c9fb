"""The command line `slimnet`; each command has a module.

These modules import what needs torch inside the commands, so that help, completion and mistakes are quick.
"""

from __future__ import annotations

import sys

from slimnet import __version__
from slimnet.cli.evaluate import evaluate_command
from slimnet.cli.export import export_command
from slimnet.cli.finetune import finetune_command
from slimnet.cli.inspect import inspect_command
from slimnet.cli.predict import predict_command
from slimnet.cli.prune import prune_command
from slimnet.cli.train import train_command
from slimnet.command_line import EXIT_USAGE, make_app, run_app
from slimnet.errors import SlimnetError
from slimnet.training.memory import keep_memory

app = make_app(
    "slimnet",
    "Train a network sparsely, prune it, fine-tune it: each step reads a file and writes one.",
    version=f"slimnet {__version__}",
)
app.command("train")(train_command)
app.command("prune")(prune_command)
app.command("finetune")(finetune_command)
app.command("evaluate")(evaluate_command)
app.command("predict")(predict_command)
app.command("inspect")(inspect_command)
app.command("export")(export_command)


def main() -> None:
    """Run the command line; a mistake of the user ends in a message and exit status 2, not a traceback."""
    keep_memory()
    try:
        run_app(app)
    except SlimnetError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(EXIT_USAGE)
