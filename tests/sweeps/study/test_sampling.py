"""Which points a study asks: the same ones however often it is interrupted, and none twice."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from own_sampler import own as own

from slimnet.errors import SlimnetError
from sweeps.config import Config, load_config
from sweeps.study import Point
from sweeps.study.optuna_space import OptunaSpace
from sweeps.study.sampling import Sampling

SAMPLERS = ["tpe", "nsga2", "nsga3", "random", "grid", "optuna.samplers:TPESampler"]
SMALL = "{sparse.lambda: [0.001, 0.002, 0.004, 0.008], prune.ratio: {range: [0.3, 0.8], step: 0.1}}"
LARGE = "{sparse.lambda: {log: [0.001, 0.1], steps: 500}, prune.ratio: {range: [0.3, 0.8], step: 0.01}}"

Result = tuple[float, ...] | None


def config(sampler: str = "tpe", space: str = SMALL, trials: int = 12, **search: Any) -> Config:
    overrides = {"sampler": sampler, "space": space, "trials": trials, **search}
    return load_config("smoke", [f"search.{key}={value}" for key, value in overrides.items()])


def result(point: Point) -> Result:
    """A result that follows from the point, with a front; weak pruning fails."""
    strength, ratio = point.params["sparse.lambda"], point.params["prune.ratio"]
    if ratio == 0.3 and strength < 0.0015:
        return None
    return 0.9 - (ratio - 0.4) ** 2 - strength, 10_000 * (1 - ratio) + strength * 1e5


class Recorded:
    """A study that keeps a record of itself, and can be killed and made again from it."""

    def __init__(
        self,
        settings: Config,
        tell: Callable[[Point], Result] = result,
        violations: Callable[[Point], dict[str, float]] = lambda point: {},
    ) -> None:
        self._settings = settings
        self._result = tell
        self._violations = violations
        self.points: list[Point] = []
        self.told: dict[int, Result] = {}
        self.sampling = Sampling(settings.search, settings.seed)

    def open(self) -> list[int]:
        return [number for number in range(len(self.points)) if number not in self.told]

    def step(self, goal: int) -> bool:
        """Ask for a trial or finish one, as the driver does; False at the goal."""
        if len(self.points) < goal and len(self.open()) < self._settings.search.ahead:
            self.points.append(self.sampling.ask())
        elif opened := self.open():
            self.told[opened[0]] = self._result(self.points[opened[0]])
            self._tell(opened[0])
        else:
            return False
        return True

    def run(self, goal: int) -> list[Point]:
        while self.step(goal):
            pass
        return self.points

    def kill(self) -> None:
        """Begin again from the record, which has been through a file."""
        self.points = [Point(*json.loads(json.dumps([p.params, p.attributes]))) for p in self.points]
        self.sampling = Sampling(self._settings.search, self._settings.seed)
        for point in self.points:
            self.sampling.add(point)
        for number in self.told:
            self._tell(number)

    def _tell(self, number: int) -> None:
        violations = {} if self.told[number] is None else self._violations(self.points[number])
        self.sampling.tell(number, self.told[number], violations)


@pytest.mark.parametrize("objectives", ["{val_accuracy: maximize, params: minimize}", "{params: minimize}"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_study_killed_after_any_ask_or_tell_asks_the_same_points(sampler: str, objectives: str) -> None:
    settings = config(sampler, trials=16, objectives=objectives)
    single = "val" not in objectives
    tell = (lambda point: (values := result(point)) and values[1:]) if single else result
    whole = Recorded(settings, tell).run(16)

    killed = Recorded(settings, tell)
    while killed.step(16):
        killed.kill()

    assert killed.points == whole
    assert len(whole) == 16


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_fifty_trials_in_one_go_are_two_goes_of_25(sampler: str) -> None:
    settings = config(sampler, LARGE, 50)
    whole = Recorded(settings).run(50)

    parts = Recorded(settings)
    parts.run(25)  # all results are told before trial 25 is asked
    assert parts.run(50) == whole

    killed = Recorded(settings)
    killed.run(25)
    killed.kill()
    assert killed.run(50) == whole


def test_generations_of_nsga2_outlive_a_rebuild() -> None:
    settings = config("nsga2", LARGE, 130)
    whole = Recorded(settings).run(130)
    generations = [point.attributes["NSGAIISampler:generation"] for point in whole]
    second = generations.index(2)
    assert generations == sorted(generations)

    parts = Recorded(settings)
    for goal in (generations.index(1) + 7, second, second + 1, 130):  # within, at the end and at the start
        parts.run(goal)
        parts.kill()
    assert parts.points == whole


def test_results_may_come_in_any_order_and_early() -> None:
    settings = config("tpe", trials=16)
    whole = Recorded(settings).run(16)

    sampling = Sampling(settings.search, settings.seed)
    for point in whole[:14]:
        sampling.add(point)
    for number in random.Random(0).sample(range(14), 14):
        sampling.tell(number, result(whole[number]))
    assert [sampling.ask(), sampling.ask()] == whole[14:]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_no_point_is_asked_twice_until_the_space_is_exhausted(sampler: str) -> None:
    study = Recorded(config(sampler, trials=24))
    study.run(24)
    assert len({str(point.params) for point in study.points}) == 24
    with pytest.raises(SlimnetError, match=r"every point of search.space has been tried \(24\)"):
        study.sampling.ask()
    study.kill()
    with pytest.raises(SlimnetError, match=r"every point of search.space has been tried \(24\)"):
        study.sampling.ask()


def test_a_grid_goes_through_its_points_in_order() -> None:
    points = Recorded(config("grid", trials=24)).run(24)
    lambdas, ratios = [0.001, 0.002, 0.004, 0.008], [0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
    assert [tuple(point.params.values()) for point in points] == [(x, y) for x in lambdas for y in ratios]


def test_a_grid_that_no_memory_could_hold_is_asked_from() -> None:
    values = "{range: [0.1, 0.9], step: 0.0001}"
    space = f"{{prune.ratio: {values}, sparse.momentum: {values}, finetune.momentum: {values}}}"
    first = Recorded(config("grid", space, 3), lambda point: (0.5, 1.0)).run(3)
    assert [point.params["finetune.momentum"] for point in first] == [0.1, 0.1001, 0.1002]


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_the_sampler_learns_from_results(sampler: str) -> None:
    goal = {"tpe": 20, "nsga2": 64}[sampler]
    settings = config(sampler, LARGE, goal)
    learned = Recorded(settings, lambda point: (0.5, point.params["prune.ratio"])).run(goal)
    flat = Recorded(settings, lambda point: (0.5, 1.0)).run(goal)
    assert learned[:10] == flat[:10]
    assert learned != flat


def test_tpe_follows_an_objective_that_rises_with_a_geometric_grid() -> None:
    space = "{sparse.lambda: {log: [0.0001, 1.0], steps: 1000}}"
    settings = config("tpe", space, 40, objectives="{val_accuracy: maximize}", ahead=1)
    points = Recorded(settings, lambda point: (point.params["sparse.lambda"],)).run(40)
    strengths = [point.params["sparse.lambda"] for point in points]
    at_random, drawn = strengths[:10], strengths[10:]
    assert sum(value > max(at_random) for value in drawn) > 15


def test_values_with_an_order_keep_it() -> None:
    settings = config(
        space="{sparse.lambda: {log: [0.001, 0.1], steps: 5}, sparse.lr: {log: [0.01, 1.0]}, "
        "model.width: {log: [4, 16], steps: 9}, finetune.epochs: {range: [1, 6], step: 2}, "
        "prune.ratio: {range: [0.25, 0.85], step: 0.2}, sparse.momentum: {range: [0.5, 0.9]}, "
        "finetune.batch_size: {log: [8, 64]}, model.blocks: [[1], [1, 1]], data.flip: [true, false], "
        "sparse.weight_decay: [0, 1e-3, 1e-4], finetune.lr: [0.1, 0.2], seed: [0, 1, 2], "
        "finetune.optimizer: [sgd, adam, adamw]}"
    )
    assert OptunaSpace(settings.search.space).distributions == {
        "sparse.lambda": IntDistribution(0, 4),
        "sparse.lr": FloatDistribution(0.01, 1.0, log=True),
        "model.width": IntDistribution(0, 8),
        "finetune.epochs": IntDistribution(1, 5, step=2),
        "prune.ratio": FloatDistribution(0.25, 0.85, step=0.2),
        "sparse.momentum": FloatDistribution(0.5, 0.9),
        "finetune.batch_size": IntDistribution(8, 64, log=True),
        "model.blocks": CategoricalDistribution(["[1]", "[1, 1]"]),
        "data.flip": CategoricalDistribution([True, False]),
        "sparse.weight_decay": IntDistribution(0, 2),
        "finetune.lr": CategoricalDistribution([0.1, 0.2]),
        "seed": CategoricalDistribution([0, 1, 2]),
        "finetune.optimizer": CategoricalDistribution(["sgd", "adam", "adamw"]),
    }
    budgets = OptunaSpace(config(space="{prune.params: ['100%', '9%', '50%']}").search.space)
    assert budgets.distributions == {"prune.params": IntDistribution(0, 2)}
    assert [budgets.encode({"prune.params": one})["prune.params"] for one in ("100%", "9%", "50%")] == [
        2,
        0,
        1,
    ]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_values_come_back_as_the_config_has_them(sampler: str) -> None:
    space = (
        "{sparse.lambda: {log: [0.001, 0.1], steps: 3}, model.width: {log: [4, 16], steps: 3}, "
        "prune.ratio: {range: [0.1, 0.7], step: 0.2}, finetune.epochs: {range: [1, 4], step: 2}, "
        "model.blocks: [[1], [1, 1]]}"
    )
    settings = config(sampler, space, 144)
    sampling = Sampling(settings.search, settings.seed)
    points = [sampling.ask() for _ in range(144)]
    choices: dict[str, list[Any]] = {
        "sparse.lambda": [0.001, 0.01, 0.1],
        "model.width": [4, 8, 16],
        "prune.ratio": [0.1, 0.3, 0.5, 0.7],
        "finetune.epochs": [1, 3],
        "model.blocks": [[1], [1, 1]],
    }
    for path, values in choices.items():
        seen = {json.dumps(point.params[path]) for point in points}
        assert seen == {json.dumps(value) for value in values}


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_continuous_spaces_are_sampled_within_their_bounds(sampler: str) -> None:
    space = (
        "{sparse.lambda: {log: [0.001, 0.1]}, prune.ratio: {range: [0.2, 0.9]}, model.width: {log: [4, 64]}}"
    )
    settings = config(sampler, space, 20)
    study = Recorded(settings)
    while study.step(20):
        study.kill()
    assert study.points == Recorded(settings).run(20)
    for point in study.points:
        assert 0.001 <= point.params["sparse.lambda"] <= 0.1
        assert 0.2 <= point.params["prune.ratio"] <= 0.9
        assert type(point.params["model.width"]) is int
        assert 4 <= point.params["model.width"] <= 64


@pytest.mark.parametrize("params", [{"prune.ratio": 0.5}, {"sparse.lambda": 0.003, "prune.ratio": 0.5}])
def test_a_point_that_is_not_in_the_space_is_refused(params: dict[str, Any]) -> None:
    settings = config()
    with pytest.raises(SlimnetError, match=r"sparse\.lambda = .* is not in search\.space"):
        Sampling(settings.search, settings.seed).add(Point(params, {}))


def test_another_seed_asks_other_points_and_no_one_elses_random_numbers_are_drawn() -> None:
    state, numpy_state = random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]
    settings = config("nsga2", LARGE, 12)
    points = Recorded(settings).run(12)
    assert Recorded(settings.model_copy(update={"seed": 1})).run(12) != points
    assert Recorded(config("tpe", LARGE, 12)).run(12)
    assert random.getstate() == state
    assert np.random.get_state()[1].tolist() == numpy_state  # type: ignore[index]


# Constraints


def over(point: Point) -> dict[str, float]:
    """Only strong pruning meets the constraint, which both objectives of `shallow` speak against."""
    return {"params": 0.6 - point.params["prune.ratio"]}


def shallow(point: Point) -> Result:
    ratio = point.params["prune.ratio"]
    return 1 - ratio, 1000 * ratio


@pytest.mark.parametrize(
    ("sampler", "args", "goal"),
    [
        ("tpe", "{}", 40),
        ("nsga2", "{population_size: 8}", 64),
        ("nsga3", "{population_size: 8}", 64),
        ("gp", "{n_startup_trials: 8}", 14),
    ],
)
def test_constraints_steer_the_sampler(sampler: str, args: str, goal: int) -> None:
    if sampler == "gp":
        pytest.importorskip("scipy")
    settings = config(sampler, LARGE, goal, args=args)
    late = slice(goal // 2, goal)
    steered = Recorded(settings, shallow, over)
    met = [point.params["prune.ratio"] >= 0.6 for point in steered.run(goal)[late]]
    free = [point.params["prune.ratio"] >= 0.6 for point in Recorded(settings, shallow).run(goal)[late]]
    assert sum(met) >= sum(free) + len(met) / 4

    killed = Recorded(settings, shallow, over)
    killed.run(goal - 3)
    while killed.step(goal):
        killed.kill()
    assert killed.points == steered.points


# Samplers


def test_gp_asks_the_same_points_when_it_is_killed_and_no_point_twice() -> None:
    pytest.importorskip("scipy")
    settings = config("gp", SMALL, 10, args="{n_startup_trials: 6}", ahead=2)
    whole = Recorded(settings).run(10)

    killed = Recorded(settings)
    while killed.step(10):
        killed.kill()

    assert killed.points == whole
    assert len({str(point.params) for point in whole}) == 10
    flat = Recorded(settings, lambda point: (0.5, 1.0)).run(10)
    assert flat[:6] == whole[:6]
    assert flat != whole


def test_nsga3_evolves_from_generation_to_generation() -> None:
    settings = config("nsga3", LARGE, 40, args="{population_size: 10}")
    whole = Recorded(settings).run(40)
    assert {point.attributes["NSGAIIISampler:generation"] for point in whole} == {0, 1, 2, 3}
    killed = Recorded(settings)
    while killed.step(40):
        killed.kill()
    assert killed.points == whole


def test_arguments_of_a_sampler_change_its_points() -> None:
    few = config("nsga2", LARGE, 30, args="{population_size: 4}")
    assert Recorded(few).run(30)[12:] != Recorded(config("nsga2", LARGE, 30)).run(30)[12:]


def test_a_sampler_of_the_users_own_is_found_beside_the_config(own: Path) -> None:
    settings = config("own_samplers:lowest", trials=12, path=own)
    points = Recorded(settings).run(12)
    assert {point.params["prune.ratio"] for point in points} == {0.3, 0.4, 0.5}
    study = Recorded(settings)
    while study.step(12):
        study.kill()
    assert study.points == points
    higher = Recorded(config("own_samplers:lowest", path=own, args="{most: 0.8}")).run(12)
    assert max(point.params["prune.ratio"] for point in higher) > 0.5


def test_a_sampler_of_the_users_own_whose_points_are_taken_gets_the_nearest(own: Path) -> None:
    settings = config("own_samplers:lowest", trials=14, path=own, args="{most: 0.3}", ahead=1)
    ratios = [point.params["prune.ratio"] for point in Recorded(settings).run(14)]
    assert sorted(ratios) == [0.3] * 4 + [0.4] * 4 + [0.5] * 4 + [0.6] * 2


def test_a_sampler_that_fails_is_told_with_its_trial(own: Path) -> None:
    with pytest.raises(
        SlimnetError, match=r"own_samplers:Breaks cannot choose trial 0: RuntimeError: no idea"
    ):
        Recorded(config("own_samplers:Breaks", path=own)).run(1)


def test_a_sampler_that_exits_is_told_with_its_trial(own: Path) -> None:
    with pytest.raises(SlimnetError, match=r"own_samplers:Exits cannot choose trial 0: SystemExit: bye"):
        Recorded(config("own_samplers:Exits", path=own)).run(1)


# A list of points

LIST = "[{sparse.lambda: 0.002, prune.ratio: 0.5}, {sparse.lambda: 0.008, prune.ratio: 0.3}]"
LISTED = [{"sparse.lambda": 0.002, "prune.ratio": 0.5}, {"sparse.lambda": 0.008, "prune.ratio": 0.3}]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_listed_points_come_first(sampler: str) -> None:
    settings = config(sampler, points=LIST, trials=24)
    points = Recorded(settings).run(24)
    assert [point.params for point in points[:2]] == LISTED
    assert len({str(point.params) for point in points}) == 24
    killed = Recorded(settings)
    while killed.step(24):
        killed.kill()
    assert killed.points == points


# Fields that go by others

BY = (
    "{sparse.lambda: {by: sparse.penalty, l1: {log: [0.001, 0.1], steps: 3}, polarization: [0.5, 0.6]}, "
    "sparse.penalty: [l1, proximal, polarization], prune.ratio: {range: [0.3, 0.7], step: 0.1}}"
)
STRENGTHS: dict[str, list[float | None]] = {
    "l1": [0.001, 0.01, 0.1],
    "proximal": [None],
    "polarization": [0.5, 0.6],
}


def by_penalty(point: Point) -> Result:
    ratio, strength = point.params["prune.ratio"], point.params.get("sparse.lambda", 0.05)
    return 0.9 - ratio**2 - strength, 1000 * (1 - ratio)


@pytest.mark.parametrize("sampler", [*SAMPLERS, "gp"])
def test_a_field_that_goes_by_another_is_drawn_with_its_values(sampler: str) -> None:
    if sampler == "gp":
        pytest.importorskip("scipy")
    goal = 14 if sampler == "gp" else 30
    settings = config(sampler, BY, goal)
    points = Recorded(settings, by_penalty).run(goal)
    for point in points:
        assert list(point.params)[-2:] == ["sparse.penalty", "prune.ratio"]
        assert point.params.get("sparse.lambda") in STRENGTHS[point.params["sparse.penalty"]]
    assert len({json.dumps(point.params) for point in points}) == goal
    assert {point.params["sparse.penalty"] for point in points} == STRENGTHS.keys()
    killed = Recorded(settings, by_penalty)
    killed.run(goal - 4)
    while killed.step(goal):
        killed.kill()
    assert killed.points == points


def test_a_grid_goes_through_all_its_parts() -> None:
    points = Recorded(config("grid", BY, 30), by_penalty).run(30)
    assert [(p.params["sparse.penalty"], p.params.get("sparse.lambda")) for p in points[::5]] == [
        (penalty, strength) for penalty, strengths in STRENGTHS.items() for strength in strengths
    ]


@pytest.mark.parametrize(("sampler", "goal"), [("tpe", 45), ("nsga2", 60)])
def test_a_sampler_learns_about_a_field_that_goes_by_another(sampler: str, goal: int) -> None:
    space = (
        "{sparse.lambda: {by: sparse.penalty, l1: {log: [0.0001, 1.0], steps: 300}}, "
        "sparse.penalty: [l1, proximal], prune.ratio: {range: [0.3, 0.7], step: 0.01}}"
    )
    args = {"tpe": "{}", "nsga2": "{population_size: 10}"}[sampler]
    settings = config(sampler, space, goal, objectives="{val_accuracy: maximize}", ahead=1, args=args)
    points = Recorded(settings, lambda point: (point.params.get("sparse.lambda", 0.0),)).run(goal)
    strengths = [point.params.get("sparse.lambda", 0.0) for point in points]
    assert sum(strength > 0.1 for strength in strengths[-10:]) >= 5
    assert sum(strength > 0.1 for strength in strengths[:10]) < 5
