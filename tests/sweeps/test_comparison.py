"""What means and differences over seeds allow to be said, against numbers worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from made import Made

from sweeps.comparison import Comparison, Difference, recommended, smallest_near
from sweeps.records import best_trial
from sweeps.report.verdicts import against, beside_dense, points, seeds_and_epochs, with_error

T95 = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 10: 2.23}


# Means and their standard errors


def test_the_standard_error_of_seeds_is_their_spread_over_the_root_of_their_number() -> None:
    dense = Made([0.80, 0.82, 0.84], [[0.7]]).compared().dense
    assert dense is not None
    assert dense.seeds == [0, 1, 2]
    assert dense.mean("val_accuracy") == pytest.approx(0.82)
    for metric in ("val_accuracy", "test_accuracy"):
        assert dense.standard_error(metric) == pytest.approx(0.02 / math.sqrt(3))
    assert (
        with_error(dense, "val_accuracy") == "82.0\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}1.2\N{NO-BREAK SPACE}%"
    )


def test_one_seed_has_the_error_of_its_split() -> None:
    """Of 100 images at 80 %: √(0.8 · 0.2 / 100)."""
    dense = Made([0.80], [[0.7]], images=100).compared().dense
    assert dense is not None
    assert dense.standard_error("val_accuracy") == pytest.approx(0.04)
    assert dense.standard_error("test_accuracy") == pytest.approx(math.sqrt(0.78 * 0.22 / 400))


def test_one_seed_on_nobody_knows_how_many_images_has_no_error() -> None:
    dense = Made([0.80], [[0.7]]).compared().dense
    assert dense is not None
    assert dense.standard_error("val_accuracy") is None
    assert with_error(dense, "val_accuracy") == "80.0\N{NO-BREAK SPACE}%"


def test_the_validation_error_is_at_least_that_of_the_split_and_that_of_test_comes_on_top() -> None:
    """The test images are the same for every seed, those for validation are not."""
    alike, apart = Made([0.8, 0.8], [[0.7, 0.9]], images=100), Made([0.8], [[0.3, 0.9]], images=100)
    dense, point = alike.compared().dense, apart.compared().points[0]
    assert dense is not None
    assert dense.standard_error("val_accuracy") == pytest.approx(0.04 / math.sqrt(2))
    assert dense.standard_error("test_accuracy") == pytest.approx(math.sqrt(0.78 * 0.22 / 400))
    spread = 0.18  # the variance of 0.3 and 0.9
    assert point.standard_error("val_accuracy") == pytest.approx(math.sqrt(spread / 2))
    assert point.standard_error("test_accuracy") == pytest.approx(math.sqrt(spread / 2 + 0.58 * 0.42 / 400))


def test_epochs_are_all_that_a_network_has_had_and_of_new_weights_their_own() -> None:
    made = Made(
        [0.8], [[0.7]], {("scratch", 0): [0.7], ("random", 0): [0.7], ("uniform", 0): [0.7]}
    ).compared()
    epochs = {kind: one.epochs for (kind, _), one in made.controls.items()}
    assert epochs == {"scratch": 2, "random": 4, "uniform": 2}
    assert made.points[0].epochs == 4
    assert seeds_and_epochs(made.points[0]) == "4 epochs"
    assert seeds_and_epochs(Made([0.8], [[0.7] * 3]).compared().points[0]) == "mean of 3 seeds, 4 epochs each"


# Differences


def differ(made: Made, number: int = 0) -> Difference | None:
    """Of a trial from the dense network."""
    compared = made.compared()
    point = next(one for one in compared.points if one.trial == number)
    assert compared.dense is not None
    return compared.difference(point, compared.dense)


def test_a_difference_is_taken_seed_by_seed() -> None:
    """The pairs differ by 0.01 and 0.03, whose variance is 0.0002, however far the seeds are apart."""
    difference = differ(Made([0.50, 0.90], [[0.51, 0.93]]))
    assert difference is not None
    assert difference.mean == pytest.approx(0.02)
    assert difference.margin == pytest.approx(T95[1] * math.sqrt(0.0002 / 2))


def test_the_spread_of_differences_is_pooled_or_their_own_where_that_is_more() -> None:
    """Two points and a control, whose differences have variances of 0.0002, 0.0008 and 0.00005.

    Pooled they have three degrees of freedom, and that of trial 1 alone has one.
    """
    made = Made([0.8, 0.8], [[0.81, 0.83], [0.78, 0.82]], {("uniform", 0): [0.80, 0.81]})
    pooled = (0.0002 + 0.0008 + 0.00005) / 3
    for number, mean, variance, degrees in ((0, 0.02, pooled, 3), (1, 0.0, 0.0008, 1)):
        difference = differ(made, number)
        assert difference is not None
        assert difference.mean == pytest.approx(mean)
        assert difference.margin == pytest.approx(T95[degrees] * math.sqrt(variance / 2))
    compared = made.compared()
    beside = compared.difference(compared.points[1], compared.controls["uniform", 0])
    assert beside is not None
    assert beside.mean == pytest.approx(0.015)
    assert beside.margin == pytest.approx(T95[3] * math.sqrt(pooled / 2))


def test_equal_spreads_are_pooled_whatever_their_rounding() -> None:
    """Three comparisons, each of two differences that are 0.02 apart."""
    made = Made([0.8, 0.8], [[0.81, 0.83], [0.78, 0.80], [0.84, 0.86]])
    for number in range(3):
        difference = differ(made, number)
        assert difference is not None
        assert difference.margin == pytest.approx(T95[3] * math.sqrt(0.0002 / 2))


def test_comparisons_of_more_seeds_count_for_more() -> None:
    """Variances 0.0002 of two seeds and 0.0001 of three."""
    difference = differ(Made([0.8, 0.8, 0.8], [[0.81, 0.83], [0.81, 0.82, 0.83]]), 1)
    assert difference is not None
    assert difference.margin == pytest.approx(T95[3] * math.sqrt((1 * 0.0002 + 2 * 0.0001) / 3 / 3))


def test_many_degrees_of_freedom_come_near_the_normal_distribution() -> None:
    """Student's t for 40 degrees is 2.021."""
    seeds = 41
    difference = differ(Made([0.8] * seeds, [[0.8 + 0.01 * (-1) ** seed for seed in range(seeds)]]))
    assert difference is not None
    variance = (seeds - 1 / seeds) * 0.0001 / (seeds - 1)
    assert difference.margin == pytest.approx(2.021 * math.sqrt(variance / seeds), rel=0.002)


@pytest.mark.parametrize("dense", [[0.8], [0.8, None]], ids=["one seed", "one common seed"])
@pytest.mark.parametrize("images", [None, 100])
def test_where_no_comparison_has_two_seeds_nothing_is_sure(
    dense: list[float | None], images: int | None
) -> None:
    """However many images a split has, and though the trial itself has two seeds."""
    difference = differ(Made(dense, [[0.1, 0.2]], images=images))
    assert difference is not None
    assert difference.mean == pytest.approx(-0.7)
    assert (difference.margin, difference.sure) == (math.inf, False)
    assert not any((difference.better, difference.worse, difference.within_a_point))


def test_one_common_seed_has_the_spread_of_the_study() -> None:
    """Trial 0 differs from the dense network by 0.01 and 0.03; trial 1 has no repeat."""
    difference = differ(Made([0.8, 0.8], [[0.81, 0.83], [0.7]]), 1)
    assert difference is not None
    assert difference.sure
    assert difference.mean == pytest.approx(-0.1)
    assert difference.margin == pytest.approx(T95[1] * math.sqrt(0.0002))


def test_networks_without_a_common_seed_are_not_compared() -> None:
    made = Made([0.8], [[0.7]], {("uniform", 0): [None, 0.6]}).compared()
    assert made.controls["uniform", 0].seeds == [1]
    assert made.difference(made.points[0], made.controls["uniform", 0]) is None
    assert against(made, made.controls["uniform", 0]) == "–"


def test_what_has_failed_is_left_out() -> None:
    made = Made([0.8, None, 0.82], [[0.7, 0.71, None]], {("random", 0): [None]}).compared()
    assert made.dense is not None
    assert (made.dense.seeds, made.points[0].seeds, made.controls) == ([0, 2], [0, 1], {})
    assert made.seeds == 2


def test_without_a_dense_network_points_are_still_compared_with_their_controls() -> None:
    study = Made([0.8], [[0.7, 0.72]], {("uniform", 0): [0.6, 0.64]}).study()
    object.__setattr__(study.dense, "result", None)
    compared = Comparison(study)
    assert compared.dense is None
    difference = compared.difference(compared.points[0], compared.controls["uniform", 0])
    assert difference is not None
    assert difference.margin == pytest.approx(T95[1] * math.sqrt(0.0002 / 2))


def test_a_dense_network_whose_first_seed_failed_is_not_known_by_its_repeats() -> None:
    compared = Made([None, 0.8], [[0.7, 0.72]], {("uniform", 0): [0.6, 0.64]}).compared()
    assert compared.dense is None
    assert against(compared, compared.controls["uniform", 0]).startswith("cannot be told apart: +9.0 points")
    assert compared.points[0].seeds == [0, 1]


def test_a_trial_beside_the_front_is_measured_by_its_own_seed() -> None:
    study = Made([0.8, 0.8], [[0.7, 0.72], [0.6]]).study()
    compared = Comparison(replace(study, front=[0]))
    assert compared.of_trial(study.trials[0]) is compared.points[0]
    other = compared.of_trial(study.trials[1])
    assert (other.trial, other.seeds, other.epochs) == (1, [0], 4)


def test_points_and_controls_stand_by_size() -> None:
    values = [[0.7], [0.69], [0.68]]
    made = Made([0.8], values, {("uniform", number): [0.6] for number in (1, 0, 2)}).compared()
    assert [point.trial for point in made.points] == [2, 1, 0]
    assert [one.trial for one in made.of_kind("uniform")] == [2, 1, 0]
    assert made.of_kind("random") == []


# In words


def plain(text: str) -> str:
    return text.replace("\N{NO-BREAK SPACE}", " ")


@pytest.mark.parametrize(
    ("mean", "margin", "words"),
    [
        (0.02, 0.01, "better than the dense network: +2.0 points (95 %: +1.0 to +3.0)"),
        (0.00, 0.01, "within one point of the dense network: +0.0 points (95 %: -1.0 to +1.0)"),
        (-0.005, 0.004, "within one point of the dense network: -0.5 points (95 %: -0.9 to -0.1)"),
        (0.01, 0.03, "cannot be told apart from the dense network: +1.0 points (95 %: -2.0 to +4.0)"),
        (-0.005, 0.02, "cannot be told apart from the dense network: -0.5 points (95 %: -2.5 to +1.5)"),
        (-0.03, 0.01, "worse than the dense network: -3.0 points (95 %: -4.0 to -2.0)"),
    ],
)
def test_how_a_network_stands_beside_the_dense_one(mean: float, margin: float, words: str) -> None:
    assert plain(beside_dense(Difference(mean, margin))) == words
    assert words.endswith(f": {plain(points(Difference(mean, margin)))}")


@pytest.mark.parametrize(
    ("control", "words"),
    [
        ([0.70, 0.70], "pruned is better: +10.0 points (95 %: +10.0 to +10.0)"),
        ([0.90, 0.90], "pruned is worse: -10.0 points (95 %: -10.0 to -10.0)"),
        ([0.75, 0.84], "cannot be told apart: +0.5 points (95 %: -56.7 to +57.7)"),
    ],
)
def test_how_pruning_stands_beside_a_control(control: list[float], words: str) -> None:
    """Of 0.05 and -0.04 the variance is 0.00405, which makes the margin 12.71 · √(0.00405 / 2)."""
    compared = Made([0.8, 0.8], [[0.80, 0.80]], {("uniform", 0): control}).compared()
    assert plain(against(compared, compared.controls["uniform", 0])) == words


def test_one_seed_is_told_to_be_one() -> None:
    compared = Made([0.8], [[0.8]], {("uniform", 0): [0.788]}, images=100).compared()
    assert against(compared, compared.controls["uniform", 0]) == "+1.2 points with one seed"


# Which network is recommended


def choice(made: Made) -> int | None:
    study = made.study()
    trial = recommended(study, Comparison(study))
    return None if trial is None else trial.number


def test_the_smallest_whose_mean_is_near_the_dense_networks_is_recommended() -> None:
    """Trial 2, the smallest, was lucky with the first seed; trial 1 unlucky."""
    made = Made([0.80, 0.80], [[0.80, 0.80], [0.77, 0.812], [0.80, 0.77]])
    study = made.study()
    assert best_trial(study) is study.trials[2]
    assert choice(made) == 1


def test_exactly_one_point_less_on_the_mean_is_near() -> None:
    assert choice(Made([0.87, 0.87], [[0.87, 0.87], [0.86, 0.86]])) == 1
    assert choice(Made([0.87, 0.87], [[0.87, 0.87], [0.86, 0.8598]])) == 0


def test_only_what_was_repeated_is_recommended() -> None:
    assert choice(Made([0.8, 0.8], [[0.8, 0.8], [0.8, 0.8], [0.8]])) == 1


def test_without_one_near_the_one_that_loses_least_is_recommended() -> None:
    assert choice(Made([0.9, 0.9], [[0.80, 0.80], [0.84, 0.82], [0.85, 0.70]])) == 1


def test_without_repeats_the_first_seed_decides() -> None:
    made = Made([0.80], [[0.80], [0.795], [0.7]])
    study = made.study()
    assert choice(made) == 1
    assert recommended(study, Comparison(study)) is best_trial(study)


def test_where_nothing_that_was_repeated_is_smaller_the_first_seed_decides() -> None:
    study = Made([0.8, 0.8], [[0.8, 0.8], [0.7]]).study()
    for chain in (study.trials[0].stages, study.contenders[-1].stages):
        chain[-1].metrics["params"] = 1000
    chosen = recommended(study, Comparison(study))
    assert chosen is best_trial(study) is study.trials[1]


def test_a_dense_network_without_repeats_is_not_set_against_means() -> None:
    """Trial 0 alone was repeated; trial 1 is near with the one seed that both have."""
    study = Made([0.8, None], [[0.8, 0.8], [0.795]]).study()
    chosen = recommended(study, Comparison(study))
    assert chosen is best_trial(study) is study.trials[1]


def test_without_a_dense_network_nothing_is_recommended() -> None:
    study = Made([0.8], [[0.7, 0.7]]).study()
    object.__setattr__(study.dense, "result", None)
    assert recommended(study, Comparison(study)) is None


# Which network is the smallest near the dense one


def smallest(made: Made) -> int | None:
    study = made.study()
    trial = smallest_near(study, Comparison(study))
    return None if trial is None else trial.number


def test_the_smallest_near_the_dense_network_is_found_by_the_means_of_what_was_repeated() -> None:
    assert smallest(Made([0.80, 0.80], [[0.80, 0.80], [0.77, 0.812], [0.80, 0.77]])) == 1
    assert smallest(Made([0.9, 0.9], [[0.80, 0.80], [0.90, 0.82]])) is None
    assert smallest(Made([0.8, 0.8], [[0.8, 0.8], [0.8]])) == 0


def test_without_repeats_of_both_the_first_seed_tells_the_smallest_near() -> None:
    assert smallest(Made([0.80], [[0.80], [0.795], [0.7]])) == 1
    assert smallest(Made([0.8, None], [[0.8, 0.7], [0.795]])) == 1
    assert smallest(Made([0.8, 0.8], [[0.8], [0.795]])) == 1
    assert smallest(Made([None, 0.8], [[0.8, 0.8]])) is None
