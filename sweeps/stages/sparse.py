"""Sparse training: a penalty drives scaling factors to zero while the network trains."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from slimnet.errors import SlimnetError
from slimnet.training.recipe import Weights
from slimnet.training.sparsity import LambdaSchedule, PenaltyName, Sparsity
from sweeps.stages.spec import Computed, Context, ModelSpec
from sweeps.stages.training import TrainingSpec

if TYPE_CHECKING:
    from torch import nn


class SparseSpec(TrainingSpec):
    """Sparse training of a fresh network or, in later passes, of the one that was fine-tuned before.

    Attributes:
        model: the network to begin with, whose weights are new or those of `model.weights`; None if there
            is a parent.
        parent: the stage whose network is trained further; None for a fresh network.
        strength: λ. If it is 0 and there is no target, penalty, lambda_schedule and streams have no effect.
        penalty, lambda_schedule, target: as in the config.
        streams: whether the scaling factors of residual streams are penalised too.
        within: the parameters to which the network is narrowed uniformly first; None leaves it as it is.
    """

    title: ClassVar[str] = "sparse training"

    kind: Literal["sparse"] = "sparse"
    model: ModelSpec | None = None
    parent: str | None = None
    strength: float = Field(0.0, alias="lambda")
    penalty: PenaltyName = "l1"
    lambda_schedule: LambdaSchedule = "constant"
    target: float | None = None
    streams: bool = False
    within: int | None = None

    def compute(self, context: Context) -> Computed | None:
        """Train, and measure accuracy and the distribution of the scaling factors."""
        return self._train(context)

    def _train(self, context: Context, until: int | None = None) -> Computed | None:
        from slimnet import steps

        trained = steps.sparse_train(
            context.network("parent") if self.parent else self._fresh(context),
            context.splits,
            self.library_recipe(),
            strength=self.strength,
            sparsity=Sparsity(self.penalty, self.lambda_schedule, self.target),
            streams=self.streams,
            until=until,
            **self.options(context),
        )
        return None if trained is None else Computed(trained.model, trained.metrics, trained.history)

    def _fresh(self, context: Context) -> nn.Module:
        from slimnet import steps
        from slimnet.networks import new_network, structure

        assert self.model is not None, "a sparse stage has a model or a parent"
        splits, trained = context.splits, self.model.weights is not None
        network = new_network(
            self.model.description(),
            splits.image_shape,
            splits.num_classes,
            seed=self.seed,
            folder=context.folder,
            init=context.init if trained else None,
        )
        if self.model.structure not in (None, structure(network)):
            raise SlimnetError(
                f"{self.model.label} makes another network than when the study began; undo that, or give the "
                "study another name"
            )
        if self.within is not None:
            weights: Weights = "pruned" if trained else "fresh"
            network = steps.narrow(network, splits, params=self.within, seed=self.seed, weights=weights)
        return network.to(context.device)


class EarlySpec(SparseSpec):
    """The first epochs of a sparse stage, repeated for the weights at their end.

    Attributes:
        until: the last epoch that is trained.
    """

    title: ClassVar[str] = "early epochs"

    kind: Literal["early"] = "early"  # type: ignore[assignment]
    until: int

    @property
    def epochs(self) -> int:
        """The epochs that are trained; the schedule is that of all epochs."""
        return self.until

    def compute(self, context: Context) -> Computed | None:
        """Train as the sparse stage does, and stop early."""
        return self._train(context, self.until)
