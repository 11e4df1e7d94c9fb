"""A curve: the accuracy of a sparse network right after pruning, over the ratio. It yields no network."""

from __future__ import annotations

from typing import ClassVar, Literal

from sweeps.config.sections import Prune
from sweeps.stages.spec import Computed, Context, Spec


class CurveSpec(Spec):
    """Pruning of a trained network at one ratio after another, in three ways.

    Attributes:
        parent: the stage whose network is pruned.
        prune: how channels are ranked, and how many batches are used for new BatchNorm statistics; its ratio
            and absorb are not used, and stay at their defaults.
        ratios: the fractions of channels removed.
        batch_size: of the batches for new statistics.
    """

    title: ClassVar[str] = "pruning at every ratio"

    kind: Literal["curve"] = "curve"
    parent: str
    prune: Prune
    ratios: tuple[float, ...]
    batch_size: int

    def compute(self, context: Context) -> Computed:
        """Prune at each ratio, and measure the accuracy."""
        from slimnet import steps

        rows = steps.prune_curve(
            context.network("parent"),
            context.splits,
            ratios=self.ratios,
            seed=self.seed,
            batch_size=self.batch_size,
            augmentation=self.data.augmentation,
            pass_number=self.pass_number,
            **self.prune.model_dump(exclude={"ratio", "params", "macs", "absorb"}),
        )
        return Computed(None, {"curve": rows}, [])
