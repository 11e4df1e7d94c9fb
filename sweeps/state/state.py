"""The state of a study: its trials, and the stages that they need."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sweeps.config import Config, resolve
from sweeps.contenders import chosen_points
from sweeps.pareto import Front
from sweeps.records import (
    ContenderRecord,
    Row,
    StageRecord,
    StageState,
    StudyRecord,
    TrialRecord,
    TrialState,
    best_trial,
)
from sweeps.stages import KINDS, Stage, Store, chain, dense_stage
from sweeps.stages.training import TrainingSpec
from sweeps.state.contenders import Contenders
from sweeps.state.curves import Curves
from sweeps.state.epochs import epochs_of_unsampled
from sweeps.state.latencies import Latencies
from sweeps.state.stages import StageRecords
from sweeps.state.stopping import Stopping
from sweeps.study import Point, Study, open_study
from sweeps.study.record import ENDS

MOST_MEASURED = 100  # trials; of more, those on the front, unless trials are judged by it
TRAINING_KINDS = tuple(name for name, spec in KINDS.items() if issubclass(spec, TrainingSpec))


class State:
    """The trials of a study and the stages that they need.

    Args:
        config: the study's config.
        study: its trials.
        store: the folders of all stages.
        mend: set damaged files aside, so that they are computed again; for the driver alone.
    """

    def __init__(self, config: Config, study: Study, store: Store, *, mend: bool = False) -> None:
        facts = study.facts
        self.config = config
        self.store = store
        self._study = study
        self._stages = StageRecords(store, mend=mend)
        self._latencies = Latencies(config, facts.machine, self._stages)
        self._curves = Curves(config, self._stages)
        self._contenders = Contenders(config, facts, store, self._stages, self._latencies)
        self._trials: list[TrialRecord] = []
        self._open: dict[int, tuple[Stage, ...]] = {}  # what trials need that have not ended
        self._trials_of: dict[str, list[int]] = {}  # by the key of their last stage
        self._first_sparse: dict[str, int] = {}  # first sparse stages, with the first trial of each
        self._states: Counter[TrialState] = Counter()
        self._front = Front(config.search.objectives)
        self._stopping = Stopping(config, study.ends)
        self._measures = self._latencies.are_taken
        self.dense = dense_stage(config, facts.precision, facts.data, facts.networks)
        chains = [self._chain(point) for point in study.points]
        store.prefetch([self.dense, *(stage for _, stages in chains for stage in stages)])
        self._stages.look_up(self.dense)
        self._latencies.add(self.dense)
        for point, (trial, stages) in zip(study.points, chains, strict=True):
            self._take(point, trial, stages)
        self._find_contenders()
        if not self._contenders.are_known:
            self._contenders.find_earlier([self._trials[number] for number in self._front.numbers()])

    # Trials

    def add(self, point: Point) -> TrialRecord:
        """Add the next trial."""
        trial = self._take(point, *self._chain(point))
        self._find_contenders()
        return trial

    def _chain(self, point: Point) -> tuple[Config, tuple[Stage, ...]]:
        """The config and the stages of a trial."""
        config, facts = resolve(self.config, point.params), self._study.facts
        return config, chain(config, facts.precision, facts.data, facts.networks)

    def _take(self, point: Point, config: Config, stages: tuple[Stage, ...]) -> TrialRecord:
        number = len(self._trials)
        for stage in stages:
            self._stages.look_up(stage)
        needed = (*stages, *self._latencies.add(stages[-1]))
        self._trials_of.setdefault(stages[-1].key, []).append(number)
        records = self._latencies.with_measured(stages)
        self._stopping.add(number)
        self._stopping.give_yardsticks(self._trials, self.ended_in_order())
        trial = self._judged(TrialRecord(number, point.params, config, "running", None, records), needed)
        self._trials.append(trial)
        self._states[trial.state] += 1
        if self._first_sparse.setdefault(stages[0].key, number) == number:
            self._curves.add(stages[0], point.params)
        if trial.state == "running":
            self._open[number] = needed
        else:
            self._close(trial)
        return trial

    def trial(self, number: int) -> TrialRecord:
        """A trial as it is now."""
        return self._trials[number]

    def ended_in_order(self) -> int:
        """How many trials have ended before the first that has not."""
        return min(self._open, default=self.asked)

    def count(self, state: TrialState) -> int:
        """How many trials are in this state."""
        return self._states[state]

    @property
    def asked(self) -> int:
        """How many trials there are."""
        return len(self._trials)

    def front(self, rows: int) -> tuple[list[Row], int]:
        """The first rows of the front, and how many rows it has."""
        numbers = self._front.numbers()
        return [self._trials[number].row() for number in numbers[:rows]], len(numbers)

    # Stages

    def ready(self) -> list[Stage]:
        """Stages that can be computed: the baseline first, then those for which most open trials wait.

        Of equals, what has been begun comes first, then the stages of the earlier trial. Controls and repeats
        come last. Stages that are already being computed are included.
        """
        ready = {stage.key: stage for stage in self._needed() if self._stages.is_ready(stage)}
        baseline = {stage.key for stage in self._baseline()}
        waiting = Counter(key for stages in self._open.values() for key in {stage.key for stage in stages})

        def urgency(stage: Stage) -> tuple[bool, int, bool]:
            is_begun = self._stages[stage.key].state == "partial"
            return stage.key not in baseline, -waiting[stage.key], not is_begun

        return sorted(ready.values(), key=urgency)

    def ready_curves(self) -> Iterator[Stage]:
        """The curves that can be computed; they are less urgent than all other stages."""
        return filter(self._stages.is_ready, self._curves.open.values())

    def ready_latencies(self) -> Iterator[Stage]:
        """The measurements of networks that can be taken now, once every trial has ended.

        Of a study with many trials, those of the front, of the dense network and of controls and repeats.
        """
        if not self._measures or self._open or self.asked < self.config.search.trials:
            return
        few = self.asked <= MOST_MEASURED
        numbers = range(self.asked) if few else self._front.numbers()
        keys = [self.dense.key, *(self._trials[number].stages[-1].key for number in numbers)]
        keys += [record.stages[-1].key for record in self._contenders.records]
        stages = self._latencies.stages
        yield from filter(self._stages.is_ready, (stages[key] for key in keys if key in stages))

    def leave_unmeasured(self) -> None:
        """Measure no latency in this run: it is on another machine than the study's."""
        self._measures = False

    def stage(self, key: str) -> StageRecord:
        """The record of a stage, as it was last read or advanced."""
        return self._stages[key]

    def stages(self) -> list[StageRecord]:
        """Every stage of the trials, the baseline, the curves and the contenders, once; no measurements."""
        return [stage for stage in self._stages if stage.kind != "latency"]

    def users(self, stage: Stage) -> list[TrialRecord]:
        """The trials that have not ended and need this stage."""
        return [
            self._trials[number]
            for number, stages in self._open.items()
            if any(other.key == stage.key for other in stages)
        ]

    def contenders_of(self, stage: Stage) -> list[ContenderRecord]:
        """The controls and repeats that have not ended and need this stage."""
        return self._contenders.users(stage)

    @property
    def is_idle(self) -> bool:
        """Whether no trial is left to sample and no stage to compute."""
        sampled = self.asked >= self.config.search.trials
        others = itertools.chain(self.ready_curves(), self.ready_latencies())
        return sampled and not self.ready() and next(others, None) is None

    def shown_with(self, stage: Stage) -> list[TrialRecord]:
        """The trials that a display shows with a stage: its users; of a curve, the first with its network."""
        if stage.kind == "curve":
            return [self._trials[self._first_sparse[stage.inputs["parent"].key]]]
        if stage.kind == "latency":
            return [self._trials[number] for number in self._trials_of.get(stage.inputs["parent"].key, [])]
        return self.users(stage)

    def name_beside(self, stage: Stage) -> str | None:
        """The name of the control or repeat that a stage is for; None for the dense network."""
        key = stage.inputs["parent"].key if stage.kind == "latency" else stage.key
        return self._contenders.name_with(key) if key != self.dense.key else None

    def is_needed(self, stage: Stage) -> bool:
        """Whether something that has not ended starts from a stage, or is it."""
        return any(other.key == stage.key for other in self._needed())

    def advance(self, stage: Stage, row: Mapping[str, Any]) -> list[TrialRecord]:
        """Note that a stage has finished an epoch; returns the trials that are stopped with it.

        Args:
            stage: the stage.
            row: the epoch's row of the history.
        """
        self._stopping.note_epoch(stage, row)
        record = self._stages[stage.key]
        return self._put(stage, replace(record, state="partial", epochs_done=row["epoch"]))

    def reload(self, stage: Stage) -> list[TrialRecord]:
        """Read a stage's folder again; returns the trials that have ended with it."""
        return self._put(stage, self._stages.read(stage))

    # The whole study

    def record(self) -> StudyRecord:
        """The study as it is now. Records of trials that have not changed are the same objects."""
        front = self._front.numbers()
        return StudyRecord(
            name=self.config.study,
            uid=self._study.facts.uid,
            config=self.config,
            goal=self.goal,
            dense=self._latencies.with_measured([self.dense])[0],
            trials=list(self._trials),
            front=front,
            contenders=self._contenders.complete_or_known(front),
            curves=dict(self._curves.records),
            latencies=dict(self._latencies.records),
            damage=tuple(self.damage),
        )

    def folders(self) -> set[Path]:
        """The folders of all stages that the study has, or comes back to if its front stays as it is."""
        beside = self._contenders.of([self._trials[number] for number in self._front.numbers()])
        stages = [*self._stages, *(stage for one in beside for stage in one.stages)]
        return {self.store.folder(stage).path for stage in stages}

    def to_be_computed_again(self) -> str | None:
        """Why the front may change, if results are lost: then `folders` may lack some; else None."""
        if self.damage:
            return self.damage[0]
        if not (self._study.folder / ENDS).is_file():  # an earlier version tells no ends
            return None
        lost = next((number for number in self._open if number in self._study.ends), None)
        return None if lost is None else f"trial {lost} had ended, and is to be computed again"

    @property
    def goal(self) -> int:
        """How many trials the study is to have: those of the config, or those that it has if more."""
        return max(self.config.search.trials, self.asked)

    @property
    def epochs_done(self) -> int:
        """Training epochs of all stages that are done and kept."""
        return self._stages.epochs_done

    @property
    def damage(self) -> list[str]:
        """A sentence on each damaged file of a stage, and what became of it."""
        return self._stages.damage

    def epochs_ahead(self) -> dict[str, float]:
        """At most how many training epochs are left, by kind of stage, including trials not sampled yet."""
        left = dict.fromkeys(TRAINING_KINDS, 0.0)
        for stage in {stage.key: stage for stage in self._needed()}.values():
            record = self._stages[stage.key]
            if stage.kind in left and record.state != "failed":
                left[stage.kind] += stage.epochs - record.epochs_done
        unsampled = epochs_of_unsampled(self.config, self.asked, len(self._first_sparse))
        for to_come in (self._contenders.epochs_to_come(), unsampled):
            for kind, epochs in to_come.items():
                left[kind] += epochs
        return left

    def narrow_epochs_ahead(self) -> float:
        """How many of the sparse epochs in `epochs_ahead` are of uniformly narrower networks."""
        needed = {stage.key: stage for stage in self._needed() if getattr(stage.spec, "within", None)}
        known = sum(stage.epochs - self._stages[key].epochs_done for key, stage in needed.items())
        return known + self._contenders.narrow_epochs_to_come()

    def _baseline(self) -> Iterator[Stage]:
        yield self.dense
        if self.config.judges_latency and self.dense.key in self._latencies.stages:
            yield self._latencies.stages[self.dense.key]

    def _needed(self) -> Iterator[Stage]:
        """The stages of the baseline and of all trials and contenders that have not ended, in this order."""
        yield from self._baseline()
        for stages in self._open.values():
            yield from stages
        yield from self._contenders.needed()

    def _find_contenders(self) -> None:
        """Once every trial and the baseline have ended, find the controls and repeats."""
        config = self.config
        settled = not self._open and self.asked >= config.search.trials
        if self._contenders.are_known or not settled:
            return
        if self._stages[self.dense.key].state not in ("done", "failed"):
            return
        wanted = config.controls.chosen() or config.confirm.seeds > 1
        study = self.record()
        front = sorted(
            (self._trials[number] for number in study.front if wanted), key=lambda t: int(t.metrics["params"])
        )
        self._contenders.choose(chosen_points(front, config.confirm.points, best_trial(study)))

    def _put(self, stage: Stage, record: StageRecord) -> list[TrialRecord]:
        """Replace a stage's record, here and in the trials that need it; returns those that have ended."""
        self._stages.replace(record)
        if stage.kind == "latency":
            self._latencies.replace(stage.inputs["parent"], record)
        self._curves.note(stage, record)
        ended = self._update([trial.number for trial in self.users(stage)])
        while waiting := self._stopping.give_yardsticks(self._trials, self.ended_in_order()):
            ended += self._update(waiting)
        if stage.kind == "latency":
            self._show_latency(stage.inputs["parent"])
        self._contenders.update(stage)
        self._find_contenders()
        return ended

    def _update(self, numbers: Iterable[int]) -> list[TrialRecord]:
        """Update open trials from their stages as they are now; returns those that have ended."""
        ended = []
        for number in numbers:
            before, needed = self._trials[number], self._open[number]
            now = replace(before, stages=self._latencies.with_measured(before.stages))
            self._trials[number] = trial = self._judged(now, needed)
            if trial.state != "running":
                self._states[before.state] -= 1
                self._states[trial.state] += 1
                del self._open[number]
                self._close(trial)
                ended.append(trial)
        return ended

    def _judged(self, trial: TrialRecord, needed: Sequence[Stage]) -> TrialRecord:
        """A trial with the state that follows from its stages, and from what it is judged by."""
        if stop := self._stopping.judge(trial):
            *before, last = trial.stages
            stages = (*before, last.until(stop.epoch))
            return replace(trial, state="stopped", reason=stop.reason, stages=stages, stop=stop)
        state, reason = self._stages.outcome(needed)
        if state == "complete" and self._stopping.awaits(trial.number):
            state = "running"
        return replace(trial, state=state, reason=reason)

    def _show_latency(self, last: Stage) -> None:
        """Update the trials and contenders whose network has been measured."""
        for number in self._trials_of.get(last.key, []):
            trial = self._trials[number]
            if trial.state == "stopped":
                continue
            self._trials[number] = replace(trial, stages=self._latencies.with_measured(trial.stages))
        self._contenders.show_latency(last)

    def _close(self, trial: TrialRecord) -> None:
        self._stopping.forget(trial.number)
        if trial.state == "complete" and self.config.search.allows(trial.facts()):
            self._front.add(trial.number, trial.facts())


def read_study(runs: Path, config: Config) -> StudyRecord:
    """A study as its folders hold it; changes nothing.

    Raises:
        SlimnetError: a file of the study is missing or damaged, naming it.
    """
    return State(config, open_study(runs / config.study, config), Store(runs, config.stages)).record()


def count_states(stages: list[StageRecord]) -> dict[StageState, int]:
    """How many stages are in each state."""
    found = Counter(stage.state for stage in stages)
    return {state: found[state] for state in ("done", "partial", "missing", "failed")}
