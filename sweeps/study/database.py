"""The Optuna study of a sweep, for optuna-dashboard and other uses of Optuna.

It is a copy of the study's record: a sweep never relies on it, and if it is lost or differs from the record
it is made again.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import RandomSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from slimnet.wording import plural
from sweeps.config import Config
from sweeps.study.optuna_space import OptunaSpace
from sweeps.study.record import Point
from sweeps.study.storage.base import Storage, UnfitError, cause

FACTS = ("uid", "precision", "data", "networks", "machine")
REASON = "reason"  # the note on a trial of why it failed or was stopped
FORMAT = 2  # of the trials: which attributes they have, and which values are drawn by their rank
STATES: dict[TrialState, Literal["running", "complete", "stopped", "failed"]] = {
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "stopped",
    TrialState.FAIL: "failed",
}


@dataclass(frozen=True)
class Entry:
    """A trial as the database should hold it.

    Attributes:
        number: from 0.
        point: where it is.
        values: in the order of the objectives; None unless it is complete.
        state: how far it is.
        violations: how far a complete trial is off each constraint, 0 or less where it is met.
        notes: what else a person may want to see of it, as user attributes; some only once it has ended.
    """

    number: int
    point: Point
    values: tuple[float, ...] | None
    state: Literal["running", "complete", "stopped", "failed"]
    violations: Mapping[str, float] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)


class _RetriedError(UnfitError):
    """Trials that have failed, which Optuna keeps for good, are tried again; all else is in the record."""


class Database:
    """The Optuna study in a storage. Only the driver that holds the study's lock may write it.

    Attributes:
        replaced: a sentence for the user if `open` has set a study aside; else None.
    """

    def __init__(self, storage: Storage, config: Config, backend: BaseStorage, name: str) -> None:
        """Load an existing study; use `open` instead.

        Args:
            storage: keeps it.
            config: its config.
            backend: what Optuna knows of the storage.
            name: of the study there.
        """
        self.replaced: str | None = None
        self._storage = storage
        self._space = OptunaSpace(config.search.space)
        self._objectives = config.search.objectives
        self._backend = backend
        self._study = optuna.load_study(study_name=name, storage=backend, sampler=RandomSampler())
        self._study_id = backend.get_study_id_from_name(name)
        self._ids: dict[int, int] = {}  # of running trials added by this object, by number
        self._noted: dict[int, set[str]] = {}  # what has been noted on them
        self._count = 0  # of trials in the storage

    @classmethod
    def open(
        cls, storage: Storage, config: Config, facts: Mapping[str, Any], entries: Sequence[Entry]
    ) -> Database:
        """Open the study and update it to the record, or make it.

        A study that cannot be updated (damaged, another one or of another schema, with trials that differ
        from the record's) is set aside, as study.db.old; one that only lacks the retry of failed trials is
        replaced.

        Args:
            storage: where it is kept.
            config: the study's config.
            facts: those in FACTS, which become user attributes of the study.
            entries: all trials, by number.

        Raises:
            UnavailableError: it cannot be written just now.
            SlimnetError: it cannot be written.
        """

        def fill(backend: BaseStorage, name: str) -> None:
            directions = list(config.search.objectives.values())
            optuna.create_study(storage=backend, study_name=name, directions=directions)
            cls(storage, config, backend, name)._bring_up(facts, [], entries)

        reason, keep = "was no Optuna study", True
        with _translating(storage):
            if storage.has_study():
                try:
                    return cls._continue(storage, config, facts, entries)
                except UnfitError as error:
                    reason, keep = str(error), not isinstance(error, _RetriedError)
            kept = storage.make(config.study, fill, keep=keep)
            database = cls(storage, config, storage.connect(), config.study)
            database._count = len(entries)
            if kept is not None:
                database.replaced = f"{storage.name} {reason}; it was set aside as {kept} and made anew"
            return database

    def check_free(self) -> None:
        """See that the study can be written, and is still held where others may come to it.

        Raises:
            StudyBusyError: another driver has it.
            UnavailableError: it cannot be written just now.
            SlimnetError: it cannot be written.
        """
        with _translating(self._storage):
            self._storage.check_free()

    def put(self, entry: Entry) -> None:
        """Add the next trial, or end one that is running; one that has ended stays as it is.

        Raises:
            UnavailableError: it cannot be written just now.
            SlimnetError: it cannot be written.
        """
        self.check_free()
        with _translating(self._storage):
            if entry.number == self._count:
                self._add(entry)
            elif entry.state != "running":
                self._tell(entry)

    def close(self) -> None:
        """Close what is open."""
        self._storage.close(self._backend)

    @classmethod
    def _continue(
        cls, storage: Storage, config: Config, facts: Mapping[str, Any], entries: Sequence[Entry]
    ) -> Database:
        """Open a study and update it to the record; UnfitError, and no change, if that is impossible."""
        with _judging(storage):
            storage.check_free()
            backend = storage.connect()
            if config.study not in optuna.get_all_study_names(backend):
                raise UnfitError(f"had no study {config.study}")
            database = cls(storage, config, backend, config.study)
            trials = database._compare(facts, entries)
        database._bring_up(facts, trials, entries)
        return database

    def _compare(self, facts: Mapping[str, Any], entries: Sequence[Entry]) -> list[FrozenTrial]:
        """All trials of the database; UnfitError if it cannot become what the record is."""
        directions = [direction.name.lower() for direction in self._study.directions]
        if directions != list(self._objectives.values()) or facts["uid"] != self._study.user_attrs.get("uid"):
            raise UnfitError("was of another study")
        if self._study.user_attrs.get("format") != FORMAT:
            raise UnfitError("was written by another version of slimnet")
        trials = self._study.get_trials(deepcopy=False)
        if len(trials) > len(entries):
            raise UnfitError(
                f"had {plural(len(trials), 'trial')}, and the record of the study has {len(entries)}"
            )
        retried = 0
        for trial, entry in zip(trials, entries, strict=False):
            failed = entry.state != "failed" and trial.state is TrialState.FAIL and REASON in trial.user_attrs
            if not (self._is_at(trial, entry) and (failed or _can_become(trial, entry))):
                raise UnfitError(f"had another trial {entry.number} than the record of the study")
            retried += failed
        if retried:
            raise _RetriedError
        return trials

    def _is_at(self, trial: FrozenTrial, entry: Entry) -> bool:
        """Whether a trial has the number and the point of an entry."""
        return (
            trial.number == entry.number
            and trial.params == (params := self._space.encode(entry.point.params))
            and trial.distributions == self._space.distributions_of(params)
            and self._space.legible(entry.point.params).items() <= trial.user_attrs.items()
            and entry.point.attributes.items() <= trial.system_attrs.items()
        )

    def _bring_up(
        self, facts: Mapping[str, Any], trials: Sequence[FrozenTrial], entries: Sequence[Entry]
    ) -> None:
        for name, fact in {**facts, "format": FORMAT}.items():
            if self._study.user_attrs.get(name) != fact:
                self._study.set_user_attr(name, fact)
        names: list[str] = list(self._objectives)
        if self._study.metric_names != names:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                self._study.set_metric_names(names)
        for trial, entry in zip(trials, entries, strict=False):
            if trial.state is TrialState.RUNNING and entry.state != "running":
                self._tell(entry)
        self._count = len(trials)
        for entry in entries[len(trials) :]:
            self._add(entry)

    def _add(self, entry: Entry) -> None:
        states = {name: state for state, name in STATES.items()}
        params = self._space.encode(entry.point.params)
        trial = create_trial(
            state=states[entry.state],
            values=entry.values,
            params=params,
            distributions=self._space.distributions_of(params),
            user_attrs={**self._space.legible(entry.point.params), **entry.notes},
            system_attrs=dict(entry.point.attributes),  # to which Optuna adds the constraints
            constraints=dict(entry.violations),
        )
        trial_id = self._backend.create_new_trial(self._study_id, trial)
        self._count += 1
        if entry.state == "running":
            self._ids[entry.number] = trial_id
            self._noted[entry.number] = set(entry.notes)

    def _tell(self, entry: Entry) -> None:
        # Optuna's `tell` reads the whole trial twice, which doubles the time.
        trial_id = self._ids.pop(entry.number, None)
        if trial_id is None:
            trial_id = self._backend.get_trial_id_from_study_id_trial_number(self._study_id, entry.number)
        noted = self._noted.pop(entry.number, set())
        for name in (name for name in entry.notes if name not in noted):  # as each takes a millisecond
            self._backend.set_trial_user_attr(trial_id, name, entry.notes[name])
        if entry.violations:
            trial = optuna.Trial(self._study, trial_id)
            known = trial.constraints  # where the process was killed here before
            for name, violation in entry.violations.items():
                if name not in known:
                    trial.set_constraint(name, violation)
        state = next(state for state, name in STATES.items() if name == entry.state)
        self._backend.set_trial_state_values(trial_id, state, entry.values)


def read_database(storage: Storage, config: Config) -> tuple[dict[str, Any], list[Entry]]:
    """Read a study whose only record is in a storage, as study.json is lost or of a version before it.

    The values of a geometric grid were categories then, and are indices now; either is read.

    Args:
        storage: where it is kept; reading changes nothing.
        config: the study's config.

    Returns:
        The FACTS that it holds; and the trials that have been sampled, by number.

    Raises:
        SlimnetError: it cannot be read, or the study in it is not of this config.
    """
    with _translating(storage), _judging(storage), storage.copied() as backend:
        study = optuna.load_study(study_name=config.study, storage=backend, sampler=RandomSampler())
        attributes, trials = study.user_attrs, study.get_trials(deepcopy=False)
        space = OptunaSpace(config.search.space)
        return (
            {fact: attributes[fact] for fact in FACTS if fact in attributes},
            [_entry(trial, space) for trial in trials if space.is_point(trial.params)],
        )


def _entry(trial: FrozenTrial, space: OptunaSpace) -> Entry:
    stored = dict(trial.params)
    for path, distribution in trial.distributions.items():
        if isinstance(distribution, CategoricalDistribution) and not _is_categorical(space, path):
            stored[path] = space.fields[path].encode(stored[path])
    noted = create_trial(
        state=TrialState.FAIL, constraints=trial.constraints
    ).system_attrs  # beside the point
    attributes = {name: value for name, value in trial.system_attrs.items() if name not in noted}
    return Entry(
        trial.number,
        Point(space.decode(stored), attributes),
        tuple(trial.values) if trial.state is TrialState.COMPLETE else None,
        STATES.get(trial.state, "running"),
    )


def _is_categorical(space: OptunaSpace, path: str) -> bool:
    return isinstance(space.distributions[path], CategoricalDistribution)


def _can_become(trial: FrozenTrial, entry: Entry) -> bool:
    """Whether a trial with an entry's point has ended as the entry has, or is still running."""
    if trial.state is TrialState.RUNNING:
        return True
    values = None if trial.values is None else tuple(trial.values)
    found = (STATES.get(trial.state), values, trial.constraints)
    ended = found == (entry.state, entry.values, dict(entry.violations))
    return ended and entry.notes.items() <= trial.user_attrs.items()


@contextmanager
def _judging(storage: Storage) -> Iterator[None]:
    """Turn an error in reading a study into UnfitError if it means that this is no study."""
    try:
        yield
    except UnfitError:
        raise
    except Exception as error:  # a damaged file may raise anything
        if not storage.is_damage(error):
            raise
        raise UnfitError(f"could not be read ({cause(error)})") from error


@contextmanager
def _translating(storage: Storage) -> Iterator[None]:
    """Turn errors of Optuna and what is below it into one sentence that names the storage."""
    try:
        yield
    except storage.faults as error:
        raise storage.translated(error) from error
