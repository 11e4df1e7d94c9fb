"""The point of each trial, drawn by one of Optuna's samplers.

The points of a study do not depend on the machine or on interruptions: that of trial n depends only on the
seed, n, the points before it and the results of the trials up to n - ahead. Samplers keep a random state that
cannot be stored, so each draw here uses a new sampler.
"""

from __future__ import annotations

import hashlib
import logging
import random
import time
from bisect import bisect_right, insort
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from slimnet.errors import SlimnetError
from slimnet.models.factory import file_of, reason_of
from sweeps.config import Search
from sweeps.study.optuna_space import OptunaSpace
from sweeps.study.record import Point
from sweeps.study.samplers import make_sampler

QUICK = ("tpe", "nsga2", "nsga3", "random")
ONE_BY_ONE = ("tpe", "random", "grid")  # see a parameter only in the trials that have it
DRAWS = 50  # attempts of a quick sampler to draw a new point, before any that is left is taken
TRIED = 16  # points that a quick sampler draws when it is checked; TPE draws its first ten by chance
FEW_DRAWS = 3  # attempts of others, before the nearest point that is left is taken
MOST_NEAR = 10_000  # points of a space that is searched for the nearest
logger = logging.getLogger("sweeps.driver")

STUDY_ATTRIBUTES = "study"  # the key, among a point's attributes, of what the sampler noted on the study


def check_sampler(search: Search) -> None:
    """Check, before a study begins, that its sampler can be made and chooses points.

    It does so for a study that is thrown away: some arguments are only used for the first point, or for the
    first that follows from results. Of samplers that may be slow, one point is seen.

    Raises:
        SlimnetError: as `make_sampler`, or no point comes of it.
    """
    sampling = Sampling(search.model_copy(update={"ahead": 1}), seed=0)
    for number in range(min(search.trials, TRIED if search.sampler in QUICK else 1)):
        sampling.ask()
        sampling.tell(
            number, [float(number)] * len(search.objectives), dict.fromkeys(search.constraints, 0.0)
        )


class _Result(NamedTuple):
    """What came of a trial; see `Sampling.tell`."""

    values: Sequence[float] | None
    violations: Mapping[str, float]

    @property
    def state(self) -> TrialState:
        return TrialState.FAIL if self.values is None else TrialState.COMPLETE


class Sampling:
    """Draws the points of a study, one after the other."""

    def __init__(self, search: Search, seed: int) -> None:
        """Begin without trials.

        Args:
            search: the space, the sampler and the objectives.
            seed: the seed of all draws.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._ahead = search.ahead
        self._space = OptunaSpace(search.space)
        self._sampler = _Unrepeated(self._space, search, seed)
        self._storage = optuna.storages.InMemoryStorage()
        self._study = optuna.create_study(
            storage=self._storage,
            study_name="sampling",
            directions=list(search.objectives.values()),
            sampler=self._sampler,
        )
        self._study_id = self._storage.get_study_id_from_name("sampling")
        self._unseen: list[Point] = []  # added, but not in the Optuna study yet
        self._results: dict[int, _Result] = {}  # told, but not shown to the sampler yet
        self._count = 0

    @property
    def sampler_seconds(self) -> float:
        """The time spent inside Optuna's samplers."""
        return self._sampler.seconds

    def add(self, point: Point) -> None:
        """Add the next trial's point from the record of the study.

        Args:
            point: as `ask` returned it.

        Raises:
            SlimnetError: the space has no such point.
        """
        self._sampler.taken.add(self._space.key(point.params))
        self._unseen.append(point)
        self._count += 1

    def ask(self) -> Point:
        """Draw the next trial's point.

        Returns:
            A point that no trial has; in a continuous space, a repeated one after many attempts.

        Raises:
            SlimnetError: every point of the space has been tried.
        """
        if self._sampler.taken.left() == 0:
            raise SlimnetError(
                f"every point of search.space has been tried ({self._space.size}); "
                "for more, start a study with a wider space (--set study=NAME)"
            )
        self._show(last=self._count - self._ahead)
        noted = dict(self._storage.get_study_system_attrs(self._study_id))
        trial = self._study.ask()
        params = self._sampler.draw_point(trial)
        self._count += 1
        return Point(params, self._attributes(trial.number, noted))

    def tell(
        self, number: int, values: Sequence[float] | None, violations: Mapping[str, float] | None = None
    ) -> None:
        """Record the result of a trial, in any order and at any time.

        Args:
            number: of a trial that has been added or drawn.
            values: in the order of the objectives; None if the trial failed.
            violations: how far it is off each constraint, 0 or less where it is met.
        """
        self._results[number] = _Result(values, violations or {})

    def as_study(self, goal: int) -> optuna.Study:
        """The Optuna study, for another program that asks it and tells it results.

        Its sampler is exhausted once there are `goal` trials.
        """
        self._sampler.goal = goal
        return _ForeignStudy(self._study, self._space)

    def _show(self, last: int) -> None:
        """Let the sampler see all trials and the results of those up to `last`."""
        first = self._count - len(self._unseen)
        for number, point in enumerate(self._unseen, first):
            self._insert(point, number, ended=number <= last and number in self._results)
        self._unseen.clear()
        for number in sorted(number for number in self._results if number <= last):
            result = self._results.pop(number)
            trial_id = self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)
            trial = optuna.Trial(self._study, trial_id)
            for name, violation in result.violations.items():
                trial.set_constraint(name, violation)
            self._study.tell(trial, result.values, result.state)

    def _insert(self, point: Point, number: int, *, ended: bool) -> None:
        """Put a trial into the Optuna study, with its result if the sampler may see it."""
        result = self._results.pop(number) if ended else None
        attributes = dict(point.attributes)
        for key, value in attributes.pop(STUDY_ATTRIBUTES, {}).items():
            self._storage.set_study_system_attr(self._study_id, key, value)
        params = self._sampler.shown(point.params)
        self._study.add_trial(
            create_trial(
                state=result.state if result else TrialState.RUNNING,
                values=result.values if result else None,
                constraints=dict(result.violations) if result else None,
                params=params,
                distributions=self._space.distributions_of(params),
                system_attrs=attributes,
            )
        )

    def _attributes(self, number: int, noted: Mapping[str, Any]) -> dict[str, Any]:
        """What the sampler noted on a trial, and on the study apart from what was `noted` before."""
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)
        attributes = dict(self._storage.get_trial(trial_id).system_attrs)
        of_study = self._storage.get_study_system_attrs(self._study_id)
        if new := {key: value for key, value in of_study.items() if noted.get(key) != value}:
            attributes[STUDY_ATTRIBUTES] = new
        return attributes


class _ForeignStudy(optuna.Study):
    """The study of another program, which enqueues points as the config's values."""

    def __init__(self, study: optuna.Study, space: OptunaSpace) -> None:
        super().__init__(study.study_name, study._storage, sampler=study.sampler)
        self._space = space

    def enqueue_trial(
        self, params: dict[str, Any], user_attrs: dict[str, Any] | None = None, skip_if_exists: bool = False
    ) -> None:
        """Enqueue a point; what is not searched is left out."""
        point = {path: params[path] for path in self._space.paths if path in params}
        super().enqueue_trial(self._space.encode(point), user_attrs, skip_if_exists)


class _Taken:
    """The points that trials already have."""

    def __init__(self, space: OptunaSpace) -> None:
        self._space = space
        self._keys: set[tuple[Any, ...]] = set()
        self._indices: list[int] = []  # sorted, where the space is finite

    def __contains__(self, key: tuple[Any, ...]) -> bool:
        return key in self._keys

    def add(self, key: tuple[Any, ...]) -> None:
        if key not in self._keys:
            self._keys.add(key)
            if self._space.size is not None:
                insort(self._indices, self._space.index(key))

    def left(self) -> int | None:
        """How many points no trial has; None if the space is continuous."""
        return None if self._space.size is None else self._space.size - len(self._indices)

    def free(self, place: int) -> dict[str, Any]:
        """The point at a place among those that no trial has, in grid order, as Optuna stores it."""
        taken = self._indices
        before = bisect_right(range(len(taken)), place, key=lambda index: taken[index] - index)
        return self._space.at(place + before)

    def nearest(self, point: Mapping[str, Any]) -> dict[str, Any] | None:
        """The point nearest to another among those that no trial has; None if there are too many to look.

        Args:
            point: as Optuna stores it, as is what is returned.
        """
        if self._space.size is None or self._space.size > MOST_NEAR:
            return None
        taken = set(self._indices)
        free = (self._space.at(index) for index in range(self._space.size) if index not in taken)
        return min(free, key=lambda other: self._space.distance(point, other))


class _Unrepeated(BaseSampler):
    """Draws a point from a new sampler, again and again until no other trial has the point."""

    def __init__(self, space: OptunaSpace, search: Search, seed: int) -> None:
        self.taken = _Taken(space)
        self.goal = search.trials
        self.seconds = 0.0
        self._space = space
        self._search = search
        self._seed = seed

    def draw_point(self, trial: optuna.Trial) -> dict[str, Any]:
        """The point of a new trial, as the config's values; Optuna notes it too."""
        for name in trial.relative_params:
            _suggest(trial, name, self._space.distributions[name])
        for name in self._space.active(trial.params):  # others, where a point was enqueued
            if name not in trial.params:
                _suggest(trial, name, self._space.distributions[name])
        params = self._space.decode(trial.params)
        self.taken.add(self._space.key(params))
        return params

    def is_exhausted(self, study: optuna.Study) -> bool:
        """Whether no further trial is wanted; the name is that of Optuna's grid sampler."""
        return len(study.get_trials(deepcopy=False)) >= self.goal or self.taken.left() == 0

    def shown(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """A point as the sampler sees it: with all parameters, unless it draws one after the other."""
        stored = self._space.encode(params)
        return stored if self._search.sampler in ONE_BY_ONE else self._space.fill(stored)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._space.distributions

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        first = self._search.points[trial.number : trial.number + 1]
        if self._search.sampler == "grid":
            return self._space.encode(first[0]) if first else self.taken.free(0)
        quick = self._search.sampler in QUICK
        for attempt in range(DRAWS if quick else FEW_DRAWS):
            drawn = self._draw(_seed(self._seed, trial.number, attempt), study, trial)
            params = first[0] if first else self._space.decode(drawn)
            if self._space.key(params) not in self.taken:
                break
        else:
            nearest = None if quick else self.taken.nearest(self._space.encode(params))
            left = self.taken.left()
            if nearest is not None:
                params = self._space.decode(nearest)
            elif left:
                place = random.Random(_seed(self._seed, trial.number, DRAWS)).randrange(left)
                params = self._space.decode(self.taken.free(place))
        return self.shown(params)  # without the draw's rounding, as in a rebuilt study

    def _draw(self, seed: int, study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
        """What a new sampler draws."""
        sampler = make_sampler(self._search, seed)
        began = time.perf_counter()
        try:
            return _draw(sampler, study, trial, self._space, self._search.sampler not in ONE_BY_ONE)
        except (Exception, SystemExit) as error:  # the user's code may raise anything
            logger.exception("the sampler %s failed at trial %d", self._search.sampler, trial.number)
            own = file_of(type(sampler)) if ":" in self._search.sampler else None
            hint = "; check search.args" if self._search.args else ""
            raise SlimnetError(
                f"the sampler {self._search.sampler} cannot choose trial {trial.number}: "
                f"{reason_of(error, own)}{hint}"
            ) from error
        finally:
            self.seconds += time.perf_counter() - began

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        raise AssertionError(f"{param_name} is in the space, which is drawn as a whole")


def _draw(
    sampler: BaseSampler, study: optuna.Study, trial: FrozenTrial, space: OptunaSpace, whole: bool
) -> dict[str, Any]:
    """One point: first what the sampler draws jointly, then the rest one by one.

    Args:
        sampler: a new one.
        study: what it has seen.
        trial: the new trial.
        space: where the point is drawn from.
        whole: draw parameters that do not belong to the point too.
    """
    sampler.before_trial(study, trial)
    together = sampler.infer_relative_search_space(study, trial)
    params = sampler.sample_relative(study, trial, together)
    drawn: dict[str, Any] = {}
    for name, distribution in space.distributions.items():  # those that others go by first
        if name in space.parents or whole or name in space.active(drawn):
            value = (
                params[name]
                if name in params
                else sampler.sample_independent(study, trial, name, distribution)
            )
            # As Optuna stores them: a sampler may have drawn other numbers than Python's.
            drawn[name] = distribution.to_external_repr(distribution.to_internal_repr(value))
    return drawn


def _suggest(trial: optuna.Trial, name: str, distribution: BaseDistribution) -> None:
    match distribution:
        case FloatDistribution(low=low, high=high, step=step, log=log):
            trial.suggest_float(name, low, high, step=step, log=log)
        case IntDistribution(low=low, high=high, step=step, log=log):
            trial.suggest_int(name, low, high, step=step, log=log)
        case CategoricalDistribution(choices=choices):
            trial.suggest_categorical(name, choices)


def _seed(*parts: int) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big")
