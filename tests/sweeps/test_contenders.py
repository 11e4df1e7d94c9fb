"""Controls and repeats of the trials of a front: which points are chosen, and what is made for each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from in_memory import InMemory

from sweeps.config import Config, load_config, resolve
from sweeps.contenders import Contender, chosen_points, contenders, epochs_to_come
from sweeps.records import StageRecord, TrialRecord
from sweeps.stages import Stage, chain, control, dense_stage

ALL = ("controls={uniform: true, scratch: true, random: true}",)


def trial(number: int, *overrides: str, **params: Any) -> TrialRecord:
    """A finished trial of 100, 200, ... parameters."""
    space = {"sparse.lambda": 0.02, "prune.ratio": 0.5}
    asked = {**({} if any("search.space=" in one for one in overrides) else space), **params}
    facts = {"params": 100 * (number + 1), "macs": 0, "val_accuracy": 0.5, "test_accuracy": 0.5}
    result = {"metrics": facts}
    last = StageRecord("finetune", "finetune", "key", {}, "done", 1, result, None, InMemory())
    config = resolve(load_config("smoke", overrides), asked)
    return TrialRecord(number, asked, config, "complete", None, (last,))


def found(
    config: Config, points: Sequence[TrialRecord], size: Callable[[Stage], int | None] | None = None
) -> list[Contender]:
    """All of them; where no sizes are given, each repeat has its own."""
    return list(
        contenders(config, points, "float32", None, None, size or (lambda stage: int(stage.key[:6], 16)))
    )


# Which points

FRONT = [trial(number) for number in range(13)]


def chosen(size: int, count: int, best: int | None) -> list[int]:
    front = FRONT[:size]
    return [one.number for one in chosen_points(front, count, None if best is None else front[best])]


@pytest.mark.parametrize(
    ("size", "count", "best", "expected"),
    [
        (3, 6, 1, [0, 1, 2]),
        (6, 6, None, [0, 1, 2, 3, 4, 5]),
        (11, 3, None, [0, 5, 10]),  # the smallest, the largest, and between them
        (11, 3, 5, [0, 5, 10]),
        (11, 3, 4, [0, 4, 10]),  # the best in place of its neighbour
        (11, 3, 1, [1, 5, 10]),
        (11, 3, 9, [0, 5, 9]),
        (11, 1, 7, [7]),
        (11, 1, None, [0]),
        (7, 6, 3, [0, 1, 3, 4, 5, 6]),
    ],
)
def test_points_are_spread_over_the_sizes_with_the_best_among_them(
    size: int, count: int, best: int | None, expected: list[int]
) -> None:
    assert chosen(size, count, best) == expected


@pytest.mark.parametrize("size", range(1, 14))
@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_never_a_point_twice_nor_more_than_asked_for_and_always_the_best(size: int, count: int) -> None:
    for best in range(size):
        numbers = chosen(size, count, best)
        assert numbers == sorted(set(numbers))
        assert len(numbers) == min(count, size)
        assert best in numbers


def test_a_best_one_that_is_not_on_the_front_changes_nothing() -> None:
    assert chosen_points(FRONT, 3, trial(99)) == chosen_points(FRONT, 3, None)


# What is made for them


def test_nothing_without_controls_and_with_one_seed() -> None:
    assert found(load_config("smoke"), [trial(0), trial(1)]) == []
    assert found(load_config("smoke", [*ALL, "confirm.seeds=3"]), []) == []


def test_controls_of_one_seed_are_one_of_each_kind_for_each_point() -> None:
    config, points = load_config("smoke", ALL), [trial(3), trial(1)]
    assert [(one.kind, one.trial, one.seed) for one in found(config, points)] == [
        (kind, number, 0) for number in (3, 1) for kind in ("uniform", "scratch", "random")
    ]
    for one in found(config, points):
        point = next(point for point in points if point.number == one.trial)
        expected = control(one.kind, point.config, "float32", params=point.metrics["params"])  # type: ignore[arg-type]
        assert [stage.key for stage in one.stages] == [stage.key for stage in expected]


@pytest.mark.parametrize("kind", ["uniform", "scratch", "random"])
def test_further_seeds_repeat_points_controls_and_the_dense_network(kind: str) -> None:
    config = load_config("smoke", [f"controls.{kind}=true", "confirm.seeds=3", "seed=5"])
    points = [trial(0, "seed=5"), trial(2, "seed=5")]
    made = found(config, points)
    assert [(one.kind, one.trial, one.seed) for one in made] == [
        (kind, 0, 5),
        (kind, 2, 5),
        *(
            entry
            for seed in (6, 7)
            for entry in (
                ("dense", None, seed),
                ("trial", 0, seed),
                (kind, 0, seed),
                ("trial", 2, seed),
                (kind, 2, seed),
            )
        ),
    ]
    for one in made:
        assert {stage.spec.seed for stage in one.stages} == {one.seed}
        again = config.model_copy(update={"seed": one.seed})
        if one.kind == "dense":
            assert one.stages[0].key == dense_stage(again, "float32").key
        if one.kind == "trial":
            own = points[0].config.model_copy(update={"seed": one.seed})
            assert [stage.key for stage in one.stages] == [stage.key for stage in chain(own, "float32")]


def test_a_narrower_network_has_the_size_of_the_trial_with_its_own_seed() -> None:
    """Where channels compete each seed leaves another number of parameters."""
    config = load_config("smoke", ["controls.uniform=true", "confirm.seeds=3"])
    narrow = [
        one for one in found(config, [trial(4)], lambda stage: 480 + stage.spec.seed) if one.kind == "uniform"
    ]
    assert [one.stages[0].spec.dump()["within"] for one in narrow] == [500, 481, 482]


def test_a_narrower_network_waits_for_the_size_of_the_repeat() -> None:
    config = load_config("smoke", [*ALL, "confirm.seeds=3"])
    of_seed_2 = chain(trial(4).config.model_copy(update={"seed": 2}), "float32")[-1].key
    made = found(config, [trial(4)], lambda stage: 482 if stage.key == of_seed_2 else None)
    assert [one.seed for one in made if one.kind == "uniform"] == [0, 2]
    for kind in ("scratch", "random"):
        assert [one.seed for one in made if one.kind == kind] == [0, 1, 2]


def test_controls_of_a_trial_whose_seed_is_searched_have_its_seed() -> None:
    space = "search.space={seed: {range: [40, 43]}}"
    config = load_config("smoke", ["controls.uniform=true", space])
    points = [trial(number, space, seed=seed) for number, seed in enumerate((40, 42))]
    assert [(one.kind, one.seed) for one in found(config, points)] == [("uniform", 40), ("uniform", 42)]


def test_fresh_weights_have_no_control_of_random_channels() -> None:
    """It would be the trial itself: only how many channels there are counts."""
    space = "search.space={finetune.weights: [pruned, fresh]}"
    config = load_config("smoke", [*ALL, "confirm.seeds=2", space])
    points = [trial(n, space, **{"finetune.weights": w}) for n, w in enumerate(("pruned", "fresh"))]
    kinds = Counter((one.trial, one.kind) for one in found(config, points))
    expected: dict[tuple[int | None, str], int] = {
        (None, "dense"): 1,
        **{(number, kind): 2 for number in (0, 1) for kind in ("uniform", "scratch")},
        **{(number, "trial"): 1 for number in (0, 1)},
        (0, "random"): 2,
    }
    assert kinds == expected


def test_random_channels_share_the_sparse_training_of_their_trial() -> None:
    config = load_config("smoke", ["controls.random=true", "confirm.seeds=2"])
    made = {(one.kind, one.seed): one.stages for one in found(config, [trial(0)])}
    assert made["random", 1][0].key == made["trial", 1][0].key
    assert made["random", 0][0].key == chain(trial(0).config, "float32")[0].key


@pytest.mark.parametrize(
    "overrides",
    [
        (*ALL, "confirm.seeds=3"),
        (*ALL,),
        ("confirm.seeds=4",),
        (*ALL, "confirm.seeds=2", "passes=2"),
        (*ALL, "confirm.seeds=2", "finetune.weights=early"),
        (*ALL, "confirm.seeds=2", "passes=2", "finetune.weights=fresh"),
        (*ALL, "confirm={seeds: 2, points: 2}"),
    ],
    ids=" ".join,
)
def test_the_epochs_to_come_are_never_fewer_than_those_that_come(overrides: tuple[str, ...]) -> None:
    """Where each point has a sparse training of its own they are just as many."""
    config = load_config("smoke", [*overrides, "search.space.sparse.lambda=[0.01, 0.02, 0.03]"])
    points = [
        trial(number, *overrides, "search.space.sparse.lambda=[0.01, 0.02, 0.03]", **{"sparse.lambda": λ})
        for number, λ in enumerate((0.01, 0.02, 0.03))
    ][: config.confirm.points]
    done = {stage.key for point in points for stage in chain(point.config, "float32")}
    made = {stage.key: stage for one in found(config, points) for stage in one.stages}
    counted: Counter[str] = Counter()
    for key, stage in made.items():
        counted[stage.kind] += stage.epochs if key not in done else 0
    assert epochs_to_come(config) == {kind: counted[kind] for kind in ("sparse", "early", "finetune")}
