"""How commands find a study, and how they name one in the commands that they suggest."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from slimnet.data.catalogue import fingerprint
from slimnet.errors import SlimnetError
from slimnet.invocation import program
from slimnet.precision import Precision
from slimnet.wording import plural
from sweeps.cli.options import RUNS
from sweeps.config import Config, ConfigError, load_config
from sweeps.config.space import count_points
from sweeps.executors.engines import Engine
from sweeps.machine import Prepared, look, prepare
from sweeps.networks import Made, needs_making
from sweeps.records import StudyRecord
from sweeps.stages import Store
from sweeps.state import State, read_study
from sweeps.study import Facts, Study, check_unchanged, is_begun, is_held, kept_config, open_study


def load(config: str, overrides: Sequence[str], options: Mapping[str, object]) -> Config:
    """The config that --set and other options have changed; the latter win, where they are given."""
    given = [f"{key}={value}" for key, value in options.items() if value is not None]
    return load_config(config, [*overrides, *given])


def read(config: str, runs: Path) -> StudyRecord:
    """A study as it stands, found by the name in `config`.

    Raises:
        SlimnetError: there is none, or a file of one of its stages is damaged: its front would be another.
    """
    record = read_study(runs, last_config(config, runs))
    if record.damage:
        raise SlimnetError("\n".join(record.damage))
    return record


def last_config(config: str, runs: Path) -> Config:
    """The config that a study was last run with, found by the name in `config`."""
    try:
        named = load_config(config)
    except ConfigError:
        kept = runs / config / "config.yaml"
        if Path(config).exists() or not kept.is_file():
            raise
        raise SlimnetError(f"{config} is the name of a study; give its config, {kept}") from None
    if not (runs / named.study / "config.yaml").exists():
        next_step = Named(config, named, runs).next_step("start it")
        raise SlimnetError(f"{runs} has no study {named.study} yet; {next_step}")
    return kept_config(runs / named.study)


def command(name: str, *arguments: str) -> str:
    """A command line that the user may run next."""
    return f"{program('sweeps')} {shlex.join([name, *arguments])}"


class Named:
    """A study as the commands name it that are suggested next.

    Attributes:
        runs: the folder of the studies.
    """

    def __init__(self, config: str, settings: Config, runs: Path, data_dir: Path | None = None) -> None:
        """Look the config up now, as its file may be another when a run ends.

        Args:
            config: the user's name for it.
            settings: the same, with what --set and other options have changed.
            runs: the folder of the studies.
            data_dir: the folder of the data sets, where the user has named one.
        """
        self.runs = runs
        self._study = settings.study
        self._data_dir = data_dir
        kept = str(runs / settings.study / "config.yaml")  # which has all changes
        try:
            known = load_config(config)
        except ConfigError:  # it needs what an option has changed
            self._to_find = self._to_run = kept
        else:
            self._to_find = config if known.study == settings.study else kept
            self._to_run = config if known == settings else kept

    def command(self, name: str) -> str:
        """A command line that the user may run next."""
        return command(name, *self.arguments(name))

    def next_step(self, what: str = "go on") -> str:
        """What to do with a study that is not complete, as a clause: run it, or watch its run."""
        if is_held(self.runs / self._study):
            return f"it is being run, watch it with: {self.command('watch')}"
        return f"{what} with: {self.command('run')}"

    def arguments(self, name: str) -> list[str]:
        """The arguments by which a command finds the study; `run` goes on with the config that it has now."""
        words = [self._to_run if name == "run" else self._to_find]
        if self.runs != RUNS:
            words += ["--runs", str(self.runs)]
        if self._data_dir is not None and name in ("run", "watch", "retry", "export"):
            words += ["--data-dir", str(self._data_dir)]
        return words


def check_search(config: Config) -> None:
    """Refuse a goal that is larger than the search space, and a sampler that does not choose points."""
    points = count_points(config.search.space)
    if points is not None and config.search.trials > points:
        raise SlimnetError(
            f"search.trials is {config.search.trials}, but search.space has only {plural(points, 'point')}; "
            f"use at most {points}, or widen the space"
        )
    if config.search.sampler not in ("tpe", "random", "grid") or config.search.args:  # else nothing can fail
        from sweeps.study.sampling import check_sampler

        check_sampler(config.search)


def state_of(
    config: Config,
    runs: Path,
    engine: Engine,
    prepared: Prepared | None = None,
    data_dir: Path | None = None,
) -> State:
    """The state of a study that has begun, or as it will be when it begins; changes nothing in `runs`.

    Args:
        config: of the study.
        runs: the folder of the studies.
        engine: where its stages are computed.
        prepared: what is known of the machine and the networks; found out there, which takes a while, if it
            is needed and not given.
        data_dir: the folder of the data sets, which are fetched or decoded there if they are looked at.

    Raises:
        SlimnetError: a file is damaged, or the data or the networks have changed.
    """
    folder = runs / config.study
    if is_begun(folder, config):
        study = open_study(folder, config)
        check_unchanged(study, config)
    else:
        data = fingerprint(config.data.source)
        if prepared is None and needs_making(config):
            prepared = engine.ask(prepare, config, data_dir)
        precision = _precision(config, engine, prepared)
        study = Study(folder, Facts("", precision, data, _networks(prepared)), [])
    return State(config, study, Store(runs, config.stages))


def _precision(config: Config, engine: Engine, prepared: Prepared | None) -> Precision:
    if config.precision != "auto":
        return config.precision
    machine = prepared.machine if prepared else engine.ask(look, config.device)
    precision: Precision = machine.precision
    return precision


def _networks(prepared: Prepared | None) -> dict[str, Made]:
    return prepared.networks if prepared else {}
