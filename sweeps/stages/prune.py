"""Pruning: the channels with the lowest scores are removed, and the rest is repaired without training."""

from __future__ import annotations

from typing import ClassVar, Literal

from sweeps.config.sections import Prune
from sweeps.stages.spec import Computed, Context, Spec


class PruneSpec(Spec):
    """Pruning of a trained network.

    Attributes:
        parent: the stage whose network is pruned.
        prune: how to prune; its ratio is that of this pass.
        batch_size: of the batches for new BatchNorm statistics, if there are any.
        early: the stage whose weights are pruned instead, by the scores of the parent; None for the parent's.
        shuffled: whether random channels are kept instead, as many in each layer.
    """

    title: ClassVar[str] = "pruning"

    kind: Literal["prune"] = "prune"
    parent: str
    prune: Prune
    batch_size: int = 128
    early: str | None = None
    shuffled: bool = False

    def compute(self, context: Context) -> Computed:
        """Prune, and measure the pruned network."""
        from slimnet import steps

        pruned = steps.prune(
            context.network("parent"),
            context.splits,
            seed=self.seed,
            pass_number=self.pass_number,
            batch_size=self.batch_size,
            augmentation=self.data.augmentation,
            shuffled=self.shuffled,
            weights_of=context.network("early") if self.early else None,
            **self.prune.plan_options(),
        )
        return Computed(pruned.model, pruned.metrics, [])
