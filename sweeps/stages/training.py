"""What the stages that train have in common."""

from __future__ import annotations

from typing import Any

from slimnet.precision import Precision
from slimnet.training.recipe import Recipe as LibraryRecipe
from sweeps.config.sections import Recipe
from sweeps.stages.spec import Context, Spec


class TrainingSpec(Spec):
    """A stage that trains.

    Attributes:
        recipe: how it trains, without the augmentation, which is in `data`.
        precision: of convolutions and matrix products.
        compile: whether torch.compile is used.
    """

    recipe: Recipe
    precision: Precision
    compile: bool = False

    @property
    def epochs(self) -> int:
        """Training epochs in the stage."""
        return self.recipe.epochs

    def library_recipe(self, **more: Any) -> LibraryRecipe:
        """The recipe as `slimnet` takes it."""
        return LibraryRecipe(**self.recipe.model_dump(), augmentation=self.data.augmentation, **more)

    def options(self, context: Context) -> dict[str, Any]:
        """The arguments of `slimnet.steps` that are the same for all stages that train."""
        return {
            "seed": self.seed,
            "precision": self.precision,
            "compiled": self.compile,
            "pass_number": self.pass_number,
            "checkpoint": context.checkpoint,
            "before_save": context.before_save,
            "on_resume": context.on_resume,
            "on_epoch": context.on_epoch,
            "on_step": context.on_step,
            "on_warning": context.on_warning,
            "stop": context.stop,
        }
