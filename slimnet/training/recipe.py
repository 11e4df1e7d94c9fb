"""How a network is trained: optimiser, learning rate, augmentation; without torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from slimnet.data.augmentation import NONE, Augmentation
from slimnet.errors import SlimnetError

Optimizer = Literal["sgd", "adam", "adamw"]
Weights = Literal["pruned", "fresh"]
"""What the training of a pruned network starts from."""
Schedule = Literal["one-cycle", "cosine", "steps", "constant", "rewind"]

WARM_UP = 0.25  # fraction of a one-cycle schedule in which the learning rate rises


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes:
        epochs: passes over the training images.
        lr: the highest learning rate.
        batch_size: images per step.
        optimizer: "sgd" (Nesterov), "adam" or "adamw".
        momentum: of SGD.
        weight_decay: on conv and linear weights only, never on γ, β or biases.
        schedule: "one-cycle" (linear up for a quarter, linear down to 0), "cosine" (to 0), "steps" (a tenth
            after half and again after three quarters), "constant", or "rewind" (a one-cycle from its peak on,
            linear to 0: with the same lr, learning-rate rewinding after a one-cycle; Renda et al., 2020,
            arXiv 2003.02389).
        augmentation: how training images are changed at random.
        distill: the weight, from 0 to 1, of matching a teacher's outputs; the labels have the rest.
        temperature: that softens both outputs for it.
        evaluate_every: epochs from one measurement of validation and test accuracy to the next; the last
            epoch is measured always.
    """

    epochs: int
    lr: float
    batch_size: int = 128
    optimizer: Optimizer = "sgd"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: Schedule = "one-cycle"
    augmentation: Augmentation = NONE
    distill: float = 0.0
    temperature: float = 4.0
    evaluate_every: int = 1

    def __post_init__(self) -> None:
        if self.evaluate_every < 1:
            raise SlimnetError(
                f"evaluate_every is {self.evaluate_every}; 1 measures every epoch, 2 every second"
            )

    @property
    def gain(self) -> float:
        """What a constant gradient is multiplied by in the long run: 1 / (1 - momentum) under SGD, else 1."""
        return 1 / (1 - self.momentum) if self.optimizer == "sgd" else 1.0

    def lr_at(self, progress: float) -> float:
        """The learning rate after the fraction `progress`, in [0, 1), of all steps."""
        match self.schedule:
            case "one-cycle":
                return self.lr * min(max(progress, 0.01) / WARM_UP, (1 - progress) / (1 - WARM_UP))
            case "cosine":
                return self.lr * 0.5 * (1 + math.cos(math.pi * progress))
            case "steps":
                return self.lr * (1.0 if progress < 0.5 else 0.1 if progress < 0.75 else 0.01)
            case "rewind":
                return self.lr * (1 - progress)
        return self.lr

    def measures(self, epoch: int) -> bool:
        """Whether validation and test accuracy are measured after `epoch`, from 1."""
        return epoch % self.evaluate_every == 0 or epoch == self.epochs

    def reach(self, steps: int) -> float:
        """How far λ = 1 would move a scaling factor in a training of so many steps."""
        return self.gain * sum(self.lr_at(step / steps) for step in range(steps))
