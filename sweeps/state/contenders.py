"""The controls and repeats of a study, and how far they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from sweeps.config import Config
from sweeps.contenders import Contender, contenders, epochs_to_come, narrow_epochs_to_come
from sweeps.records import ContenderRecord, TrialRecord
from sweeps.stages import Stage, Store
from sweeps.state.latencies import Latencies
from sweeps.state.stages import StageRecords
from sweeps.study import Facts


class Contenders:
    """The controls and repeats of points of the front, which are known once the goal is reached.

    Args:
        config: the study's config.
        facts: what was fixed when the study began.
        store: the folders of all stages.
        stages: the records of the study's stages.
        latencies: the measurements of its networks.

    Attributes:
        records: those that are known.
    """

    def __init__(
        self, config: Config, facts: Facts, store: Store, stages: StageRecords, latencies: Latencies
    ) -> None:
        self.records: list[ContenderRecord] = []
        self._config = config
        self._facts = facts
        self._store = store
        self._stages = stages
        self._latencies = latencies
        self._points: list[TrialRecord] | None = None
        self._listed: list[Contender] = []  # in the order of their records
        self._earlier: list[ContenderRecord] = []

    @property
    def are_known(self) -> bool:
        """Whether the points are chosen that have controls and repeats."""
        return self._points is not None

    def choose(self, points: list[TrialRecord]) -> None:
        """Find the controls and repeats of the points that are to have some."""
        self._points = points
        self._list()

    def find_earlier(self, front: Sequence[TrialRecord]) -> None:
        """Find the complete ones from a time when the goal was lower, while trials are open."""
        made = self.of(front)
        self._earlier = [
            self._record(one) for one in made if self._store.folder(one.stages[-1]).state() == "done"
        ]

    def complete_or_known(self, front: Sequence[int]) -> list[ContenderRecord]:
        """The controls and repeats; those from a lower goal only while their trial is on the front."""
        if self.are_known:
            return list(self.records)
        shown = {None, *front}
        return [one for one in self._earlier if one.trial in shown]

    def needed(self) -> Iterator[Stage]:
        """The stages of those that have not ended."""
        for contender, record in zip(self._listed, self.records, strict=True):
            if record.state == "running":
                yield from contender.stages

    def of(self, points: Sequence[TrialRecord]) -> list[Contender]:
        """Those that some points have or would have."""
        facts = self._facts
        made = contenders(
            self._config, points, facts.precision, facts.data, facts.networks, self._stages.size
        )
        return list(made)

    def users(self, stage: Stage) -> list[ContenderRecord]:
        """Those that have not ended and need a stage."""
        return [
            record
            for record in self.records
            if record.state == "running" and any(other.key == stage.key for other in record.stages)
        ]

    def name_with(self, key: str) -> str | None:
        """The name of the first that has the stage of this key."""
        return next((one.name for one in self.records if any(s.key == key for s in one.stages)), None)

    def update(self, stage: Stage) -> None:
        """Update those that have a stage whose record has changed."""
        is_sized = False
        for place, contender in enumerate(self.records):
            if any(other.key == stage.key for other in contender.stages):
                state, reason = self._stages.outcome(contender.stages)
                self.records[place] = replace(
                    contender,
                    state=state,
                    reason=reason,
                    stages=self._latencies.with_measured(contender.stages),
                )
                is_sized = is_sized or (contender.kind == "trial" and state == "complete")
        if is_sized:
            self._list()

    def show_latency(self, last: Stage) -> None:
        """Update those whose network has been measured."""
        for place, contender in enumerate(self.records):
            if contender.stages[-1].key == last.key:
                self.records[place] = replace(
                    contender, stages=self._latencies.with_measured(contender.stages)
                )

    def epochs_to_come(self) -> dict[str, float]:
        """At most how many training epochs those need that are not known yet, by kind of stage."""
        left = {} if self.are_known else epochs_to_come(self._config)
        return {**left, "sparse": left.get("sparse", 0.0) + self._epochs_of_unsized()}

    def narrow_epochs_to_come(self) -> float:
        """How many of these sparse epochs are of uniformly narrower networks."""
        return (0.0 if self.are_known else narrow_epochs_to_come(self._config)) + self._epochs_of_unsized()

    def _list(self) -> None:
        """List those of the points that are known; again when a repeat has its network."""
        known = {(one.kind, one.trial, one.seed): one for one in self.records}
        self._listed = self.of(self._points or [])
        self.records = [
            known.get((one.kind, one.trial, one.seed)) or self._record(one) for one in self._listed
        ]

    def _record(self, one: Contender) -> ContenderRecord:
        for stage in one.stages:
            self._stages.look_up(stage)
        self._latencies.add(one.stages[-1])
        state, reason = self._stages.outcome(one.stages)
        stages = self._latencies.with_measured(one.stages)
        return ContenderRecord(one.kind, one.trial, one.seed, state, reason, stages)

    def _epochs_of_unsized(self) -> float:
        """The epochs of uniform controls that wait for the size of a repeat."""
        points = {trial.number: trial for trial in self._points or []}
        waiting = [one for one in self.records if (one.kind, one.state) == ("trial", "running")]
        trials = [points[one.trial] for one in waiting if one.trial is not None]
        return float(self._config.controls.uniform * sum(trial.config.trial_epochs for trial in trials))
