"""The command that shows what a run would do, and how long it would take."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from slimnet.errors import SlimnetError
from slimnet.wording import duration, plural
from sweeps.check import Pace, examine, pace_as_taken, pace_as_tried, seconds_left
from sweeps.cli import studies
from sweeps.cli.options import (
    RUNS,
    ConfigArgument,
    DataOption,
    ExecutorOption,
    JsonOption,
    RunsOption,
    SetOption,
    TrialsOption,
    WorkersOption,
)
from sweeps.cli.show import print_json
from sweeps.config.space import count_points
from sweeps.console import Console
from sweeps.executors.engines import Engine, engine_of
from sweeps.state import State, count_states
from sweeps.study import check_config


def plan_command(
    config: ConfigArgument,
    trials: TrialsOption = None,
    workers: WorkersOption = None,
    kind: ExecutorOption = None,
    overrides: SetOption = [],  # noqa: B006 - typer reads it as the default and copies it
    runs: RunsOption = RUNS,
    data_dir: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what `run` would do, and how long.

    That is: trials, stages, what is already computed, epochs and time left.
    The time is that of the study's finished stages, or before there are any, of a few steps that are tried.
    Writes nothing but data it downloads.
    """
    flags = {"search.trials": trials, "workers": workers, "executor.kind": kind}
    settings = studies.load(config, overrides, flags)
    studies.check_search(settings)
    settings = check_config(runs / settings.study, settings)
    engine = engine_of(settings, Console().error)
    state = studies.state_of(settings, runs, engine, data_dir=data_dir)
    counts, left = count_states(state.stages()), state.epochs_ahead()
    points = count_points(settings.search.space)
    if as_json:
        pace, seconds, _ = _time_left(state, engine, data_dir)
        print_json(
            {
                "study": settings.study,
                "goal": state.goal,
                "asked": state.asked,
                "points": points,
                "stages": counts,
                "epochs_left": {kind: int(epochs) for kind, epochs in left.items()},
                "seconds_left": seconds,
                "pace": asdict(pace) if pace else None,
            }
        )
        return
    console = Console()
    size = "infinitely many points" if points is None else plural(points, "point")
    console.say(f"study {settings.study}: {state.asked} of {plural(state.goal, 'trial')} sampled")
    console.say(f"search space: {size}, sampler {settings.search.sampler}")
    told = ", ".join(f"{count} {name}" for name, count in counts.items())
    console.say(f"stages of these trials, the baseline, the curves and the controls known so far: {told}")
    sparse, tuned = left["sparse"] + left["early"], left["finetune"]
    console.say(f"epochs left: at most {sparse:.0f} of sparse training, {tuned:.0f} of fine-tuning")
    console.say(f"time left: {_time_left(state, engine, data_dir)[-1]}")


def _time_left(state: State, engine: Engine, data_dir: Path | None) -> tuple[Pace | None, float | None, str]:
    """The pace of a study's stages, the seconds that are left, and both in words; None where not known."""
    if state.record().ended:
        return None, 0.0, "none, as everything is computed"
    try:
        pace = pace_as_taken(state, engine.places)
        if pace is None:
            found = engine.ask(examine, state.config, data_dir)
            pace = pace_as_tried(state.config, replace(found, workers=len(engine.places(found.machine))))
    except SlimnetError as error:
        return None, None, f"not known: {error}"
    seconds = seconds_left(state, pace)
    basis = f"as its {plural(pace.stages, 'finished stage')} took" if pace.stages else "by a few steps tried"
    workers = plural(pace.workers, "worker")
    return pace, seconds, f"about {duration(seconds)} with {workers}, {basis} on {pace.machine}"
