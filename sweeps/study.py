"""The Optuna study: which trials there are, what each is asked to try, and what came of it.

A study asks the same points whoever runs it and however often it is interrupted: what trial n tries follows
from the seed, n, and the results that have been told before it was asked.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import random
import uuid
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
import sqlalchemy.exc
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import OptunaError
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from slimnet.data import fingerprint
from slimnet.errors import SlimnetError
from slimnet.precision import Precision
from sweeps.config import Config
from sweeps.config import Search as SearchConfig
from sweeps.space import Choices, Entry, Log, Range, count_points

DRAWS = 50  # attempts at a point that no trial has, before one is picked from what is left


@dataclass(frozen=True)
class Asked:
    """A trial as Optuna has it."""

    number: int
    params: dict[str, Any]
    state: Literal["running", "complete", "failed"]


class Study:
    """One study in a SQLite file. Only the driver that holds the study's lock may ask and tell.

    Every method raises SlimnetError where the file cannot be read or written.

    Attributes:
        uid: made with the study; a study begun anew under the same name has another.
        precision: settled when the study was made, so that a move to another machine does not change it.
        data: the fingerprint of the data set that it was begun with.
    """

    def __init__(self, path: Path, study: optuna.Study, search: SearchConfig) -> None:
        self._path = path
        self._study = study
        self._search = search
        self._distributions = {path: _distribution(entry) for path, entry in search.space.items()}
        attributes = study.user_attrs
        self.uid: str = attributes["uid"]
        self.precision: Precision = attributes["precision"]
        self.data: str = attributes["data"]

    def trials(self) -> list[Asked]:
        """All trials that have their point, by number."""
        with _naming(self._path):
            return [
                Asked(trial.number, self._params(trial), _state(trial))
                for trial in self._study.get_trials(deepcopy=False)
                if trial.params.keys() == self._distributions.keys()
            ]

    def ask(self) -> Asked:
        """Begin the next trial.

        Raises:
            SlimnetError: every point of the space has been tried.
        """
        points = count_points(self._search.space)
        with _naming(self._path):
            if points is not None and len(self._study.get_trials(deepcopy=False)) >= points:
                raise SlimnetError(
                    f"all {points} points of search.space have been tried; widen it for more trials"
                )
            trial = self._study.ask(self._distributions)
            return Asked(trial.number, self._params(self._study.trials[trial.number]), "running")

    def tell(self, number: int, metrics: Mapping[str, Any] | None) -> None:
        """Finish a trial with its metrics, or as failed with None."""
        with _naming(self._path):
            if metrics is None:
                self._study.tell(number, state=TrialState.FAIL)
            else:
                self._study.tell(number, [metrics[name] for name in self._search.objectives])

    def complete_asking(self) -> None:
        """Give a trial that a killed driver had only just made its point, the one it would have had."""
        with _naming(self._path):
            for trial in self._study.get_trials(deepcopy=False):
                if trial.state is TrialState.RUNNING and trial.params.keys() != self._distributions.keys():
                    live = optuna.trial.Trial(self._study, trial._trial_id)
                    for path, distribution in self._distributions.items():
                        live._suggest(path, distribution)

    def _params(self, trial: FrozenTrial) -> dict[str, Any]:
        space = self._search.space
        return {path: _from_optuna(space[path], trial.params[path]) for path in space if path in trial.params}


def make_study(folder: Path, config: Config, precision: Precision) -> Study:
    """Open the study in `folder` to go on with it, or make it.

    Args:
        folder: runs/<study>; study.db is in it.
        config: must agree with the one that the study was begun with in all that changes results.
        precision: of a new study.

    Raises:
        SlimnetError: study.db is damaged, or the study was begun with other data or in another precision.
    """
    path = folder / "study.db"
    if not path.exists():
        data = fingerprint(config.data.name, path=config.data.path)
        with _replacing(path, config) as new:
            for key, value in (("uid", uuid.uuid4().hex), ("precision", precision), ("data", data)):
                new.set_user_attr(key, value)
    study = open_study(folder, config)
    if config.precision not in ("auto", study.precision):
        raise SlimnetError(
            f"precision is {config.precision}, but the study {config.study} was begun in {study.precision}; "
            "give this one a name of its own (--set study=NAME)"
        )
    check_data(study, config)
    return study


def check_data(study: Study, config: Config) -> None:
    """Check that the data are those that the study was begun with.

    Raises:
        SlimnetError: they are not, or their file cannot be read.
    """
    if study.data != fingerprint(config.data.name, path=config.data.path):
        raise SlimnetError(
            f"the data of {config.data.path or config.data.name} have changed since the study {config.study} "
            "was begun; give this one a name of its own (--set study=NAME)"
        )


def open_study(folder: Path, config: Config) -> Study:
    """Open the study in `folder`, changing nothing.

    Raises:
        SlimnetError: study.db is missing or damaged.
    """
    path = folder / "study.db"
    if not path.exists():
        raise SlimnetError(f"{path} is missing; the next `run` rebuilds it from the stages")
    with _naming(path):
        try:
            return Study(path, _load(path, config), config.search)
        except KeyError as error:
            raise SlimnetError(
                f"{path} holds no study {config.study}; move it away and the next `run` makes it anew"
            ) from error


def reopen_trials(folder: Path, config: Config, numbers: Sequence[int]) -> None:
    """Make failed trials running again under their own numbers.

    Optuna never changes a finished trial, so the study is written anew beside the old file and renamed.
    """
    path = folder / "study.db"
    with _naming(path):
        old = _load(path, config)
        with _replacing(path, config) as new:
            for key, value in old.user_attrs.items():
                new.set_user_attr(key, value)
            for trial in old.get_trials():
                new.add_trial(_unfinished(trial) if trial.number in numbers else trial)


@contextmanager
def _replacing(path: Path, config: Config) -> Iterator[optuna.Study]:
    """A new study, written aside and put at `path` when it is whole."""
    aside = path.with_name(f"{path.name}.new")
    aside.unlink(missing_ok=True)
    with _naming(path):
        yield optuna.create_study(
            storage=_storage(aside),
            study_name=config.study,
            directions=list(config.search.objectives.values()),
        )
    aside.replace(path)


def _load(path: Path, config: Config) -> optuna.Study:
    sampler = _Unrepeated(config.search, config.seed)
    return optuna.load_study(study_name=config.study, storage=_storage(path), sampler=sampler)


def _storage(path: Path) -> optuna.storages.RDBStorage:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    wait = {"connect_args": {"timeout": 60}}  # seconds, for a reader that holds the file
    url = sqlalchemy.URL.create("sqlite", database=str(path)).render_as_string()  # a path may hold a "?"
    return optuna.storages.RDBStorage(url, engine_kwargs=wait)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn what Optuna and SQLite say into one sentence that names the file."""
    try:
        yield
    except (OptunaError, sqlalchemy.exc.SQLAlchemyError) as error:
        inner = error.__cause__ or error
        cause = str(getattr(inner, "orig", None) or inner).splitlines()[0]
        raise SlimnetError(
            f"{path} cannot be used ({cause}); if it is damaged, move it away and the next `run` rebuilds it "
            "from the stages"
        ) from error


class _Past(optuna.Study):
    """A study as it looked when only the trials up to `last` had ended. It is read once."""

    def __init__(self, study: optuna.Study, trials: Sequence[FrozenTrial], last: int) -> None:
        super().__init__(study.study_name, study._storage)
        self._trials = [trial if trial.number <= last else _unfinished(trial) for trial in trials]

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        return [trial for trial in self._trials if states is None or trial.state in states]


def _unfinished(trial: FrozenTrial) -> FrozenTrial:
    trial = copy.copy(trial)
    trial.state, trial.values, trial.datetime_complete = TrialState.RUNNING, None, None
    return trial


class _Unrepeated(BaseSampler):
    """Draws each point from a sampler made for this very draw, until no other trial has the point.

    Samplers keep a random state that Optuna does not store. Here there is none to lose: the state follows
    from (seed, trial number, attempt). And trial n is drawn from the results up to trial n - `ahead` even
    where more are there because the goal was raised, so that a study rebuilt from its stages asks the same.
    """

    def __init__(self, search: SearchConfig, seed: int) -> None:
        self._search = search
        self._seed = seed

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return {path: _distribution(entry) for path, entry in self._search.space.items()}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        space, trials = self._search.space, study.get_trials(deepcopy=False)
        taken = {_point(space, other.params) for other in trials if other.number != trial.number}
        if self._search.sampler == "grid":
            return next(point for point in _grid(space) if _point(space, point) not in taken)
        past = _Past(study, trials, last=trial.number - self._search.ahead)
        for attempt in range(DRAWS):
            seed = _seed(self._seed, trial.number, attempt)
            params = _draw(_sampler(self._search.sampler, seed), past, trial, search_space)
            if _point(space, params) not in taken:
                return params
        if count_points(space) is None:
            return params
        left = [point for point in _grid(space) if _point(space, point) not in taken]
        return random.Random(_seed(self._seed, trial.number, DRAWS)).choice(left)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        raise AssertionError(f"{param_name} is in the space and was drawn with it")


def _sampler(name: str, seed: int) -> BaseSampler:
    match name:
        case "tpe":
            return TPESampler(seed=seed)
        case "nsga2":
            return NSGAIISampler(seed=seed)
    return RandomSampler(seed=seed)


def _draw(
    sampler: BaseSampler, study: optuna.Study, trial: FrozenTrial, space: dict[str, BaseDistribution]
) -> dict[str, Any]:
    """One point: what the sampler draws together, then the rest one by one."""
    together = sampler.infer_relative_search_space(study, trial)
    params = sampler.sample_relative(study, trial, together)
    for path, distribution in space.items():
        if path not in params:
            params[path] = sampler.sample_independent(study, trial, path, distribution)
    return params


def _distribution(entry: Entry) -> BaseDistribution:
    match entry:
        case Range(low, high, step) if isinstance(low, int):
            return IntDistribution(int(low), int(high), step=int(step or 1))
        case Range(_, _, step) if (values := entry.values()) is not None:
            return FloatDistribution(float(values[0]), float(values[-1]), step=step)
        case Range(low, high):
            return FloatDistribution(float(low), float(high))
        case Log(low, high, None) if isinstance(low, int):
            return IntDistribution(int(low), int(high), log=True)
        case Log(low, high, None):
            return FloatDistribution(float(low), float(high), log=True)
    return CategoricalDistribution([_to_optuna(value) for value in entry.values() or []])


def _to_optuna(value: Any) -> Any:
    """Lists are no Optuna category; their JSON is."""
    return json.dumps(value) if isinstance(value, list | tuple) else value


def _from_optuna(entry: Entry, value: Any) -> Any:
    """The config's own value for what Optuna stored: exact decimals, lists again lists."""
    if isinstance(entry, Choices):
        return next(choice for choice in entry.choices if _to_optuna(choice) == value)
    values = entry.values()
    return value if values is None else min(values, key=lambda known: abs(known - value))


def _point(space: Mapping[str, Entry], params: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(repr(_from_optuna(space[path], params[path])) for path in space if path in params)


def _grid(space: Mapping[str, Entry]) -> list[dict[str, Any]]:
    lists = [[_to_optuna(value) for value in entry.values() or []] for entry in space.values()]
    return [dict(zip(space, point, strict=True)) for point in itertools.product(*lists)]


def _seed(*parts: int) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big")


def _state(trial: FrozenTrial) -> Literal["running", "complete", "failed"]:
    with suppress(KeyError):
        return {TrialState.COMPLETE: "complete", TrialState.FAIL: "failed"}[trial.state]  # type: ignore[return-value]
    return "running"
