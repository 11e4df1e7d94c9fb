"""The Optuna study of a sweep, study.db, for optuna-dashboard and other uses of Optuna.

It is a copy of the study's record: a sweep never relies on it, and if it is lost or differs from the record
it is made again. SQLite therefore does not wait for the disk: a killed process leaves an intact database, and
one that a power cut has damaged is recognised and replaced.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import optuna
import sqlalchemy.exc
from optuna.distributions import CategoricalDistribution
from optuna.exceptions import ExperimentalWarning, OptunaError
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from slimnet.errors import SlimnetError
from sweeps.config import Config
from sweeps.study.optuna_space import OptunaSpace
from sweeps.study.record import Point

WAIT = 0.2  # seconds before a file that another program holds counts as locked
HOLD = 10.0  # seconds that one of Optuna's steps waits, should the file be locked just then
FACTS = ("uid", "precision", "data", "networks", "machine")
REASON = "reason"  # the note on a trial of why it failed or was stopped
FORMAT = 2  # of the trials: which attributes they have, and which values are drawn by their rank
COMPANIONS = (
    "",
    "-journal",
    "-wal",
    "-shm",
)  # files that SQLite may keep with a database, and would read again
UNFIT = {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_SCHEMA, sqlite3.SQLITE_NOTADB}
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


class LockedError(SlimnetError):
    """Another program holds the file."""


class _UnfitError(Exception):
    """A file cannot be updated to the record; the message follows the file's name."""


class _RetriedError(_UnfitError):
    """Trials that have failed, which Optuna keeps for good, are tried again; all else is in the record."""


FAULTS = (
    _UnfitError,
    OptunaError,
    sqlalchemy.exc.SQLAlchemyError,
    sqlite3.Error,
    OSError,
    ValueError,
    LookupError,
)


class Database:
    """The Optuna study in a SQLite file. Only the driver that holds the study's lock may write it.

    Attributes:
        replaced: a sentence for the user if `open` has set a file aside; else None.
    """

    def __init__(self, path: Path, config: Config, storage: optuna.storages.RDBStorage) -> None:
        """Load an existing study; use `open` instead."""
        self.replaced: str | None = None
        self._path = path
        self._space = OptunaSpace(config.search.space)
        self._objectives = config.search.objectives
        self._storage = storage
        self._study = optuna.load_study(study_name=config.study, storage=storage, sampler=RandomSampler())
        self._study_id = storage.get_study_id_from_name(config.study)
        self._ids: dict[int, int] = {}  # of running trials added by this object, by number
        self._noted: dict[int, set[str]] = {}  # what has been noted on them
        self._count = 0  # of trials in the file

    @classmethod
    def open(cls, path: Path, config: Config, facts: Mapping[str, Any], entries: Sequence[Entry]) -> Database:
        """Open the study and update it to the record, or make it.

        A file that cannot be updated (damaged, of another study or schema, with trials that differ from the
        record's) is set aside as study.db.old; one that only lacks the retry of failed trials is replaced.

        Args:
            path: study.db.
            config: the study's config.
            facts: those in FACTS, which become user attributes of the study.
            entries: all trials, by number.

        Raises:
            LockedError: another program holds the file.
            SlimnetError: it cannot be written.
        """
        reason, keep = "was no Optuna study", True
        with _translating(path):
            if path.exists():
                try:
                    return cls._continue(path, config, facts, entries)
                except _UnfitError as error:
                    reason, keep = str(error), not isinstance(error, _RetriedError)
            kept = _make(path, config, facts, entries, keep=keep)
            database = cls(path, config, _connect(path))
            database._count = len(entries)
            if kept is not None:
                database.replaced = f"{path} {reason}; it was set aside as {kept.name} and made anew"
            return database

    def put(self, entry: Entry) -> None:
        """Add the next trial, or end one that is running; one that has ended stays as it is.

        Raises:
            LockedError: another program holds the file.
            SlimnetError: it cannot be written.
        """
        with _translating(self._path):
            _check_free(self._path)
            if entry.number == self._count:
                self._add(entry)
            elif entry.state != "running":
                self._tell(entry)

    def close(self) -> None:
        """Close the file."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    @classmethod
    def _continue(
        cls, path: Path, config: Config, facts: Mapping[str, Any], entries: Sequence[Entry]
    ) -> Database:
        """Open a study and update it to the record; _UnfitError, and no change, if that is impossible."""
        with _judging():
            _check_free(path)
            storage = _connect(path)
            if config.study not in optuna.get_all_study_names(storage):
                raise _UnfitError(f"had no study {config.study}")
            database = cls(path, config, storage)
            trials = database._compare(facts, entries)
        database._bring_up(facts, trials, entries)
        return database

    def _compare(self, facts: Mapping[str, Any], entries: Sequence[Entry]) -> list[FrozenTrial]:
        """All trials of the database; _UnfitError if it cannot become what the record is."""
        directions = [direction.name.lower() for direction in self._study.directions]
        if directions != list(self._objectives.values()) or facts["uid"] != self._study.user_attrs.get("uid"):
            raise _UnfitError("was of another study")
        if self._study.user_attrs.get("format") != FORMAT:
            raise _UnfitError("was written by another version of slimnet")
        trials = self._study.get_trials(deepcopy=False)
        if len(trials) > len(entries):
            raise _UnfitError(f"had {len(trials)} trials, and the record of the study has {len(entries)}")
        retried = 0
        for trial, entry in zip(trials, entries, strict=False):
            failed = entry.state != "failed" and trial.state is TrialState.FAIL and REASON in trial.user_attrs
            if not (self._is_at(trial, entry) and (failed or _can_become(trial, entry))):
                raise _UnfitError(f"had another trial {entry.number} than the record of the study")
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
        trial_id = self._storage.create_new_trial(self._study_id, trial)
        self._count += 1
        if entry.state == "running":
            self._ids[entry.number] = trial_id
            self._noted[entry.number] = set(entry.notes)

    def _tell(self, entry: Entry) -> None:
        # Optuna's `tell` reads the whole trial twice, which doubles the time.
        trial_id = self._ids.pop(entry.number, None)
        if trial_id is None:
            trial_id = self._storage.get_trial_id_from_study_id_trial_number(self._study_id, entry.number)
        noted = self._noted.pop(entry.number, set())
        for name in (name for name in entry.notes if name not in noted):  # as each takes a millisecond
            self._storage.set_trial_user_attr(trial_id, name, entry.notes[name])
        if entry.violations:
            trial = optuna.Trial(self._study, trial_id)
            known = trial.constraints  # where the process was killed here before
            for name, violation in entry.violations.items():
                if name not in known:
                    trial.set_constraint(name, violation)
        state = next(state for state, name in STATES.items() if name == entry.state)
        self._storage.set_trial_state_values(trial_id, state, entry.values)


def read_database(path: Path, config: Config) -> tuple[dict[str, Any], list[Entry]]:
    """Read a study whose only record is study.db, as study.json is lost or of a version before it.

    The values of a geometric grid were categories then, and are indices now; either is read.

    Args:
        path: study.db; it is copied, so that reading changes nothing.
        config: the study's config.

    Returns:
        The FACTS that it holds; and the trials that have been sampled, by number.

    Raises:
        SlimnetError: the file cannot be read, or the study in it is not of this config.
    """
    with _translating(path), _judging(), TemporaryDirectory(prefix="slimnet-") as folder:
        for file in _with_companions(path):
            if file == path or file.exists():
                shutil.copyfile(file, Path(folder, file.name))
        storage = _connect(Path(folder, path.name))
        study = optuna.load_study(study_name=config.study, storage=storage, sampler=RandomSampler())
        attributes, trials = study.user_attrs, study.get_trials(deepcopy=False)
        storage.remove_session()
        storage.engine.dispose()
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


def _make(
    path: Path, config: Config, facts: Mapping[str, Any], entries: Sequence[Entry], *, keep: bool
) -> Path | None:
    """Make a study in a temporary file and move it to `path`; returns where the old file is now, if kept."""
    aside = path.with_name(f"{path.name}.new")
    for leftover in _with_companions(aside):
        leftover.unlink(missing_ok=True)
    storage = _connect(aside, new=True)
    directions = list(config.search.objectives.values())
    optuna.create_study(storage=storage, study_name=config.study, directions=directions)
    database = Database(aside, config, storage)
    database._bring_up(facts, [], entries)
    database.close()
    with aside.open("rb") as file:
        os.fsync(file.fileno())
    kept = _set_aside(path) if keep else None
    for companion in _with_companions(path)[1:]:  # SQLite would apply them to the new file
        companion.unlink(missing_ok=True)
    aside.replace(path)
    return kept


def _set_aside(path: Path) -> Path | None:
    """Rename a file, and those that SQLite keeps with it, to a free name."""
    name, count = f"{path.name}.old", 1
    while any(file.exists() for file in _with_companions(path.with_name(name))):
        count += 1
        name = f"{path.name}.old-{count}"
    kept = path.with_name(name)
    found = path.exists()
    for file, new in zip(_with_companions(path), _with_companions(kept), strict=True):
        if file.exists():
            file.rename(new)
    return kept if found else None


def _with_companions(path: Path) -> list[Path]:
    return [path.with_name(path.name + ending) for ending in COMPANIONS]


def _connect(path: Path, *, new: bool = False) -> optuna.storages.RDBStorage:
    """The storage in a file, whose path may hold any characters."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def connect() -> sqlite3.Connection:
        connection = _sqlite(path, "rwc" if new else "rw", HOLD, check_same_thread=False)
        connection.execute("PRAGMA synchronous=OFF")
        if new:
            connection.execute("PRAGMA journal_mode=MEMORY")  # an unfinished file is never read
        return connection

    engine: dict[str, Any] = {"creator": connect}
    return optuna.storages.RDBStorage("sqlite:///study.db", engine, skip_table_creation=not new)


def _sqlite(path: Path, mode: str, wait: float, **options: Any) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    connection: sqlite3.Connection = sqlite3.connect(uri, uri=True, timeout=wait, **options)
    return connection


def _check_free(path: Path) -> None:
    """See that no other program holds a file. Optuna by itself would wait for it, or give up midway."""
    with closing(_sqlite(path, "rw", WAIT, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("ROLLBACK")


@contextmanager
def _judging() -> Iterator[None]:
    """Turn an error in reading a file into _UnfitError, unless it is locked or cannot be accessed."""
    try:
        yield
    except _UnfitError:
        raise
    except Exception as error:  # a damaged file may raise anything
        code = _sqlite_code(error)
        if code is not None and code not in UNFIT:
            raise
        raise _UnfitError(f"could not be read ({_cause(error)})") from error


@contextmanager
def _translating(path: Path) -> Iterator[None]:
    """Turn errors of Optuna and SQLite into one sentence that names the file."""
    try:
        yield
    except FAULTS as error:
        if _sqlite_code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise LockedError(f"{path} is locked by another program, perhaps optuna-dashboard") from error
        raise SlimnetError(
            f"{path} cannot be used ({_cause(error)}); fix its permissions or make room, or move it away "
            "and the next `run` makes it anew"
        ) from error


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and those that led to it."""
    known: BaseException | None = error
    while known is not None:
        yield known
        known = known.__cause__


def _sqlite_code(error: BaseException) -> int | None:
    """SQLite's own code for an error, if it comes from there."""
    for known in _chain(error):
        if isinstance(known, sqlite3.Error) and hasattr(known, "sqlite_errorcode"):
            return known.sqlite_errorcode & 0xFF
    return None


def _cause(error: BaseException) -> str:
    """The first cause, on one line."""
    *_, first = _chain(error)
    return str(first).splitlines()[0] if str(first) else type(first).__name__
