"""Commands that look after studies: sync, retry, doctor."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from slimnet.invocation import this_command
from sweeps.cli import studies
from sweeps.cli.options import RUNS, ConfigArgument, DataOption, JsonOption, RunsOption
from sweeps.cli.show import print_json
from sweeps.console import Console
from sweeps.study import hold


def sync_command(
    config: ConfigArgument,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Upload again, as new runs, what was deleted on the server or is not the same there.",
        ),
    ] = False,
    runs: RunsOption = RUNS,
    as_json: JsonOption = False,
) -> None:
    """Upload what the W&B server lacks of a study.

    Asks the server for every run. Exit status 1 if any failed.
    """
    from sweeps.tracking import sync

    record = studies.read(config, runs)
    console, results = Console(), []
    with hold(runs / record.name):
        for result in sync(runs / record.name, record, force=force):
            results.append(result)
            if not as_json:
                anew = f", {result.anew}" if result.anew else ""
                outcome = "uploaded" if result.ok else f"failed: {result.reason}"
                console.say(f"{result.run_id}: {outcome}{anew}")
    if as_json:
        print_json([asdict(result) for result in results])
    elif not results:
        console.say("nothing to upload: the server has every run of this study, complete")
    if any(result.gone for result in results) and not as_json:
        console.say(f"upload them again, as new runs, with: {this_command()} --force")
    if not all(result.ok for result in results):
        raise typer.Exit(1)


def retry_command(
    config: ConfigArgument,
    trials: Annotated[
        list[int] | None,
        typer.Argument(metavar="TRIAL", help="Numbers of failed trials.", show_default="all of them"),
    ] = None,
    runs: RunsOption = RUNS,
    data_dir: DataOption = None,
) -> None:
    """Let failed trials run again.

    The next `run` takes them up, under the same numbers.
    """
    from sweeps.retry import forget_failures
    from sweeps.stages import Store
    from sweeps.state import read_study

    settings = studies.last_config(config, runs)
    with hold(runs / settings.study):
        record = read_study(runs, settings)
        again = forget_failures(Store(runs, settings.stages), record, trials or [])
    others = ["the dense baseline"] if record.dense.failure else []
    others += [f"the {one.name}" for one in record.contenders if one.state == "failed" and not trials]
    if any(stage.state == "failed" for stage in (*record.curves.values(), *record.latencies.values())):
        others.append("curves or latencies that failed")
    for other in others:
        Console().say(f"to run again: {other}")
    start = studies.Named(config, settings, runs, data_dir).command("run")
    if not again and not others:
        Console().say(f"nothing has failed; the study goes on with: {start}")
        return
    numbers = ", ".join(map(str, again)) or "none"
    Console().say(f"trials to run again: {numbers}; start with: {start}")


def doctor_command(as_json: JsonOption = False, data_dir: DataOption = None) -> None:
    """Show what is installed and what is missing.

    Shows the devices and the W&B mode as well.
    """
    from sweeps import doctor

    facts = doctor.examine(data_dir)
    if as_json:
        print_json([asdict(fact) for fact in facts])
    else:
        console = Console()
        for fact in facts:
            console.say(f"{'ok     ' if fact.ok else 'missing'}  {fact.what}: {fact.found}")
    if not all(fact.ok for fact in facts if fact.needed):
        raise typer.Exit(1)
