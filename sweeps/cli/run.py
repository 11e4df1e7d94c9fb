"""The command that runs a sweep, and what it does when the sweep ends."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from slimnet.errors import SlimnetError
from slimnet.files import check_name
from slimnet.invocation import interrupted
from slimnet.precision import Precision
from slimnet.streams import outlive_output
from slimnet.wording import duration, plural
from sweeps.check import examine, seconds_of, warnings_about
from sweeps.cli import studies
from sweeps.cli.check import print_warnings, summary
from sweeps.cli.failures import fails_the_goal, tell_failures
from sweeps.cli.options import (
    RUNS,
    ConfigArgument,
    DataOption,
    ExecutorOption,
    RunsOption,
    SetOption,
    TrialsOption,
    WorkersOption,
)
from sweeps.cli.show import print_front
from sweeps.comparison import Comparison, best_of_front
from sweeps.config import Config
from sweeps.config.space import count_points
from sweeps.console import Console
from sweeps.executors import processes
from sweeps.executors.engines import engine_of
from sweeps.interruption import Interruption, StoppedAtOnce, watch_signals
from sweeps.jobs import Place
from sweeps.machine import Machine, Prepared, prepare
from sweeps.networks import Made, check_networks
from sweeps.outputs import write_outputs
from sweeps.records import StageRecord, StudyRecord
from sweeps.report.summary import how_far
from sweeps.stages import Store
from sweeps.study import JOURNAL, Study, check_config, hold, is_begun, keep_config, make_study, open_study

if TYPE_CHECKING:
    from sweeps.state import State
    from sweeps.tracking import Tracker

EXIT_FAILED_TRIALS = 1


def run_command(
    config: ConfigArgument,
    trials: TrialsOption = None,
    workers: WorkersOption = None,
    kind: ExecutorOption = None,
    storage: Annotated[
        str | None,
        typer.Option(metavar="WHERE", help="Trials for Optuna: auto, sqlite, journal or postgresql://…"),
    ] = None,
    wandb: Annotated[
        str | None, typer.Option(metavar="MODE", help="W&B: auto, online, offline or disabled.")
    ] = None,
    overrides: SetOption = [],  # noqa: B006 - typer reads it as the default and copies it
    runs: RunsOption = RUNS,
    data_dir: DataOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the result only.")] = False,
) -> None:
    """Run a sweep, or resume it.

    It ends when its goal is reached or Ctrl-C is pressed.

    Exit status: 0 the goal is reached; 1 it is reached but some trials failed; 2 bad usage or config;
    3 another process is running the study; 130 or 143 interrupted, the same command resumes.
    """
    flags = {
        "search.trials": trials,
        "workers": workers,
        "executor.kind": kind,
        "storage": storage,
        "wandb.mode": wandb,
    }
    settings = studies.load(config, overrides, flags)
    console = Console(quiet=quiet)
    data_dir = data_dir and data_dir.absolute()  # workers may have another working folder
    check_name(runs)
    outlive_output(lambda reason: _tell_lost_output(console, reason, runs / settings.study))
    studies.check_search(settings)
    begun = is_begun(runs / settings.study, settings)
    store = Store(runs, settings.stages)
    store.check()
    if store.remote is not None:
        processes.preload(store.remote.module)
    engine = engine_of(settings, console.note)
    if not begun:
        engine.warm_up()  # meanwhile the imports, which take a while

    from sweeps.driver import Driver
    from sweeps.resuming import resume
    from sweeps.study.storage import held_storage
    from sweeps.tracking import Tracker, decide_mode

    named = studies.Named(config, settings, runs, data_dir)
    mode = decide_mode(settings.wandb.mode, shlex.join(named.arguments("sync")))
    folder = runs / settings.study
    uid = open_study(folder, settings).facts.uid if begun else None

    with ExitStack() as held:
        kept = held.enter_context(held_storage(settings, folder, uid))
        found = None if begun else engine.ask(examine, settings, data_dir)
        prepared: Prepared | None = found
        held.enter_context(_held_folder(folder, store))
        settings = check_config(folder, settings)
        study = make_study(folder, settings, *_fixed(prepared))
        _log_to(folder / "driver.log")
        state, sampling, mirror = resume(study, settings, runs, kept)
        if prepared is None and not state.is_idle:
            prepared = engine.ask(prepare, settings, data_dir)
            check_networks(settings, study.facts.networks, prepared.networks)
        machine = prepared.machine if prepared else None
        if machine is not None and settings.latency and machine.name != study.facts.machine:
            _measure_elsewhere(console, state, settings, study.facts.machine, machine.name)
        keep_config(folder, settings)
        room = engine.places(machine) if machine else []
        _introduce(console, settings, study, machine, room)
        for note in engine.notes(machine) if machine else ():
            console.note(note)
        if settings.storage == "auto" and kept.name.endswith(JOURNAL):
            console.note(f"trials for Optuna are in {kept.name}, as SQLite is not safe on this file system")
        for note in prepared.notes if prepared else ():
            console.note(note)
        for damage in state.damage:
            logging.getLogger("sweeps.driver").warning(damage)
            console.note(damage)
        if found:
            found = replace(found, workers=len(room), threads=room[0].threads)
            console.note(summary(found, seconds_of(state, found)))
            if not quiet:
                print_warnings(console, warnings_about(settings, found))
        console.note(mode.why)
        console.note(f"live page:  {named.command('report')} --watch")
        tracker = Tracker(folder, mode, named.command("sync"))
        executor = engine.executor(room, folder / "workers")
        with watch_signals() as interruption:  # until now there was nothing to save
            with console:
                record = Driver(
                    state, study, sampling, mirror, executor, tracker, console, interruption, data_dir
                ).run()
            comparison = Comparison(record)
            page = _wind_up(folder, record, comparison, tracker, interruption, console)
    if page is None or not record.ended:
        console.say(interrupted(f" with {how_far(record)}; nothing is lost"))
        raise typer.Exit(interruption.exit_status)
    _close(console, record, comparison, page, named)


def _tell_lost_output(console: Console, reason: str, folder: Path) -> None:
    """Tell that nobody reads the output any more, which ends no sweep."""
    text = (
        f"the output is lost ({reason}); the sweep goes on, and {folder / 'driver.log'} tells how far it is"
    )
    logging.getLogger("sweeps").warning(text)
    console.error(text)


def _fixed(prepared: Prepared | None) -> tuple[Precision | None, dict[str, Made], str]:
    """What a new study fixes of the machine and the networks."""
    if prepared is None:
        return None, {}, ""
    return prepared.machine.precision, prepared.networks, prepared.machine.name


def _measure_elsewhere(console: Console, state: State, config: Config, machine: str, here: str) -> None:
    """Leave latencies unmeasured on another machine than the study's.

    Raises:
        SlimnetError: the study judges its trials by them.
    """
    if config.judges_latency:
        raise SlimnetError(
            f"the study {config.study} judges its trials by their latency on {machine}, and this is {here}; "
            "go on there, or give this one another name (--set study=NAME)"
        )
    if machine:
        console.note(f"the latencies of this study are of {machine}; new networks are not measured on {here}")
    state.leave_unmeasured()


def _introduce(
    console: Console, config: Config, study: Study, machine: Machine | None, room: Sequence[Place]
) -> None:
    """Print what runs where; without a machine, nothing is left to compute."""
    if machine is None:
        console.note(
            f"study {config.study}: {plural(config.search.trials, 'trial')}, nothing left to compute"
        )
        return
    threads, workers = room[0].threads, len(room)
    console.note(
        f"study {config.study}: {plural(config.search.trials, 'trial')}, {plural(workers, 'worker')} on "
        f"{machine.kind} ({machine.name}) with {plural(threads, 'thread')} each, "
        f"{study.facts.precision}"
    )
    for lacking in machine.shortcomings:
        console.note(lacking)
        logging.getLogger("sweeps").info(lacking)


def _wind_up(
    folder: Path,
    record: StudyRecord,
    comparison: Comparison,
    tracker: Tracker,
    interruption: Interruption,
    console: Console,
) -> Path | None:
    """Bring W&B, the front and the report up to date; None if a second signal cut that short."""
    told = False

    def wait_on() -> bool:
        nonlocal told
        if not told:
            console.note("W&B: networks are still being uploaded; Ctrl-C leaves the rest to `sync`")
        told = True
        return interruption.level == 0

    interruption.closing = True
    try:
        tracker.close(60.0 if interruption.level < 2 else 2.0, wait_on)
        page = write_outputs(folder, record, comparison)
    except StoppedAtOnce:
        return None
    finally:
        interruption.closing = False
    for warning in tracker.news():
        console.error(warning)
    if tracker.page:
        console.note(f"W&B: {tracker.page}")
    return page


def _close(
    console: Console, record: StudyRecord, comparison: Comparison, page: Path, named: studies.Named
) -> None:
    """Print the last lines of a run that has reached its goal, and set its exit status."""
    from sweeps.report.summary import epochs_saved, headline

    print_front(console, record, comparison)
    end = "the goal is reached" if record.complete else "all have ended"
    seconds = sum(stage.result["seconds"] for stage in _stages_once(record) if stage.result)
    early = f", {len(record.stopped)} stopped early" if record.stopped else ""
    console.note(
        f"\n{len(record.complete)} of {plural(record.goal, 'trial')} complete{early}: {end} "
        f"({duration(seconds)} of training in all)"
    )
    if record.stopped:
        console.note(epochs_saved(record))
    if record.front:
        console.say(headline(record, comparison))
    console.say(f"report: {page}")
    if tell_failures(console, record):
        console.error(f"try again with: {named.command('retry')}")
    points = count_points(record.config.search.space)
    more = record.goal + 8 if points is None else min(record.goal + 8, points)
    if more > record.goal:
        console.note(f"more trials:  {named.command('run')} --trials {more}")
    console.note(f"every trial:  {named.command('status')}")
    if best := best_of_front(record, comparison):
        path = best.stages[-1].source.checkpoint
        own, made_by = "", ""
        if factory := best.config.model.factory:  # whose code is run only where the user says so
            own, made_by = f", model={factory.rpartition(':')[2]}(…)", f", with {factory}"
        if path.is_file():  # else it is at a URL
            console.note(f'load one:     slimnet.load("{path}"{own})  # trial {best.number}{made_by}')
        console.note(f"take it:      {named.command('export')} --best OUT")
    if fails_the_goal(record):
        raise typer.Exit(EXIT_FAILED_TRIALS)


def _stages_once(record: StudyRecord) -> list[StageRecord]:
    chains = [trial.stages for trial in record.trials] + [one.stages for one in record.contenders]
    once = (stage for stages in chains for stage in stages)
    every = [record.dense, *once, *record.curves.values()]
    return list({stage.key: stage for stage in every}.values())


@contextmanager
def _held_folder(study: Path, store: Store) -> Iterator[None]:
    """Make the folders of a study, and hold it."""
    for folder, option in (
        (store.root, "--set stages=" if store.is_elsewhere else "--runs "),
        (study, "--runs "),
    ):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / ".writable"
            probe.touch()
            probe.unlink(missing_ok=True)  # another sweep may look at the same time
        except OSError as error:
            raise SlimnetError(
                f"{folder} cannot be written ({error.strerror}); choose another with {option}DIR"
            ) from error
    with hold(study):
        yield


def _log_to(path: Path) -> None:
    """Append the driver's log to a file, with timestamps."""
    root = logging.getLogger("sweeps")
    root.setLevel(logging.INFO)
    root.propagate = False
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(message)s"))
    root.handlers = [handler]
