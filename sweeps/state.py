"""The trials and stages of a study, kept up to date as stages are computed.

A stage's folder is read when its first trial is added, and again only on `reload`. The work for one event
does not grow with the number of trials that have ended.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from sweeps.config import Config, resolve
from sweeps.config.space import count_points
from sweeps.contenders import Contender, chosen_points, contenders, epochs_to_come, narrow_epochs_to_come
from sweeps.pareto import Front
from sweeps.records import (
    MEASURED,
    ContenderRecord,
    Row,
    StageRecord,
    StageState,
    StudyRecord,
    TrialRecord,
    TrialState,
    best_trial,
)
from sweeps.stages import (
    KINDS,
    DamagedStageError,
    Stage,
    Store,
    chain,
    curve_stage,
    dense_stage,
    latency_stage,
)
from sweeps.stages.training import TrainingSpec
from sweeps.study import Point, Study, open_study

SPARSE_FIELDS = ("data", "model", "sparse", "seed", "prune.streams")  # what the first sparse stage depends on
MOST_CURVES = 100  # per study; with a continuous λ, every trial has another sparse network
MOST_MEASURED = 100  # trials; of more, those on the front, unless trials are judged by it
TRAINING_KINDS = tuple(name for name, spec in KINDS.items() if issubclass(spec, TrainingSpec))


class State:
    """The trials of a study and the stages that they need.

    A stage with a damaged file counts as if its folder were empty.

    Args:
        config: the study's config.
        study: its trials.
        store: the folders of all stages.
        mend: set damaged files aside, so that they are computed again; for the driver alone.

    Attributes:
        damage: a sentence on each damaged file, and what became of it.
    """

    def __init__(self, config: Config, study: Study, store: Store, *, mend: bool = False) -> None:
        self.config = config
        self.store = store
        self.damage: list[str] = []
        self._mends = mend
        self._study = study
        self._stages: dict[str, StageRecord] = {}
        self._trials: list[TrialRecord] = []
        self._open: dict[int, tuple[Stage, ...]] = {}  # what trials need that have not ended
        self._latencies: dict[str, Stage] = {}  # measurements, by the key of the stage that made the network
        self._measured: dict[str, StageRecord] = {}  # records of these measurements, by the same keys
        self._trials_of: dict[str, list[int]] = {}  # by the key of their last stage
        self._unmeasured = not config.latency or not study.facts.machine
        self._states: Counter[TrialState] = Counter()
        self._first_sparse: dict[str, int] = {}  # first sparse stages, with the first trial of each
        self._curves: dict[str, StageRecord] = {}  # by the key of the sparse stage
        self._open_curves: dict[str, Stage] = {}
        self._front = Front(config.search.objectives)
        self._epochs_done = 0
        self._points: list[TrialRecord] | None = None  # with controls and repeats; once the goal is reached
        self._contenders: list[Contender] = []
        self._contender_records: list[ContenderRecord] = []
        self._earlier: list[ContenderRecord] = []  # from a lower goal
        facts = study.facts
        self.dense = dense_stage(config, facts.precision, facts.data, facts.networks)
        self._look_up(self.dense)
        self._measure(self.dense)
        for point in study.points:
            self._take(point)
        self._find_contenders()
        if self._points is None:
            self._earlier = self._earlier_contenders()

    # Trials

    def add(self, point: Point) -> TrialRecord:
        """Add the next trial."""
        trial = self._take(point)
        self._find_contenders()
        return trial

    def _take(self, point: Point) -> TrialRecord:
        number = len(self._trials)
        config = resolve(self.config, point.params)
        facts = self._study.facts
        stages = chain(config, facts.precision, facts.data, facts.networks)
        for stage in stages:
            self._look_up(stage)
        needed = (*stages, *self._measure(stages[-1]))
        self._trials_of.setdefault(stages[-1].key, []).append(number)
        trial = TrialRecord(number, point.params, config, *self._outcome(needed), self._records(stages))
        self._trials.append(trial)
        self._states[trial.state] += 1
        first = self._first_sparse.setdefault(stages[0].key, number) == number
        if first and self.config.curves and len(self._first_sparse) <= MOST_CURVES:
            self._add_curve(stages[0], point)
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
        """Stages that can be computed: the baseline first, then in the order of their trials.

        Controls and repeats come last. Stages that are already being computed are included.
        """
        ready = {stage.key: stage for stage in self._needed() if self._is_ready(stage)}
        return list(ready.values())

    def ready_curves(self) -> Iterator[Stage]:
        """The curves that can be computed; they are less urgent than all other stages."""
        return filter(self._is_ready, self._open_curves.values())

    def ready_latencies(self) -> Iterator[Stage]:
        """The measurements of networks that can be taken now, once every trial has ended.

        Of a study with many trials, those of the front, of the dense network and of controls and repeats.
        """
        if self._unmeasured or self._open or self.asked < self.config.search.trials:
            return
        few = self.asked <= MOST_MEASURED
        numbers = range(self.asked) if few else self._front.numbers()
        keys = [self.dense.key, *(self._trials[number].stages[-1].key for number in numbers)]
        keys += [record.stages[-1].key for record in self._contender_records]
        yield from filter(self._is_ready, (self._latencies[key] for key in keys if key in self._latencies))

    def leave_unmeasured(self) -> None:
        """Measure no latency in this run: it is on another machine than the study's."""
        self._unmeasured = True

    def stage(self, key: str) -> StageRecord:
        """The record of a stage, as it was last read or advanced."""
        return self._stages[key]

    def stages(self) -> list[StageRecord]:
        """Every stage of the trials, the baseline, the curves and the contenders, once; no measurements."""
        return [stage for stage in self._stages.values() if stage.kind != "latency"]

    def users(self, stage: Stage) -> list[TrialRecord]:
        """The trials that have not ended and need this stage."""
        return [
            self._trials[number]
            for number, stages in self._open.items()
            if any(other.key == stage.key for other in stages)
        ]

    def contenders_of(self, stage: Stage) -> list[ContenderRecord]:
        """The controls and repeats that have not ended and need this stage."""
        return [
            record
            for record in self._contender_records
            if record.state == "running" and any(other.key == stage.key for other in record.stages)
        ]

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
        records = self._contender_records if key != self.dense.key else []
        return next((one.name for one in records if any(s.key == key for s in one.stages)), None)

    def is_needed(self, stage: Stage) -> bool:
        """Whether something that has not ended starts from a stage, or is it."""
        return any(other.key == stage.key for other in self._needed())

    def advance(self, stage: Stage, epochs_done: int) -> None:
        """Note that a stage has finished an epoch."""
        record = self._stages[stage.key]
        self._put(stage, replace(record, state="partial", epochs_done=epochs_done))

    def reload(self, stage: Stage) -> list[TrialRecord]:
        """Read a stage's folder again; returns the trials that have ended with it."""
        return self._put(stage, self._read(stage))

    # The whole study

    def record(self) -> StudyRecord:
        """The study as it is now. Records of trials that have not changed are the same objects."""
        return StudyRecord(
            name=self.config.study,
            uid=self._study.facts.uid,
            config=self.config,
            goal=self.goal,
            dense=self._record(self.dense.key),
            trials=list(self._trials),
            front=self._front.numbers(),
            contenders=self._known_contenders(),
            curves=dict(self._curves),
            latencies=dict(self._measured),
            damage=tuple(self.damage),
        )

    @property
    def goal(self) -> int:
        """How many trials the study is to have: those of the config, or those that it has if more."""
        return max(self.config.search.trials, self.asked)

    @property
    def epochs_done(self) -> int:
        """Training epochs of all stages that are done and kept."""
        return self._epochs_done

    def epochs_ahead(self) -> dict[str, float]:
        """At most how many training epochs are left, by kind of stage, including trials not sampled yet."""
        left = dict.fromkeys(TRAINING_KINDS, 0.0)
        for stage in {stage.key: stage for stage in self._needed()}.values():
            record = self._stages[stage.key]
            if stage.kind in left and record.state != "failed":
                left[stage.kind] += stage.epochs - record.epochs_done
        if self._points is None:
            for kind, epochs in epochs_to_come(self.config).items():
                left[kind] += epochs
        left["sparse"] += self._epochs_of_unsized()
        config, unasked = self.config, max(0, self.config.search.trials - self.asked)
        fresh = min(unasked, _sparse_points(config) - len(self._first_sparse))
        trainings = fresh + unasked * (config.passes - 1)
        left["sparse"] += trainings * config.sparse.epochs
        left["early"] += trainings * config.finetune.rewind_to * config.rewinds
        left["finetune"] += unasked * config.passes * config.finetune.epochs
        return left

    def narrow_epochs_ahead(self) -> float:
        """How many of the sparse epochs in `epochs_ahead` are of uniformly narrower networks."""
        needed = {stage.key: stage for stage in self._needed() if getattr(stage.spec, "within", None)}
        known = sum(stage.epochs - self._stages[key].epochs_done for key, stage in needed.items())
        to_come = narrow_epochs_to_come(self.config) if self._points is None else 0.0
        return known + to_come + self._epochs_of_unsized()

    def _needed(self) -> Iterator[Stage]:
        """The stages of the baseline and of all trials and contenders that have not ended, by priority."""
        yield self.dense
        if self.config.judges_latency and self.dense.key in self._latencies:
            yield self._latencies[self.dense.key]
        for stages in self._open.values():
            yield from stages
        for contender, record in zip(self._contenders, self._contender_records, strict=True):
            if record.state == "running":
                yield from contender.stages

    def _find_contenders(self) -> None:
        """Once every trial and the baseline have ended, find the controls and repeats."""
        config = self.config
        settled = not self._open and self.asked >= config.search.trials
        if self._points is not None or not settled:
            return
        if self._stages[self.dense.key].state not in ("done", "failed"):
            return
        wanted = config.controls.chosen() or config.confirm.seeds > 1
        study = self.record()
        front = sorted(
            (self._trials[number] for number in study.front if wanted), key=lambda t: int(t.metrics["params"])
        )
        self._points = chosen_points(front, config.confirm.points, best_trial(study))
        self._list_contenders()

    def _list_contenders(self) -> None:
        """List the controls and repeats of the points that are known; again when a repeat has its network."""
        known = {(one.kind, one.trial, one.seed): one for one in self._contender_records}
        self._contenders = self._contenders_of(self._points or [])
        self._contender_records = [
            known.get((one.kind, one.trial, one.seed)) or self._contender_record(one)
            for one in self._contenders
        ]

    def _contenders_of(self, points: Sequence[TrialRecord]) -> list[Contender]:
        facts = self._study.facts
        made = contenders(self.config, points, facts.precision, facts.data, facts.networks, self._size)
        return list(made)

    def _contender_record(self, one: Contender) -> ContenderRecord:
        for stage in one.stages:
            self._look_up(stage)
        self._measure(one.stages[-1])
        return ContenderRecord(
            one.kind, one.trial, one.seed, *self._outcome(one.stages), self._records(one.stages)
        )

    def _size(self, stage: Stage) -> int | None:
        """The parameters of a stage's network; None until it is finished."""
        known = self._stages.get(stage.key) or self._read(stage)
        return int(known.metrics["params"]) if known.result else None

    def _epochs_of_unsized(self) -> float:
        """The epochs of uniform controls that wait for the size of a repeat."""
        waiting = [one for one in self._contender_records if (one.kind, one.state) == ("trial", "running")]
        trials = [self._trials[one.trial] for one in waiting if one.trial is not None]
        return float(self.config.controls.uniform * sum(trial.config.trial_epochs for trial in trials))

    def _earlier_contenders(self) -> list[ContenderRecord]:
        """The complete controls and repeats of points of the front, while trials are open."""
        made = self._contenders_of([self._trials[number] for number in self._front.numbers()])
        return [
            self._contender_record(one) for one in made if self.store.folder(one.stages[-1]).state() == "done"
        ]

    def _known_contenders(self) -> list[ContenderRecord]:
        """The controls and repeats; those from a lower goal only while their trial is on the front."""
        if self._points is not None:
            return list(self._contender_records)
        front = {None, *self._front.numbers()}
        return [one for one in self._earlier if one.trial in front]

    def _add_curve(self, sparse: Stage, point: Point) -> None:
        """Add the curve of a sparse stage, with the searched values that all trials with that stage share."""
        own = {path: value for path, value in point.params.items() if _is_of_sparse(path)}
        curve = curve_stage(sparse, resolve(self.config, own))
        self._open_curves[curve.key] = curve
        self._note_curve(curve, self._look_up(curve))
        self._note_curve(sparse, self._stages[sparse.key])

    def _note_curve(self, stage: Stage, record: StageRecord) -> None:
        """Update the curves from the record of a stage."""
        if stage.kind == "curve":
            self._curves[stage.inputs["parent"].key] = record
            if record.state in ("done", "failed"):
                self._open_curves.pop(stage.key, None)
        elif record.state == "failed":
            self._curves.pop(stage.key, None)  # its network will not exist

    def _look_up(self, stage: Stage) -> StageRecord:
        """The record of a stage, read from its folder if it is not known yet."""
        if stage.key not in self._stages:
            self._stages[stage.key] = record = self._read(stage)
            self._epochs_done += record.epochs_done
        return self._stages[stage.key]

    def _read(self, stage: Stage) -> StageRecord:
        """A stage as its folder holds it now."""
        folder = self.store.folder(stage)
        if self._mends:
            self.damage += folder.mend(stage)
        try:
            return folder.read(stage)
        except DamagedStageError as error:
            self.damage.append(str(error))
            return folder.blank(stage)

    def _is_ready(self, stage: Stage) -> bool:
        waits = self._stages[stage.key].state in ("missing", "partial")
        return waits and all(self._stages[other.key].state == "done" for other in stage.inputs.values())

    def _put(self, stage: Stage, record: StageRecord) -> list[TrialRecord]:
        """Replace a stage's record, here and in the trials that need it; returns those that have ended."""
        self._epochs_done += record.epochs_done - self._stages[stage.key].epochs_done
        self._stages[stage.key] = record
        if stage.kind == "latency":
            self._measured[stage.inputs["parent"].key] = record
        self._note_curve(stage, record)
        ended, is_sized = [], False
        for before in self.users(stage):
            needed = self._open[before.number]
            state, reason = self._outcome(needed)
            trial = replace(before, state=state, reason=reason, stages=self._again(before.stages))
            self._trials[trial.number] = trial
            if state != "running":
                self._states[before.state] -= 1
                self._states[state] += 1
                del self._open[trial.number]
                self._close(trial)
                ended.append(trial)
        if stage.kind == "latency":
            self._show_latency(stage.inputs["parent"])
        for place, contender in enumerate(self._contender_records):
            if any(other.key == stage.key for other in contender.stages):
                state, reason = self._outcome(contender.stages)
                self._contender_records[place] = replace(
                    contender, state=state, reason=reason, stages=self._again(contender.stages)
                )
                is_sized = is_sized or (contender.kind == "trial" and state == "complete")
        if is_sized:
            self._list_contenders()
        self._find_contenders()
        return ended

    # Latency

    def _measure(self, last: Stage) -> tuple[Stage, ...]:
        """Note that a network is to be measured; returns the stage if a trial with it has to wait for it."""
        machine = self._study.facts.machine
        if not (self.config.latency and machine):
            return ()
        stage = self._latencies.get(last.key)
        if stage is None:
            self._latencies[last.key] = stage = latency_stage(last, machine)
            self._measured[last.key] = self._look_up(stage)
        return (stage,) if self.config.judges_latency else ()

    def _record(self, key: str) -> StageRecord:
        """A stage's record, with what was measured of its network among the metrics."""
        record = self._stages[key]
        found = self._measured[key].metrics if key in self._measured else {}
        if record.result is None or not found:
            return record
        metrics = {**record.metrics, **{name: found[name] for name in MEASURED}}
        return replace(record, result={**record.result, "metrics": metrics})

    def _records(self, stages: Sequence[Stage]) -> tuple[StageRecord, ...]:
        return tuple(self._record(stage.key) for stage in stages)

    def _again(self, before: Sequence[StageRecord]) -> tuple[StageRecord, ...]:
        """The records of the same stages as they are now."""
        return tuple(self._record(record.key) for record in before)

    def _outcome(self, needed: Sequence[Stage | StageRecord]) -> tuple[TrialState, str | None]:
        """The state of what needs these stages, as they are now, and why it failed."""
        stages = [self._stages[stage.key] for stage in needed]
        for stage in stages:
            if stage.failure:
                return "failed", f"{stage.name}: {stage.failure['reason']}"
        return ("complete" if all(stage.state == "done" for stage in stages) else "running"), None

    def _show_latency(self, last: Stage) -> None:
        """Update the trials and contenders whose network has been measured."""
        for number in self._trials_of.get(last.key, []):
            trial = self._trials[number]
            self._trials[number] = replace(trial, stages=self._again(trial.stages))
        for place, contender in enumerate(self._contender_records):
            if contender.stages[-1].key == last.key:
                self._contender_records[place] = replace(contender, stages=self._again(contender.stages))

    def _close(self, trial: TrialRecord) -> None:
        if trial.state == "complete" and self.config.search.allows(trial.facts()):
            self._front.add(trial.number, trial.facts())


def read_study(runs: Path, config: Config) -> StudyRecord:
    """A study as its folders hold it; changes nothing.

    Raises:
        SlimnetError: a file of the study is missing or damaged, naming it.
    """
    return State(config, open_study(runs / config.study, config), Store(runs)).record()


def count_states(stages: list[StageRecord]) -> dict[StageState, int]:
    """How many stages are in each state."""
    found = Counter(stage.state for stage in stages)
    return {state: found[state] for state in ("done", "partial", "missing", "failed")}


def _sparse_points(config: Config) -> float:
    """How many different first sparse stages the space has; infinite if it is continuous."""
    entries = {path: entry for path, entry in config.search.space.items() if _is_of_sparse(path)}
    return count_points(entries) or float("inf") if entries else 1


def _is_of_sparse(path: str) -> bool:
    """Whether the first sparse stage depends on a field."""
    return path in SPARSE_FIELDS or path.split(".")[0] in SPARSE_FIELDS
