"""Stages: what a trial consists of, and the folders in which their results are kept.

A stage is a pure function of its spec, and its key is a hash of the spec. Trials, and studies, that ask for
the same stage share one folder. `result.json` appears last; a folder without it is unfinished.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from slimnet.checkpoint import read
from slimnet.data import fingerprint
from slimnet.errors import SlimnetError
from slimnet.precision import Precision
from sweeps.config import Config, resolve
from sweeps.config_sections import Recipe
from sweeps.files import write_json
from sweeps.results import StageRecord, StageState

Kind = Literal["sparse", "prune", "finetune"]
KINDS: tuple[Kind, ...] = ("sparse", "prune", "finetune")
FORMAT = 1  # raised when the same spec would give another result


@dataclass(frozen=True)
class Stage:
    """One step of a trial.

    Attributes:
        kind: "sparse", "prune" or "finetune".
        spec: everything that changes the result: primitives only.
        parent: the stage whose network this one starts from.
    """

    kind: Kind
    spec: dict[str, Any]
    parent: Stage | None = None

    @cached_property
    def key(self) -> str:
        """A hash of the spec, in which the parent's key stands for the parent."""
        canonical = json.dumps(self.spec, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    @property
    def teacher(self) -> Stage | None:
        """The stage whose network fine-tuning may learn from: the one that was pruned."""
        return self.parent.parent if self.parent else None

    @property
    def epochs(self) -> int:
        """Training epochs in the stage; pruning has none."""
        return int(self.spec["recipe"]["epochs"]) if self.kind != "prune" else 0


def chain(config: Config, precision: Precision, data: str | None = None) -> tuple[Stage, Stage, Stage]:
    """The stages of a trial with this (resolved) config.

    Args:
        config: of the trial.
        precision: of the study.
        data: the fingerprint of the study's npz file when it was begun; read from the file if not given.
    """
    if config.data.name != "npz" or data is None:
        data = fingerprint(config.data.name, path=config.data.path)
    shared = {
        "format": FORMAT,
        "seed": config.seed,
        "data": {
            "name": config.data.name,
            "fingerprint": data,
            "image_size": config.data.image_size,
            "validation": config.data.validation,
        },
    }
    augmentation = {"crop": config.data.crop, "flip": config.data.flip}
    compiled = {"compile": True} if config.compile else {}
    training = {**shared, "precision": precision, **compiled}
    penalty: dict[str, Any] = {"lambda": config.sparse.lambda_}
    if config.sparse.lambda_ or config.sparse.target:  # else these change nothing: all such stages are one
        penalty |= {
            "penalty": config.sparse.penalty,
            "lambda_schedule": config.sparse.lambda_schedule,
            "target": config.sparse.target,
            "streams": config.prune.streams,
        }
    sparse = Stage(
        "sparse",
        {
            "kind": "sparse",
            **training,
            "model": config.model.model_dump(mode="json"),
            "recipe": {**_recipe(config.sparse), **augmentation},
            **penalty,
        },
    )
    calibration = {"batch_size": config.sparse.batch_size, **augmentation}
    prune = Stage(
        "prune",
        {
            "kind": "prune",
            **shared,
            "parent": sparse.key,
            "prune": config.prune.model_dump(mode="json"),
            **({"calibration": calibration} if config.prune.recalibrate else {}),
        },
        sparse,
    )
    finetune = Stage(
        "finetune",
        {
            "kind": "finetune",
            **training,
            "parent": prune.key,
            "recipe": {**_recipe(config.finetune), **augmentation, **_distillation(config)},
        },
        prune,
    )
    return sparse, prune, finetune


def dense_stage(config: Config, precision: Precision, data: str | None = None) -> Stage:
    """The unpruned baseline: the study's own sparse training at λ = 0; arguments as for `chain`."""
    return chain(resolve(config, {"sparse.lambda": 0.0, "sparse.target": None}), precision, data)[0]


def _recipe(recipe: Recipe) -> dict[str, Any]:
    settings = {name: getattr(recipe, name) for name in Recipe.model_fields}
    if recipe.evaluate_every == 1:
        del settings["evaluate_every"]  # so stages keep the keys that they had before it could be set
    return settings


def _distillation(config: Config) -> dict[str, Any]:
    """The settings of a teacher's part, which make no difference where it has none."""
    finetune = config.finetune
    return {"distill": finetune.distill, "temperature": finetune.temperature} if finetune.distill else {}


class Store:
    """The folders of all stages, `runs/stages/<kind>/<key>/`."""

    def __init__(self, runs: Path) -> None:
        self.root = runs / "stages"

    def folder(self, stage: Stage) -> Path:
        """Where a stage lives, whether or not it is there yet."""
        return self.root / stage.kind / stage.key

    def state(self, stage: Stage) -> StageState:
        """How far a stage has come: missing, partial, done or failed."""
        folder = self.folder(stage)
        if (folder / "result.json").exists():
            return "done"
        if (folder / "failure.json").exists():
            return "failed"
        return "partial" if (folder / "history.jsonl").exists() else "missing"

    def epochs_done(self, stage: Stage) -> int:
        """Epochs that need not be computed again."""
        if self.state(stage) == "done":
            return stage.epochs
        try:
            return len((self.folder(stage) / "history.jsonl").read_text().splitlines())
        except FileNotFoundError:
            return 0

    def read(self, stage: Stage) -> StageRecord:
        """A stage as its folder has it.

        Raises:
            SlimnetError: a file in it is damaged, naming the file.
        """
        folder = self.folder(stage)
        return StageRecord(
            kind=stage.kind,
            key=stage.key,
            spec=stage.spec,
            state=self.state(stage),
            history=_read_lines(folder / "history.jsonl"),
            result=_read_json(folder / "result.json"),
            failure=_read_json(folder / "failure.json"),
        )

    def prepare(self, stage: Stage) -> Path:
        """Make the folder of a stage and put its spec there."""
        folder = self.folder(stage)
        if not (folder / "spec.json").exists():
            write_json(folder / "spec.json", stage.spec)
        return folder

    def fail(self, stage: Stage, reason: str, detail: str) -> None:
        """Keep why a stage failed; its trials fail with it until `clear`."""
        write_json(self.folder(stage) / "failure.json", {"reason": reason, "detail": detail})

    def clear(self, stages: Iterable[Stage]) -> None:
        """Forget that stages failed: they go on from their last epoch, or start anew if it is damaged."""
        for folder in map(self.folder, stages):
            if not _readable(folder / "checkpoint.pt"):
                (folder / "checkpoint.pt").unlink(missing_ok=True)
            (folder / "failure.json").unlink(missing_ok=True)


def _readable(checkpoint: Path) -> bool:
    try:
        read(checkpoint)
    except SlimnetError:
        return False
    return True


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return content
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as error:
        raise _damaged(path, error) from error


def _read_lines(path: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:
        return []
    except (ValueError, OSError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> SlimnetError:
    return SlimnetError(
        f"{path} is damaged ({error}); delete the folder {path.parent} and it is computed again"
    )
