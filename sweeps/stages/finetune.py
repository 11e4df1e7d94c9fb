"""Fine-tuning: the pruned network is trained without a penalty."""

from __future__ import annotations

from typing import ClassVar, Literal

from slimnet.training.recipe import Weights
from sweeps.stages.spec import Computed, Context
from sweeps.stages.training import TrainingSpec


class FinetuneSpec(TrainingSpec):
    """Training of a pruned network.

    Attributes:
        parent: the stage whose network is trained.
        weights: "pruned" starts from the parent's weights, "fresh" from new ones at its widths.
        teacher: the stage whose network is the teacher of distillation; None without distillation.
        distill, temperature: as in the config, if there is a teacher.
    """

    title: ClassVar[str] = "fine-tuning"

    kind: Literal["finetune"] = "finetune"
    parent: str
    weights: Weights = "pruned"
    teacher: str | None = None
    distill: float = 0.0
    temperature: float = 4.0

    def compute(self, context: Context) -> Computed | None:
        """Train."""
        from slimnet import steps

        trained = steps.finetune(
            context.network("parent"),
            context.splits,
            self.library_recipe(distill=self.distill, temperature=self.temperature),
            weights=self.weights,
            teacher=context.network("teacher") if self.teacher else None,
            **self.options(context),
        )
        return None if trained is None else Computed(trained.model, trained.metrics, trained.history)
