"""The schema of a study's config.

Validation is strict: an unknown key is an error, the only conversion is from int to float, and every
value of the search space must be valid for its field.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from slimnet.devices import DeviceWish
from slimnet.precision import PrecisionWish
from slimnet.wording import plural
from sweeps.config.base import MANY, Section
from sweeps.config.data import Data
from sweeps.config.messages import refusal, show
from sweeps.config.model import Model
from sweeps.config.places import place_problem
from sweeps.config.search import MEASURED, SECTIONS, Metric, Passes, Search, Seed
from sweeps.config.sections import Confirm, Controls, Executor, Finetune, Prune, Sparse, Wandb
from sweeps.config.space import Branch, Choices, Entry, branches, parents
from sweeps.config.storage import storage_problem
from sweeps.config.yaml_source import KeyPath, dotted


class Lengths(NamedTuple):
    """The most passes that a trial may have, and the most epochs in each of them.

    Attributes:
        passes: of sparse training, pruning and fine-tuning.
        sparse: epochs of sparse training.
        early: those of its epochs that are repeated to rewind to, 0 where no trial rewinds.
        finetune: epochs of fine-tuning.
    """

    passes: int
    sparse: int
    early: int
    finetune: int


class Config(Section):
    """The config of a study, validated."""

    study: str = Field(
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}$",
        description="a folder name of letters, digits, . _ and -, not . or - first; else the file's name",
    )
    seed: Seed = 0
    passes: Passes = 1
    data: Data
    model: Model
    sparse: Sparse = Sparse()
    prune: Prune = Prune()
    finetune: Finetune = Finetune()
    search: Search
    controls: Controls = Controls()
    confirm: Confirm = Confirm()
    workers: Literal["auto"] | Annotated[int, Field(ge=1, le=1000)] = Field(
        "auto", description="processes that compute stages"
    )
    threads: Literal["auto"] | Annotated[int, Field(ge=1, le=1000)] = Field(
        "auto", description="of each worker; auto divides the cores, or OMP_NUM_THREADS if that is less"
    )
    retries: int = Field(
        2, ge=0, le=MANY, description="how often a stage whose process is lost goes on from its checkpoint"
    )
    stall_minutes: float = Field(
        60.0, gt=0, description="minutes without progress after which a process counts as lost"
    )
    device: DeviceWish = Field(
        "auto", description="where stages are computed; auto takes a CUDA, Apple or Intel GPU if there is one"
    )
    precision: PrecisionWish = Field("auto", description="of the forward pass")
    compile: bool = Field(
        False, description="train with torch.compile: worth it on a GPU and for many epochs"
    )
    curves: bool = Field(
        True, description="measure every sparse network right after pruning at each ratio, for the report"
    )
    latency: bool = Field(
        True, description="measure every finished network's latency on this machine, and its file's size"
    )
    executor: Executor = Executor()
    wandb: Wandb = Wandb()
    storage: str = Field(
        "auto",
        description="of trials for optuna-dashboard: sqlite, journal or postgresql://…; auto is sqlite, and "
        "journal on a network file system",
    )
    stages: str | None = Field(
        None,
        min_length=1,
        description="where stages are kept: a folder, or a URL such as s3://bucket/prefix, which machines "
        "and runs folders may share; else in the runs folder",
    )

    @field_validator("storage")
    @classmethod
    def _a_storage_keeps_no_password(cls, storage: str) -> str:
        if problem := storage_problem(storage):
            raise refusal(((), problem))
        return storage

    @field_validator("stages")
    @classmethod
    def _stages_keep_no_password(cls, stages: str | None) -> str | None:
        if stages and (problem := place_problem(stages)):
            raise refusal(((), problem))
        return stages

    @field_validator("study")
    @classmethod
    def _leave_room_for_stages(cls, study: str) -> str:
        if study.lower() == "stages":
            raise refusal(((), f"is {study}, the folder that studies share; choose another name."))
        return study

    @model_validator(mode="after")
    def _seeds_are_searched_or_repeated(self) -> Self:
        if "seed" in self.search.space and self.confirm.seeds > 1:
            clause = f"is {self.confirm.seeds}, but seed is searched; use 1, or remove search.space.seed."
            raise refusal((("confirm", "seeds"), clause))
        return self

    @model_validator(mode="after")
    def _budgets_are_met_in_one_pass(self) -> Self:
        for branch in branches(self.search.space):
            budget = next((n for n in ("params", "macs") if any(self._values_in(branch, f"prune.{n}"))), None)
            if budget and max(self._values_in(branch, "passes")) > 1:
                clause = "is above 1, but a budget is met in one pass; use prune.ratio for several."
                raise refusal((self._key("passes"), clause))
            if budget and "prune.ratio" in branch:
                clause = f"is searched together with prune.{budget}, which replaces it; remove one."
                raise refusal((self._key("prune.ratio"), clause))
        return self

    @model_validator(mode="after")
    def _early_epochs_are_trained(self) -> Self:
        for branch in branches(self.search.space):
            latest = max(self._values_in(branch, "finetune.rewind_to"))
            fewest = min(self._values_in(branch, "sparse.epochs"))
            if "early" in self._values_in(branch, "finetune.weights") and latest >= fewest:
                clause = (
                    f"is {latest}, but sparse training has {plural(fewest, 'epoch')}; choose an earlier one."
                )
                raise refusal((self._key("finetune.rewind_to"), clause))
        return self

    @model_validator(mode="after")
    def _only_trained_networks_do_without_training(self) -> Self:
        if 0 in self._values("sparse.epochs") and self.model.init is None:
            clause = "is 0, which needs a network that was trained before; name its weights in model.init."
            raise refusal((self._key("sparse.epochs"), clause))
        untrained = [max(self._values_in(b, "sparse.epochs")) == 0 for b in branches(self.search.space)]
        for field, given in (("lambda", self.sparse.lambda_), ("target", self.sparse.target)):
            path = f"sparse.{field}"
            searched = [path in branch for branch in branches(self.search.space)]
            if any(searched) and all(itertools.compress(untrained, searched)):
                clause = "has no effect, as sparse.epochs is 0; remove it, or train for some epochs."
                raise refusal((self._key(path), clause))
            if given and all(untrained):
                raise refusal((("sparse", field), "has no effect, as sparse.epochs is 0; remove it."))
        return self

    @model_validator(mode="after")
    def _objectives_are_measured(self) -> Self:
        if not self.latency and (names := sorted(self._judged_by & set(MEASURED))):
            clause = f"is false, but search judges trials by {names[0]}; use true."
            raise refusal((("latency",), clause))
        return self

    @property
    def judges_latency(self) -> bool:
        """Whether trials are judged by what is measured on the study's machine."""
        return bool(self._judged_by & set(MEASURED))

    @property
    def _judged_by(self) -> set[Metric]:
        return {*self.search.objectives, *self.search.constraints}

    @property
    def rewinds(self) -> bool:
        """Whether any trial of the study may rewind to the weights of an early epoch."""
        return "early" in self._weights

    @property
    def inherits(self) -> bool:
        """Whether any trial of the study may fine-tune the weights that pruning leaves."""
        return self._weights != {"fresh"}

    @property
    def trial_epochs(self) -> int:
        """All training epochs of a trial with this config."""
        return self.passes * (self.sparse.epochs + self.finetune.epochs)

    @property
    def most_epochs(self) -> int:
        """The training epochs of the longest trial that the study may have, as epochs may be searched."""
        return max(one.passes * (one.sparse + one.finetune) for one in self.lengths)

    @property
    def lengths(self) -> list[Lengths]:
        """How long trials may be, in each part of the search space."""
        found = []
        listed = self.search.points[: self.search.trials]
        if self.search.trials > len(listed):  # or else no other is tried
            parts = branches(self.search.space)
        else:
            parts = [{path: Choices((value,)) for path, value in point.items()} for point in listed]
        for branch in parts:
            passes, sparse, early, finetune = (
                max(self._values_in(branch, path))
                for path in ("passes", "sparse.epochs", "finetune.rewind_to", "finetune.epochs")
            )
            rewinds = "early" in self._values_in(branch, "finetune.weights")
            found.append(Lengths(passes, sparse, early * rewinds, finetune))
        return found

    @property
    def _weights(self) -> set[Any]:
        return set(self._values("finetune.weights"))

    def _values(self, path: str) -> list[Any]:
        """The values that trials may have of a field."""
        return [value for branch in branches(self.search.space) for value in self._values_in(branch, path)]

    def _values_in(self, branch: Branch, path: str) -> list[Any]:
        """The values that trials in a part of the space may have of a field: of an interval, its ends."""
        entry = branch.get(path)
        if entry is None:
            section, _, key = path.rpartition(".")
            return [getattr(getattr(self, section) if section else self, key)]
        return list(entry.values() or ([] if isinstance(entry, Choices) else [entry.low, entry.high]))

    def _key(self, path: str) -> KeyPath:
        """Where the values of a field are written: in the search space, or in its section."""
        return ("search", "space", path) if path in self.search.space else tuple(path.split("."))

    @model_validator(mode="after")
    def _searched_values_keep_the_rules(self) -> Self:
        """Rules between fields, such as the image sizes of a data set, hold for searched values too."""
        problems: list[tuple[KeyPath, str]] = []
        if any({"sparse.lambda", "sparse.target"} <= branch.keys() for branch in branches(self.search.space)):
            clause = "is searched together with sparse.lambda, but a target adjusts lambda; remove one."
            problems.append((("search", "space", "sparse.target"), clause))
        for branch in branches(self.search.space):
            problems += [problem for problem in self._alone(branch) if problem not in problems]
        for branch in branches(self.search.space) if not problems else ():
            for one, other in itertools.combinations(branch, 2):
                problem = (("search", "space", other), self._together(branch, one, other))
                if problem[1] and problem not in problems:
                    problems.append((problem[0], problem[1]))
        if problems:
            raise refusal(*problems)
        return self

    def _alone(self, branch: Branch) -> Iterator[tuple[KeyPath, str]]:
        """What is wrong with values of searched fields, each by itself."""
        for path, entry in branch.items():
            section, _, key = path.partition(".")
            if section not in SECTIONS:
                continue
            values = self._fixed(section, branch)
            for value in entry.values() or _highest(entry):
                try:
                    SECTIONS[section].model_validate({**values, key: value})
                except ValidationError as error:
                    first = error.errors()[0]
                    clause = (
                        f"contains {show(value)}, with which {section}.{dotted(first['loc'])} {first['msg']}"
                    )
                    yield ("search", "space", path), clause

    def _together(self, branch: Branch, one: str, other: str) -> str | None:
        """The clause that refuses two searched fields with incompatible values; None if they fit."""
        (section, _, key), (another, _, last) = one.partition("."), other.partition(".")
        if section != another or section not in SECTIONS:
            return None
        values = self._fixed(section, branch)
        for first, second in itertools.product(*(_few(branch[path]) for path in (one, other))):
            try:
                SECTIONS[section].model_validate({**values, key: first, last: second})
            except ValidationError as error:
                found = error.errors()[0]
                where = f"{section}.{dotted(found['loc'])} {found['msg']}"
                return f"contains {show(second)}, with which, at {one} {show(first)}, {where}"
        return None

    def _fixed(self, section: str, branch: Branch) -> dict[str, Any]:
        """The fields of a section, with the values of those that others go by."""
        values: dict[str, Any] = getattr(self, section).model_dump(by_alias=True)
        for path in parents(self.search.space):
            within, _, key = path.partition(".")
            if within == section:
                (values[key],) = branch[path].values() or []
        return values


def _few(entry: Entry) -> list[Any]:
    """All choices of an entry, or the first and the last value of a range."""
    values = entry.values() or _highest(entry)
    return list(values) if isinstance(entry, Choices) else [values[0], values[-1]]


def _highest(entry: Entry) -> list[Any]:
    """The value that is checked for a continuous interval: its high end."""
    return [] if isinstance(entry, Choices) else [entry.high]
