"""What can be said of sparsity, and what cannot."""

from __future__ import annotations

from typing import Any

import pytest

from slimnet import SlimnetError
from slimnet.training.sparsity import Sparsity


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"target": 0.5, "lambda_schedule": "warmup-tail"}, "leave out the schedule 'warmup-tail'"),
        ({"target": 0.0}, "target is 0.0; it is a fraction above 0 and below 1"),
        ({"target": 1}, "target is 1;"),
        ({"target": float("nan")}, "target is nan"),
        ({"penalty": "l2"}, "penalty is 'l2'; it is one of l1, proximal, polarization"),
        ({"lambda_schedule": "cosine"}, "lambda_schedule is 'cosine'; it is one of constant, warmup-tail"),
    ],
)
def test_what_cannot_be_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(SlimnetError, match=message):
        Sparsity(**wrong)


def test_a_warmup_rises_for_a_fifth_of_the_steps_and_ends_a_fifth_before_the_last() -> None:
    warmup = Sparsity(lambda_schedule="warmup-tail")
    fractions = [warmup.fraction_at(at) for at in (0, 0.1, 0.2, 0.5, 0.79, 0.8, 0.99)]
    assert fractions == pytest.approx([0, 0.5, 1, 1, 1, 0, 0])
    assert Sparsity(target=0.5).fraction_at(0.9) == 1
