"""The Optuna study: which trials there are, what each is asked to try, and what came of it.

A study asks the same points whoever runs it and however often it is interrupted: what trial n tries follows
from the seed, n, and the results that have been told before it was asked.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

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

    Attributes:
        uid: made with the study; a study begun anew under the same name has another.
        precision: settled when the study was made, so that a move to another machine does not change it.
    """

    def __init__(self, study: optuna.Study, search: SearchConfig) -> None:
        self._study = study
        self._search = search
        self._distributions = {path: _distribution(entry) for path, entry in search.space.items()}

    @property
    def uid(self) -> str:
        return str(self._study.user_attrs["uid"])

    @property
    def precision(self) -> Precision:
        return self._study.user_attrs["precision"]  # type: ignore[no-any-return]

    def trials(self) -> list[Asked]:
        """All trials that have their point, by number."""
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
        if points is not None and len(self._study.get_trials(deepcopy=False)) >= points:
            raise SlimnetError(
                f"all {points} points of search.space have been tried; widen it for more trials"
            )
        trial = self._study.ask(self._distributions)
        return Asked(trial.number, self._params(self._study.trials[trial.number]), "running")

    def tell(self, number: int, metrics: Mapping[str, Any] | None) -> None:
        """Finish a trial with its metrics, or as failed with None."""
        if metrics is None:
            self._study.tell(number, state=TrialState.FAIL)
        else:
            self._study.tell(number, [metrics[name] for name in self._search.objectives])

    def complete_asking(self) -> None:
        """Give a trial its point if a killed driver had only just made it; it is the point it would have had."""
        for trial in self._study.get_trials(deepcopy=False):
            if trial.state is TrialState.RUNNING and trial.params.keys() != self._distributions.keys():
                live = optuna.trial.Trial(self._study, trial._trial_id)
                for path, distribution in self._distributions.items():
                    live._suggest(path, distribution)

    def _params(self, trial: FrozenTrial) -> dict[str, Any]:
        space = self._search.space
        return {path: _from_optuna(space[path], trial.params[path]) for path in space if path in trial.params}


def open_study(folder: Path, config: Config, precision: Precision) -> Study:
    """Open the study in `folder`, or make it.

    Args:
        folder: runs/<study>; study.db is in it.
        config: must agree with the one that the study was begun with in all that changes results.
        precision: of a new study.

    Raises:
        SlimnetError: study.db is damaged.
    """
    path = folder / "study.db"
    try:
        study = _create(path, config)
        if "uid" not in study.user_attrs:
            study.set_user_attr("precision", precision)
            study.set_user_attr("uid", uuid.uuid4().hex)
    except Exception as error:
        raise _damaged(path, error) from error
    return Study(study, config.search)


def reopen_trials(folder: Path, config: Config, numbers: Sequence[int]) -> None:
    """Make failed trials running again under their own numbers.

    Optuna never changes a finished trial, so the study is written anew beside the old file and renamed.

    Raises:
        SlimnetError: a number is not that of a failed trial.
    """
    path, aside = folder / "study.db", folder / "study.db.new"
    old = _create(path, config)
    trials = old.get_trials()
    failed = [trial.number for trial in trials if trial.state is TrialState.FAIL]
    for number in numbers:
        if number not in failed:
            raise SlimnetError(f"trial {number} has not failed; failed trials: {failed or 'none'}")
    aside.unlink(missing_ok=True)
    new = _create(aside, config)
    for key, value in old.user_attrs.items():
        new.set_user_attr(key, value)
    for trial in trials:
        if trial.number in numbers:
            trial.state, trial.datetime_complete = TrialState.RUNNING, None
        new.add_trial(trial)
    aside.replace(path)


def _create(path: Path, config: Config) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    wait = {"connect_args": {"timeout": 60}}  # seconds, for a reader that holds the file
    return optuna.create_study(
        storage=optuna.storages.RDBStorage(f"sqlite:///{path}", engine_kwargs=wait),
        sampler=_Unrepeated(config.search, config.seed),
        study_name=config.study,
        directions=list(config.search.objectives.values()),
        load_if_exists=True,
    )


def _damaged(path: Path, error: Exception) -> SlimnetError:
    cause = str(getattr(error, "orig", error)).splitlines()[0]
    return SlimnetError(
        f"{path} cannot be opened ({cause}); if it is damaged, move it away: the study is rebuilt from its stages"
    )


class _Unrepeated(BaseSampler):
    """Draws each point from a sampler made for this very draw, until no other trial has the point.

    Samplers keep a random state that Optuna does not store. Here there is none to lose: the state follows
    from (seed, trial number, attempt).
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
        space = self._search.space
        taken = {
            _point(space, other.params)
            for other in study.get_trials(deepcopy=False)
            if other.number != trial.number
        }
        if self._search.sampler == "grid":
            return next(point for point in _grid(space) if _point(space, point) not in taken)
        for attempt in range(DRAWS):
            seed = _seed(self._seed, trial.number, attempt)
            params = _draw(_sampler(self._search.sampler, seed), study, trial, search_space)
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
