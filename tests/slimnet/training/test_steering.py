"""λ from one epoch to the next, where a fraction near zero is wanted."""

import pytest

from slimnet.training.steering import LARGEST_FALL, LARGEST_RISE, steer

REACH = 200.0


def after(*fractions: float, target: float = 0.8, strength: float = 0.02, epochs: int = 20) -> float:
    """What becomes of λ when the fraction near zero went this way."""
    history = [{"lambda": strength, "near_zero": fraction} for fraction in fractions]
    return steer(target, history, epochs, REACH) / strength


def test_the_opening_pulls_harder_for_a_larger_fraction_and_a_shorter_way() -> None:
    half, most = steer(0.5, [], 20, REACH), steer(0.9, [], 20, REACH)
    assert most == pytest.approx(5 * half)
    assert steer(0.5, [], 20, REACH / 2) == pytest.approx(2 * half)


def test_lambda_waits_for_scaling_factors_on_their_way() -> None:
    assert after(0.0, 0.0) == 1.0


def test_lambda_rises_when_behind_and_falls_beyond_the_target() -> None:
    late = [0.0] * 14
    assert after(*late, 0.7, 0.7) > 1
    assert after(*late, 0.9, 0.9) < 1
    assert after(*late, 0.8, 0.8) == 1.0
    assert after(*late[:6], 0.7, 0.7) == 1.0  # early, and no harm


def test_a_fraction_on_its_way_is_foreseen() -> None:
    assert after(*[0.0] * 14, 0.6, 0.7) < after(*[0.0] * 14, 0.7, 0.7)


def test_lambda_is_not_raised_while_the_fraction_falls() -> None:
    assert after(*[0.5] * 14, 0.4) == 1.0


def test_changes_are_limited_and_falls_may_be_larger() -> None:
    assert after(*[0.0] * 19) == LARGEST_RISE
    assert after(0.0, 1.0, target=0.1) == 1 / LARGEST_FALL
    assert LARGEST_FALL > LARGEST_RISE


def test_lambda_follows_from_the_rows_alone() -> None:
    rows = [{"lambda": 0.02, "near_zero": 0.3, "loss": 1.0}]
    assert steer(0.5, rows, 4, REACH) == steer(0.5, [dict(row) for row in rows], 4, REACH)
