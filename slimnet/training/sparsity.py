"""Which penalty acts on the scaling factors, and when; without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from slimnet.errors import SlimnetError

PenaltyName = Literal["l1", "proximal", "polarization"]
LambdaSchedule = Literal["constant", "warmup-tail"]

WARM_UP = 0.2  # fraction of the steps in which λ rises under "warmup-tail"
TAIL = 0.2  # fraction of the steps at λ = 0 that end it


@dataclass(frozen=True)
class Sparsity:
    """How scaling factors are driven to zero.

    Attributes:
        penalty: "l1" (subgradient), "proximal" (soft threshold after the step, exact zeros) or
            "polarization" (some to zero, the others left alone).
        lambda_schedule: "constant", or "warmup-tail": λ rises for a fifth of the steps, holds, and is 0 for
            the last fifth.
        target: instead of a λ, the fraction of scaling factors that should end near zero, in (0, 1): λ is
            steered (`slimnet.training.steering`).
    """

    penalty: PenaltyName = "l1"
    lambda_schedule: LambdaSchedule = "constant"
    target: float | None = None

    def __post_init__(self) -> None:
        for name, choices in {"penalty": PenaltyName, "lambda_schedule": LambdaSchedule}.items():
            if (value := getattr(self, name)) not in get_args(choices):
                raise SlimnetError(f"{name} is {value!r}; it is one of {', '.join(get_args(choices))}")
        if self.target is not None and not 0 < self.target < 1:
            raise SlimnetError(f"target is {self.target}; it is a fraction above 0 and below 1")
        if self.target is not None and self.lambda_schedule != "constant":
            raise SlimnetError(
                f"a target steers λ by itself; leave out the schedule {self.lambda_schedule!r} of λ, or the "
                f"target"
            )

    def fraction_at(self, progress: float) -> float:
        """The fraction of λ that applies after the fraction `progress`, in [0, 1), of all steps."""
        if self.lambda_schedule == "constant":
            return 1.0
        return min(progress / WARM_UP, 1.0) if progress < 1 - TAIL else 0.0


PLAIN_L1 = Sparsity()
