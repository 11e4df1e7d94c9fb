"""The records of a study's stages, as their folders hold them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sweeps.records import StageRecord, TrialState
from sweeps.stages import DamagedStageError, Stage, Store


class StageRecords:
    """The record of each stage, read from its folder once, and again only with `read`.

    A stage with a damaged file counts as if its folder were empty.

    Args:
        store: the folders of all stages.
        mend: set damaged files aside, so that they are computed again; for the driver alone.

    Attributes:
        damage: a sentence on each damaged file, and what became of it.
        epochs_done: training epochs of all stages that are done and kept.
    """

    def __init__(self, store: Store, *, mend: bool) -> None:
        self.damage: list[str] = []
        self.epochs_done = 0
        self._store = store
        self._mends = mend
        self._records: dict[str, StageRecord] = {}  # by key

    def __getitem__(self, key: str) -> StageRecord:
        """The record of a stage that has been looked up."""
        return self._records[key]

    def __iter__(self) -> Iterator[StageRecord]:
        """All records."""
        return iter(self._records.values())

    def look_up(self, stage: Stage) -> StageRecord:
        """The record of a stage, read from its folder if it is not known yet."""
        if stage.key not in self._records:
            self._records[stage.key] = record = self.read(stage)
            self.epochs_done += record.epochs_done
        return self._records[stage.key]

    def read(self, stage: Stage) -> StageRecord:
        """A stage as its folder holds it now; the known record stays as it is."""
        folder = self._store.folder(stage)
        try:
            if not self._mends:
                return folder.read(stage)
            record, said = folder.mend(stage)
            self.damage += said
            return record
        except DamagedStageError as error:
            self.damage.append(str(error))
            return folder.blank(stage)

    def replace(self, record: StageRecord) -> None:
        """Replace the record of a stage that has been looked up."""
        self.epochs_done += record.epochs_done - self._records[record.key].epochs_done
        self._records[record.key] = record

    def is_ready(self, stage: Stage) -> bool:
        """Whether a stage can be computed: it has not ended, and the stages that it starts from are done."""
        waits = self._records[stage.key].state in ("missing", "partial")
        return waits and all(self._records[other.key].state == "done" for other in stage.inputs.values())

    def outcome(self, needed: Sequence[Stage | StageRecord]) -> tuple[TrialState, str | None]:
        """The state of what needs these stages, as they are now, and why it failed."""
        stages = [self._records[stage.key] for stage in needed]
        for stage in stages:
            if stage.failure:
                return "failed", f"{stage.name}: {stage.failure['reason']}"
        return ("complete" if all(stage.state == "done" for stage in stages) else "running"), None

    def size(self, stage: Stage) -> int | None:
        """The parameters of a stage's network; None until it is finished."""
        known = self._records.get(stage.key) or self.read(stage)
        return int(known.metrics["params"]) if known.result else None
