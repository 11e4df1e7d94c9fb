"""Sparse training: a penalty drives scaling factors to zero while the network trains."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from slimnet.models.catalogue import WITH_STEM
from slimnet.training.sparsity import LambdaSchedule, PenaltyName, Sparsity
from sweeps.config.sections import Model
from sweeps.stages.spec import Computed, Context
from sweeps.stages.training import TrainingSpec

if TYPE_CHECKING:
    from torch import nn


class SparseSpec(TrainingSpec):
    """Sparse training of a fresh network or, in later passes, of the one that was fine-tuned before.

    Attributes:
        model: the fresh network; None where there is a parent.
        parent: the stage whose network is trained further.
        strength: λ. What follows makes no difference where it is 0 and there is no target.
        penalty, lambda_schedule, target: as in the config.
        streams: whether the scaling factors of residual streams are penalised too.
    """

    title: ClassVar[str] = "sparse training"

    kind: Literal["sparse"] = "sparse"
    model: Model | None = None
    parent: str | None = None
    strength: float = Field(0.0, alias="lambda")
    penalty: PenaltyName = "l1"
    lambda_schedule: LambdaSchedule = "constant"
    target: float | None = None
    streams: bool = False

    def compute(self, context: Context) -> Computed | None:
        """Train, and say how the scaling factors are distributed."""

        from slimnet import steps

        trained = steps.sparse_train(
            context.network("parent") if self.parent else self._fresh(context),
            context.splits,
            self.library_recipe(),
            strength=self.strength,
            sparsity=Sparsity(self.penalty, self.lambda_schedule, self.target),
            streams=self.streams,
            **self.options(context),
        )
        return None if trained is None else Computed(trained.model, trained.metrics, trained.history)

    def _fresh(self, context: Context) -> nn.Module:
        from slimnet import steps
        from slimnet.models.families import FAMILIES

        assert self.model is not None, "a sparse stage has a model or a parent"
        shape, splits = self.model, context.splits
        stem = {"stem": shape.stem} if shape.family in WITH_STEM else {}

        def make() -> nn.Module:
            return FAMILIES[shape.family](
                shape.blocks,
                shape.width,
                num_classes=splits.num_classes,
                in_channels=splits.image_shape[0],
                **stem,
            )

        return steps.fresh(make, seed=self.seed).to(context.device)
