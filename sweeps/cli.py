"""`python -m sweeps`: the commands."""

from __future__ import annotations

import json
import logging
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from slimnet.data import load_dataset, split
from slimnet.errors import SlimnetError
from slimnet.precision import Precision, native_precision
from sweeps import doctor as doctor_facts
from sweeps.config import Config, load_config, shipped_configs
from sweeps.console import Console, duration
from sweeps.driver import Driver
from sweeps.executors import LocalExecutor
from sweeps.interruption import Interruption, StoppedAtOnce, command_line, watch_signals
from sweeps.lock import StudyBusyError, hold
from sweeps.machine import choose_device, slots
from sweeps.outputs import (
    check_config,
    dense_row,
    keep_config,
    kept_config,
    pareto_table,
    write_outputs,
)
from sweeps.progress import epochs_ahead
from sweeps.report.content import best_trial, headline
from sweeps.results import StageRecord, StudyRecord
from sweeps.retry import forget_failures
from sweeps.snapshot import Reader, goal_of, plan_stages, take
from sweeps.space import count_points
from sweeps.stages import Store
from sweeps.study import check_data, make_study, open_study
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
    reference = _reference(config, settings, runs)
    mode = decide_mode(settings.wandb.mode, reference)
    _check_data(settings, data_dir)
    folder = _make_folders(runs, settings.study)

    with hold(folder), watch_signals() as interruption:
        check_config(folder, settings)
        study = make_study(folder, settings, _precision(settings))
        study.complete_asking()
        keep_config(folder, settings)
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
        page = _wind_up(folder, record, tracker, interruption, console)
    if page is None or (interruption.signals and not _goal_reached(record)):
        console.say(
            f"interrupted with {len(record.complete)} of {record.goal} trials complete; nothing is lost. "
            f"Go on with: {command_line()}"
        )
        raise typer.Exit(interruption.exit_status)
    _close(console, record, page, reference, runs)


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
    check_config(runs / settings.study, settings)
    store, asked, precision = Store(runs), [], _precision(settings)
    if (runs / settings.study / "study.db").exists():
        study = open_study(runs / settings.study, settings)
        check_data(study, settings)
        asked, precision = study.trials(), study.precision
    stages = plan_stages(settings, asked, precision)
    states = [store.state(stage) for stage in stages.stages()]
    left = epochs_ahead(settings, stages, store)
    counts = {state: states.count(state) for state in ("done", "partial", "missing", "failed")}
    points, goal = count_points(settings.search.space), goal_of(settings, asked)
    facts = {
        "study": settings.study,
        "goal": goal,
        "asked": len(asked),
        "points": points,
        "stages": counts,
        "epochs_left": {kind: int(epochs) for kind, epochs in left.items()},
    }
    if as_json:
        _print_json(facts)
        return
    console = Console()
    size = "endlessly many" if points is None else f"{points:,}"
    console.say(f"study {settings.study}: {len(asked)} of {goal} trials have their point")
    console.say(f"search space: {size} points, sampler {settings.search.sampler}")
    told = ", ".join(f"{count} {state}" for state, count in counts.items())
    console.say(f"stages of these, and the dense baseline: {told}")
    console.say(
        f"epochs left: at most {left['sparse']:.0f} of sparse training, {left['finetune']:.0f} of fine-tuning"
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
    trials: Annotated[
        list[int] | None,
        typer.Argument(metavar="[TRIAL]...", help="Numbers of failed trials.", show_default="all of them"),
    ] = None,
    runs: RunsOption = RUNS,
) -> None:
    """Let failed trials run again, under their own numbers, with the next `run`."""
    settings = _saved_config(config, runs)
    with hold(runs / settings.study):
        again = forget_failures(runs, settings, trials or [])
    numbers = ", ".join(map(str, again)) or "none"
    start = _command("run", _reference(config, settings, runs))
    Console().say(f"trials to run again: {numbers}; start with: {start}")


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
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # λ, whatever the terminal's encoding
    try:
        app()
    except StudyBusyError as error:
        Console().error(f"Error: {error}")
        sys.exit(EXIT_BUSY)
    except SlimnetError as error:
        Console().error(f"Error: {error}")
        sys.exit(EXIT_USAGE)
    except OSError as error:  # a full disk, a folder that has become unwritable
        Console().error(
            f"Error: {error.filename}: {error.strerror}; put that right and give the command again"
        )
        sys.exit(EXIT_USAGE)


def _wind_up(
    folder: Path, record: StudyRecord, tracker: Tracker, interruption: Interruption, console: Console
) -> Path | None:
    """Bring W&B, the front and the report up to date; None where a second signal has cut that short."""
    interruption.closing = True
    try:
        warnings = tracker.close(timeout=60.0 if interruption.level < 2 else 2.0)
        page = write_outputs(folder, record)
    except StoppedAtOnce:
        return None
    finally:
        interruption.closing = False
    for warning in warnings:
        console.error(warning)
    return page


def _goal_reached(record: StudyRecord) -> bool:
    ended = [trial for trial in record.trials if trial.state != "running"]
    return len(ended) >= record.goal and record.dense.state in ("done", "failed")


def _close(console: Console, record: StudyRecord, page: Path, reference: str, runs: Path) -> None:
    """The last lines of a run that has reached its goal, and its exit status."""
    failed = [trial for trial in record.trials if trial.state == "failed"]
    _print_front(console, record)
    seconds = sum(stage.result["seconds"] for stage in _stages_once(record) if stage.result)
    console.note(
        f"\n{len(record.complete)} of {record.goal} trials complete: the goal is reached "
        f"({duration(seconds)} of training in all)"
    )
    if record.front:
        console.say(headline(record))
    console.say(f"report: {page}")
    for trial in failed:
        console.error(f"trial {trial.number} failed: {trial.reason}")
    if record.dense.failure and record.dense.state == "failed":
        console.error(f"the dense baseline failed: {record.dense.failure['reason']}")
    if failed or record.dense.state == "failed":
        console.error(f"try again with: {_command('retry', reference)}")
    points = count_points(record.config.search.space)
    more = record.goal + 8 if points is None else min(record.goal + 8, points)
    if more > record.goal:
        console.note(f"more trials:  {_command('run', reference)} --trials {more}")
    console.note(f"every trial:  {_command('status', reference)}")
    if record.front:
        last = next(trial for trial in record.trials if trial.number == record.front[-1])
        best = best_trial(record) or last
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


def _stages_once(record: StudyRecord) -> list[StageRecord]:
    every = [record.dense, *(stage for trial in record.trials for stage in trial.stages)]
    return list({stage.key: stage for stage in every}.values())


def _stage_state(stage: StageRecord) -> str:
    if stage.state == "partial":
        return f"epoch {len(stage.history)} of {stage.spec['recipe']['epochs']}"
    return stage.state


def _check_goal(config: Config) -> None:
    points = count_points(config.search.space)
    if points is not None and config.search.trials > points:
        raise SlimnetError(
            f"search.trials is {config.search.trials}, but search.space has only {points} points; "
            f"take at most {points}, or widen the space"
        )


def _check_data(config: Config, data_dir: Path | None) -> None:
    """Find mistakes in the data before anything is written, after downloading what is missing."""
    data = config.data
    dataset = load_dataset(data.name, path=data.path, data_dir=data_dir, image_size=data.image_size)
    split(dataset, validation=data.validation, seed=config.seed)


def _precision(config: Config) -> Precision:
    """The precision of a new study."""
    return native_precision(choose_device(config.device)) if config.precision == "auto" else config.precision


def _make_folders(runs: Path, study: str) -> Path:
    for folder in (runs / "stages", runs / study):
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
    named = load_config(config)
    if not (runs / named.study / "config.yaml").exists():
        command = _command("run", _reference(config, named, runs))
        raise SlimnetError(f"{runs} has no study {named.study} yet; start it with: {command}")
    return kept_config(runs / named.study)


def _read(config: str, runs: Path) -> StudyRecord:
    settings = _saved_config(config, runs)
    study = open_study(runs / settings.study, settings)
    asked = study.trials()
    stages = plan_stages(settings, asked, study.precision, study.data)
    return take(settings, runs, asked, stages, study.uid, Reader(Store(runs)))


def _reference(config: str, settings: Config, runs: Path) -> str:
    """The arguments by which other commands find the study, also one that --set has given another name."""
    known = load_config(config).study == settings.study
    name = config if known else str(runs / settings.study / "config.yaml")
    return shlex.join([name] if runs == RUNS else [name, "--runs", str(runs)])


def _command(name: str, reference: str) -> str:
    return f"{shlex.join([sys.orig_argv[0], '-m', 'sweeps', name])} {reference}"


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
