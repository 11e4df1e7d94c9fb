"""Which networks of a study are measured on its machine, and what was found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from sweeps.config import MEASURED, Config
from sweeps.records import StageRecord
from sweeps.stages import Stage, latency_stage
from sweeps.state.stages import StageRecords


class Latencies:
    """The measurements of a study's networks.

    Args:
        config: the study's config.
        machine: the study's machine; "" in an older study, which measures none.
        stages: the records of its stages.

    Attributes:
        stages: the measurements, by the key of the stage that made the network.
        records: their records, by the same keys.
    """

    def __init__(self, config: Config, machine: str, stages: StageRecords) -> None:
        self.stages: dict[str, Stage] = {}
        self.records: dict[str, StageRecord] = {}
        self._machine = machine if config.latency else ""
        self._judged = config.judges_latency
        self._records = stages

    @property
    def are_taken(self) -> bool:
        """Whether the study measures its networks at all."""
        return bool(self._machine)

    def add(self, last: Stage) -> tuple[Stage, ...]:
        """Note that a network is to be measured.

        Args:
            last: the stage that makes the network.

        Returns:
            The measurement if a trial with the network has to wait for it.
        """
        if not self._machine:
            return ()
        stage = self.stages.get(last.key)
        if stage is None:
            self.stages[last.key] = stage = latency_stage(last, self._machine)
            self.records[last.key] = self._records.look_up(stage)
        return (stage,) if self._judged else ()

    def replace(self, network: Stage, record: StageRecord) -> None:
        """Replace the record of a network's measurement."""
        self.records[network.key] = record

    def with_measured(self, stages: Iterable[Stage | StageRecord]) -> tuple[StageRecord, ...]:
        """The records of stages as they are now; their metrics include what was measured."""
        return tuple(self._with_measured(self._records[stage.key]) for stage in stages)

    def _with_measured(self, record: StageRecord) -> StageRecord:
        found = self.records[record.key].metrics if record.key in self.records else {}
        if record.result is None or not found:
            return record
        metrics = {**record.metrics, **{name: found[name] for name in MEASURED}}
        return replace(record, result={**record.result, "metrics": metrics})
