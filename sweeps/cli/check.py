"""The command that looks at a study before it runs."""

from __future__ import annotations

from dataclasses import asdict, replace
from itertools import groupby

from slimnet.wording import duration, plural
from sweeps.check import Findings, examine, seconds_of, warnings_about
from sweeps.check.findings import DataFacts, NetworkFacts
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
from sweeps.config import Config
from sweeps.console import Console
from sweeps.executors.engines import engine_of
from sweeps.report.wording import milliseconds
from sweeps.state import State
from sweeps.study import check_config, is_begun, open_study


def check_command(
    config: ConfigArgument,
    trials: TrialsOption = None,
    workers: WorkersOption = None,
    kind: ExecutorOption = None,
    overrides: SetOption = [],  # noqa: B006 - typer reads it as the default and copies it
    runs: RunsOption = RUNS,
    data_dir: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Try a config without running it.

    Shows its data and network, what can be pruned, the time it will take, and what makes no sense.

    Exit status: 0 it can run, with or without warnings; 2 it cannot. Writes nothing but data it downloads.
    """
    flags = {"search.trials": trials, "workers": workers, "executor.kind": kind}
    settings = studies.load(config, overrides, flags)
    folder = runs / settings.study
    engine = engine_of(settings, Console().error)
    engine.warm_up()
    studies.check_search(settings)
    check_config(folder, settings)

    from sweeps.study.storage import check_storage

    check_storage(
        settings, folder, open_study(folder, settings).facts.uid if is_begun(folder, settings) else None
    )
    found = engine.ask(examine, settings, data_dir)
    room = engine.places(found.machine)
    found = replace(found, workers=len(room), threads=room[0].threads)
    state = studies.state_of(settings, runs, engine, found)
    seconds, doubts = seconds_of(state, found), warnings_about(settings, found)
    if as_json:
        print_json({"study": settings.study, **asdict(found), "seconds": seconds, "warnings": doubts})
        return
    _print(Console(), settings, found, state, seconds)
    print_warnings(Console(), doubts)


def summary(found: Findings, seconds: float) -> str:
    """The network and the time in a line, for the start of a run."""
    network = found.network
    return (
        f"network: {network.name}, {network.params:,} parameters, {network.macs:,} MACs; "
        f"{_pruned(network)}; about {duration(seconds)}"
    )


def print_warnings(console: Console, warnings: list[str]) -> None:
    """Print what makes no sense, on stderr."""
    for text in warnings:
        console.error(f"Warning: {text}")


def _print(console: Console, config: Config, found: Findings, state: State, seconds: float) -> None:
    _print_data(console, found.data)
    for note in found.notes:
        console.say(f"  {note}")
    _print_network(console, found.network)
    machine, times = found.machine, found.times
    precision = machine.precision if config.precision == "auto" else config.precision
    console.say(
        f"machine: {machine.kind} ({machine.name}), {plural(found.workers, 'worker')} with "
        f"{plural(found.threads, 'thread')} each, {precision}"
    )
    for lacking in machine.shortcomings:
        console.say(f"  {lacking}")
    console.say(
        f"a training step: {milliseconds(1000 * times.step)} for {config.sparse.batch_size} images, and "
        f"{milliseconds(1000 * times.pruned_step)} for {config.finetune.batch_size} once pruned to "
        f"{times.pruned_params:,} parameters"
    )
    left = sum(state.epochs_ahead().values())
    done = f" ({state.asked} of them sampled)" if state.asked else ""
    console.say(
        f"sweep: {plural(state.goal, 'trial')}{done}, at most {plural(round(left), 'epoch')} left with all "
        f"controls and seeds: about {duration(seconds)} on this machine"
    )


def _print_data(console: Console, data: DataFacts) -> None:
    channels, height, width = data.image_shape
    console.say(
        f"data: {data.name}, {plural(len(data.classes), 'class')}, images of {height}x{width} in "
        f"{plural(channels, 'channel')}"
    )
    parts = (("train", data.train), ("validation", data.validation), ("test", data.test))
    for name, counts in parts:
        console.say(f"  {name}: {plural(sum(counts), 'image')}, {_spread(counts)} per class")


def _print_network(console: Console, network: NetworkFacts) -> None:
    console.say(
        f"network: {network.name}, {network.params:,} parameters, {network.macs:,} MACs per image, "
        f"{network.outputs:,} outputs"
    )
    rows = [
        {
            "group": _names([group.name for group in groups]),
            "channels": _spread([group.channels for group in groups]),
            "kept whole because": groups[0].whole_because,
        }
        for groups in (
            list(g) for _, g in groupby(network.groups, key=lambda g: (g.channels, g.whole_because))
        )
    ]
    console.table(rows)
    console.say(f"  {_pruned(network)}")
    for cut in network.cuts:
        left = f"{cut.params:,} parameters are left" if cut.params is not None else "refused"
        console.say(f"  at {cut.at}: {left}")


def _pruned(network: NetworkFacts) -> str:
    free = [group for group in network.groups if not group.whole_because]
    of, every = sum(group.channels for group in free), sum(group.channels for group in network.groups)
    return f"{of:,} of {every:,} channels can be pruned"


def _names(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]} ({len(names)})"


def _spread(counts: list[int] | tuple[int, ...]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
