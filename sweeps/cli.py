"""`python -m sweeps`: the commands."""

from __future__ import annotations

import json
import logging
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from slimnet.data import load_dataset, split
from slimnet.errors import SlimnetError
from slimnet.precision import native_precision
from sweeps import doctor as doctor_facts
from sweeps.config import Config, load_config, shipped_configs
from sweeps.console import Console, duration
from sweeps.driver import Driver, Interruption, watch_signals
from sweeps.executors import LocalExecutor
from sweeps.lock import StudyBusy, hold
from sweeps.machine import choose_device, slots
from sweeps.outputs import dense_row, keep_config, pareto_table, write_outputs
from sweeps.progress import epochs_ahead
from sweeps.results import StudyRecord
from sweeps.snapshot import Reader, plan_stages, take
from sweeps.space import count_points
from sweeps.stages import Store
from sweeps.study import open_study, reopen_trials
from sweeps.tracking import Tracker, decide_mode
from sweeps.tracking import sync as upload

EXIT_FAILED_TRIALS, EXIT_USAGE, EXIT_BUSY = 1, 2, 3

app = typer.Typer(
    name="sweeps",
    help="Find out how small a convolutional network can get: sweeps over λ and pruning ratios.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

ConfigArgument = Annotated[
    str,
    typer.Argument(
        metavar="CONFIG",
        help=f"A YAML file, or the name of a shipped config: {', '.join(shipped_configs())}.",
    ),
]
SetOption = Annotated[
    list[str],
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a field, such as sparse.epochs=2. May be repeated."
    ),
]
RunsOption = Annotated[Path, typer.Option("--runs", metavar="DIR", help="Where studies and stages are kept.")]
DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="DIR",
        help="Where data sets are, or are downloaded to.",
        show_default="the user's cache",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print facts as JSON.")]
RUNS = Path("runs")


@app.command()
def run(
    config: ConfigArgument,
    trials: Annotated[
        int | None, typer.Option(metavar="N", help="The goal, instead of search.trials.")
    ] = None,
    workers: Annotated[int | None, typer.Option(metavar="N", help="Processes, instead of workers.")] = None,
    wandb: Annotated[
        str | None, typer.Option(metavar="MODE", help="W&B: auto, online, offline or disabled.")
    ] = None,
    overrides: SetOption = [],  # noqa: B006 - typer reads it as the default and copies it
    runs: RunsOption = RUNS,
    data_dir: DataOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the result only.")] = False,
) -> None:
    """Run a sweep, or go on with it: to its goal, or until Ctrl-C.

    Exit status: 0 the goal is reached; 1 it is reached but some trials failed; 2 bad usage or config;
    3 another driver has the study; 130 or 143 interrupted, the same command goes on.
    """
    flags = {"search.trials": trials, "workers": workers, "wandb.mode": wandb}
    settings = load_config(
        config, [*overrides, *(f"{key}={value}" for key, value in flags.items() if value is not None)]
    )
    console = Console(quiet=quiet)
    _check_goal(settings)
    device = choose_device(settings.device)
    mode = decide_mode(settings.wandb.mode, config)
    # Downloads what is missing, once and with a progress bar, before anything is written.
    dataset = load_dataset(
        settings.data.name, path=settings.data.path, data_dir=data_dir, image_size=settings.data.image_size
    )
    split(dataset, validation=settings.data.validation, seed=settings.seed)
    folder = _make_folder(runs / settings.study)

    with hold(folder), watch_signals() as interruption:
        keep_config(folder, settings)
        precision = settings.precision if settings.precision != "auto" else native_precision(device)
        study = open_study(folder, settings, precision)
        study.complete_asking()
        _log_to(folder / "driver.log")
        places = slots(settings.workers, device, useful=settings.search.ahead + 1)
        console.note(
            f"study {settings.study}: {settings.search.trials} trials, {len(places)} workers on {device} "
            f"with {places[0].threads} threads each, {study.precision}"
        )
        console.note(mode.why)
        tracker = Tracker(folder, mode)
        with console:
            driver = Driver(
                settings, runs, data_dir, study, LocalExecutor(places), tracker, console, interruption
            )
            record = driver.run()
        warnings = tracker.close(timeout=60.0 if interruption.level < 2 else 2.0)
        page = write_outputs(folder, record)
        for warning in warnings:
            console.error(warning)
    _close(console, record, page, config, runs, interruption)


@app.command()
def plan(
    config: ConfigArgument,
    trials: Annotated[
        int | None, typer.Option(metavar="N", help="The goal, instead of search.trials.")
    ] = None,
    overrides: SetOption = [],  # noqa: B006
    runs: RunsOption = RUNS,
    as_json: JsonOption = False,
) -> None:
    """Show what `run` would do: trials, stages, what is there already, epochs left. Changes nothing."""
    extra = [f"search.trials={trials}"] if trials is not None else []
    settings = load_config(config, [*overrides, *extra])
    _check_goal(settings)
    store = Store(runs)
    asked, precision = [], settings.precision
    if (runs / settings.study / "study.db").exists():
        study = open_study(runs / settings.study, settings, "float32")
        asked, precision = study.trials(), study.precision
    if precision == "auto":
        precision = native_precision(choose_device(settings.device))
    stages = plan_stages(settings, asked, precision)
    states = [store.state(stage) for stage in stages.stages()]
    left = epochs_ahead(settings, stages, store)
    facts = {
        "study": settings.study,
        "goal": settings.search.trials,
        "asked": len(asked),
        "points": count_points(settings.search.space),
        "stages": {state: states.count(state) for state in ("done", "partial", "missing", "failed")},
        "epochs_left": {kind: int(epochs) for kind, epochs in left.items()},
    }
    if as_json:
        _print_json(facts)
        return
    console = Console()
    points = "endlessly many" if facts["points"] is None else f"{facts['points']:,}"
    console.say(f"study {settings.study}: {len(asked)} of {settings.search.trials} trials asked for")
    console.say(f"search space: {points} points, sampler {settings.search.sampler}")
    console.say(
        "stages known so far: " + ", ".join(f"{states.count(state)} {state}" for state in facts["stages"])
    )  # type: ignore[attr-defined]
    console.say(
        f"epochs left: at most {left['sparse']:.0f} of sparse training and {left['finetune']:.0f} of fine-tuning"
    )


@app.command()
def status(config: ConfigArgument, runs: RunsOption = RUNS, as_json: JsonOption = False) -> None:
    """Show the trials of a study and how far their stages are."""
    record = _read(config, runs)
    rows = [
        {
            "trial": trial.number,
            **trial.params,
            "state": trial.state,
            **{stage.kind: _stage_state(stage) for stage in trial.stages},
            "val_accuracy": trial.metrics.get("val_accuracy"),
            "reason": trial.reason,
        }
        for trial in record.trials
    ]
    if as_json:
        _print_json({"study": record.name, "goal": record.goal, "trials": rows})
        return
    console = Console()
    console.say(f"study {record.name}: {len(record.complete)} of {record.goal} trials complete")
    if not any(trial.reason for trial in record.trials):
        rows = [{key: value for key, value in row.items() if key != "reason"} for row in rows]
    console.table(rows)


@app.command()
def pareto(config: ConfigArgument, runs: RunsOption = RUNS, as_json: JsonOption = False) -> None:
    """Print the Pareto front: the trials that no other trial beats."""
    record = _read(config, runs)
    if as_json:
        _print_json(pareto_table(record))
        return
    _print_front(Console(), record)


@app.command()
def report(config: ConfigArgument, runs: RunsOption = RUNS) -> None:
    """Write the front and the HTML report of a study as it stands."""
    record = _read(config, runs)
    Console().say(f"report: {write_outputs(runs / record.name, record)}")


@app.command()
def sync(config: ConfigArgument, runs: RunsOption = RUNS, as_json: JsonOption = False) -> None:
    """Upload the offline W&B runs of a study, each by itself and verified. Exit status 1 if any failed."""
    record = _read(config, runs)
    console, results = Console(), []
    with hold(runs / record.name):
        for result in upload(runs / record.name, record):
            results.append(result)
            if not as_json:
                console.say(f"{result.run_id}: {'uploaded' if result.ok else f'failed: {result.reason}'}")
    if as_json:
        _print_json([asdict(result) for result in results])
    elif not results:
        console.say("nothing to upload: every run of this study is on the server, or none was tracked")
    if not all(result.ok for result in results):
        raise typer.Exit(1)


@app.command()
def retry(
    config: ConfigArgument,
    trials: Annotated[list[int], typer.Argument(metavar="TRIAL...", help="Numbers of failed trials.")],
    runs: RunsOption = RUNS,
) -> None:
    """Let failed trials run again, under their own numbers, with the next `run`."""
    settings = _saved_config(config, runs)
    folder = runs / settings.study
    with hold(folder):
        reopen_trials(folder, settings, trials)
        study = open_study(folder, settings, "float32")
        chosen = [trial for trial in study.trials() if trial.number in trials]
        stages = plan_stages(settings, chosen, study.precision).stages()
        Store(runs).clear(stages)
    Console().say(f"{len(trials)} to run again; start with: {_command('run', config, runs)}")


@app.command()
def doctor(as_json: JsonOption = False, data_dir: DataOption = None) -> None:
    """Show what is installed, which devices there are, which W&B mode, and what is missing."""
    facts = doctor_facts.examine(data_dir)
    if as_json:
        _print_json([asdict(fact) for fact in facts])
    else:
        console = Console()
        for fact in facts:
            console.say(f"{'ok     ' if fact.ok else 'missing'}  {fact.what}: {fact.found}")
    if not all(fact.ok for fact in facts if fact.needed):
        raise typer.Exit(1)


def main() -> None:
    """Run the command line; a mistake of the user's is a message and an exit status, never a traceback."""
    try:
        app()
    except StudyBusy as error:
        Console().error(f"Error: {error}")
        sys.exit(EXIT_BUSY)
    except SlimnetError as error:
        Console().error(f"Error: {error}")
        sys.exit(EXIT_USAGE)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


def _close(
    console: Console, record: StudyRecord, page: Path, config: str, runs: Path, interruption: Interruption
) -> None:
    """The last lines of a run, and its exit status."""
    failed = [trial for trial in record.trials if trial.state == "failed"]
    if interruption.signals and len(record.complete) + len(failed) < record.goal:
        console.say(
            f"interrupted with {len(record.complete)} of {record.goal} trials complete; nothing is lost. "
            f"Go on with: {_command('run', config, runs)}"
        )
        raise typer.Exit(128 + interruption.signals[0])
    _print_front(console, record)
    seconds = sum(stage.result["seconds"] for stage in _stages_once(record) if stage.result)
    console.note(
        f"\n{len(record.complete)} of {record.goal} trials complete: the goal is reached "
        f"({duration(seconds)} of training in all)"
    )
    console.say(f"report: {page}")
    for trial in failed:
        console.error(f"trial {trial.number} failed: {trial.reason}")
    if failed:
        numbers = " ".join(str(trial.number) for trial in failed)
        console.error(f"try again with: {_command('retry', config, runs)} {numbers}")
    if record.dense.state == "failed" and record.dense.failure:
        console.error(f"the dense baseline failed: {record.dense.failure['reason']}")
    console.note(f"more trials:  {_command('run', config, runs)} --trials {record.goal + 8}")
    console.note(f"every trial:  {_command('status', config, runs)}")
    if record.front:
        best = next(trial for trial in record.trials if trial.number == record.front[-1])
        path = runs / "stages" / "finetune" / best.stages[-1].key / "checkpoint.pt"
        console.note(f'load one:     slimnet.load("{path}")  # trial {best.number}')
    if failed or record.dense.state == "failed":
        raise typer.Exit(EXIT_FAILED_TRIALS)


def _print_front(console: Console, record: StudyRecord) -> None:
    rows: list[dict[str, Any]] = [
        trial.row() for number in record.front for trial in record.trials if trial.number == number
    ]
    dense = dense_row(record)
    if not rows:
        console.say(f"study {record.name} has no finished trial yet")
        return
    if dense is not None:
        blank = dict.fromkeys(rows[0], None)
        rows = [{**row, "smaller": f"{dense['params'] / row['params']:.1f}x"} for row in rows]
        rows.append({**blank, "trial": "dense", **dense, "smaller": ""})
    console.table(rows, f"Pareto front of {record.name} (selected on the validation split)")


def _stages_once(record: StudyRecord) -> list[Any]:
    every = [record.dense, *(stage for trial in record.trials for stage in trial.stages)]
    return list({stage.key: stage for stage in every}.values())


def _stage_state(stage: Any) -> str:
    if stage.state == "partial":
        return f"epoch {len(stage.history)} of {stage.spec['recipe']['epochs']}"
    return str(stage.state)


def _check_goal(config: Config) -> None:
    points = count_points(config.search.space)
    if points is not None and config.search.trials > points:
        raise SlimnetError(
            f"search.trials is {config.search.trials}, but search.space has only {points} points; "
            f"take at most {points}, or widen the space"
        )


def _make_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise SlimnetError(
            f"{folder} cannot be written ({error.strerror}); choose another with --runs DIR"
        ) from error
    return folder


def _saved_config(config: str, runs: Path) -> Config:
    """The config that a study was last run with, found by the name in `config`."""
    study = load_config(config).study
    path = runs / study / "config.yaml"
    if not path.exists():
        raise SlimnetError(f"{runs} has no study {study} yet; start it with: {_command('run', config, runs)}")
    return load_config(path)


def _read(config: str, runs: Path) -> StudyRecord:
    settings = _saved_config(config, runs)
    study = open_study(runs / settings.study, settings, "float32")
    asked = study.trials()
    stages = plan_stages(settings, asked, study.precision)
    return take(settings, runs, asked, stages, study.uid, Reader(Store(runs)))


def _command(name: str, config: str, runs: Path) -> str:
    where = "" if runs == RUNS else f" --runs {runs}"
    return f"python -m sweeps {name} {config}{where}"


def _log_to(path: Path) -> None:
    """Keep the driver's log, each line stamped, across runs."""
    root = logging.getLogger("sweeps")
    root.setLevel(logging.INFO)
    root.propagate = False
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(message)s"))
    root.handlers = [handler]


def _print_json(facts: Any) -> None:
    print(json.dumps(facts, indent=2, ensure_ascii=False))
