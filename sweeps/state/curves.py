"""The curves of a study: accuracy right after pruning over the ratio."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sweeps.config import Config, resolve
from sweeps.records import StageRecord
from sweeps.stages import Stage, curve_stage
from sweeps.state.epochs import is_of_sparse
from sweeps.state.stages import StageRecords

MOST_CURVES = 100  # per study; with a continuous λ, every trial has another sparse network


class Curves:
    """The curves of a study's sparse networks, of the first so many.

    Args:
        config: the study's config.
        stages: the records of its stages.

    Attributes:
        records: by the key of the sparse stage; without those of failed sparse stages.
        open: those that have not ended, by their own key.
    """

    def __init__(self, config: Config, stages: StageRecords) -> None:
        self.records: dict[str, StageRecord] = {}
        self.open: dict[str, Stage] = {}
        self._config = config
        self._left = MOST_CURVES * config.curves
        self._stages = stages

    def add(self, sparse: Stage, params: Mapping[str, Any]) -> None:
        """Add the curve of a sparse stage that no earlier trial had, unless the study has enough of them.

        Args:
            sparse: the first sparse stage of a trial.
            params: the values of the trial, of which those are taken that all trials with that stage share.
        """
        if not self._left:
            return
        self._left -= 1
        own = {path: value for path, value in params.items() if is_of_sparse(path)}
        curve = curve_stage(sparse, resolve(self._config, own))
        self.open[curve.key] = curve
        self.note(curve, self._stages.look_up(curve))
        self.note(sparse, self._stages[sparse.key])

    def note(self, stage: Stage, record: StageRecord) -> None:
        """Note the record of any stage of the study: that of a curve, or of a network that a curve is of."""
        if stage.kind == "curve":
            self.records[stage.inputs["parent"].key] = record
            if record.state in ("done", "failed"):
                self.open.pop(stage.key, None)
        elif record.state == "failed":
            self.records.pop(stage.key, None)  # its network will not exist
