"""What the files of a stage must hold; whatever else is in one makes it damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from slimnet.errors import SlimnetError
from sweeps.records import Row

Finite = Annotated[float, Field(allow_inf_nan=False)]


class DamagedStageError(SlimnetError):
    """A file of a stage holds something else than it should.

    Attributes:
        path: the file.
        defect: what is wrong with it, as the end of a sentence.
    """

    def __init__(self, path: Path, defect: str) -> None:
        super().__init__(
            f"{path} is damaged ({defect}); the next `run` of the study sets it aside and computes it again"
        )
        self.path, self.defect = path, defect


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")


class _Result(_Strict):
    kind: str
    key: str
    metrics: dict[str, Any]
    seconds: Annotated[Finite, Field(ge=0)]
    environment: dict[str, Any]


class _Measured(_Strict):
    params: Annotated[int, Field(ge=0)]
    macs: Annotated[int, Field(ge=0)]
    val_accuracy: Finite
    test_accuracy: Finite


class _Curve(_Strict):
    curve: list[dict[str, Finite]]


class _Latency(_Strict):
    latency_ms: Finite
    latency_ms_64: Finite
    file_bytes: Annotated[int, Field(ge=0)]


_METRICS: dict[str, type[BaseModel]] = {"curve": _Curve, "latency": _Latency}


class _Failure(_Strict):
    reason: str
    detail: str


class _Row(_Strict):
    epoch: int


def result_in(path: Path, content: bytes) -> dict[str, Any]:
    """The content of the result.json of a stage, whose kind and key the names of its folders are.

    Raises:
        DamagedStageError: it is of another stage, or no result.
    """
    found = _parsed(path, content)
    _check(_Result, path, found)
    folder = path.parent
    for name, own in (("kind", folder.parent.name), ("key", folder.name)):
        if found[name] != own:
            raise DamagedStageError(path, f"its {name} is {found[name]}, not {own}")
    _check(_METRICS.get(found["kind"], _Measured), path, found["metrics"], "metrics.")
    return found


def failure_in(path: Path, content: bytes) -> dict[str, Any]:
    """The content of a failure.json.

    Raises:
        DamagedStageError: it is none.
    """
    found = _parsed(path, content)
    _check(_Failure, path, found)
    return found


def row_in(path: Path, line: bytes, epoch: int) -> Row:
    """The row of an epoch in history.jsonl.

    Raises:
        DamagedStageError: the line is none, or of another epoch.
    """
    found = _parsed(path, line)
    _check(_Row, path, found, f"line {epoch}: ")
    if found["epoch"] != epoch:
        raise DamagedStageError(path, f"line {epoch} is of epoch {found['epoch']}")
    return found


def _parsed(path: Path, content: bytes) -> dict[str, Any]:
    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"it holds {constant}")

    try:
        found = json.loads(content, parse_constant=refuse)
    except ValueError as error:
        raise DamagedStageError(path, str(error)) from error
    if not isinstance(found, dict):
        raise DamagedStageError(path, f"it holds a {type(found).__name__}")
    return found


def _check(schema: type[BaseModel], path: Path, found: Any, where: str = "") -> None:
    try:
        schema.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        place = where + ".".join(map(str, first["loc"]))
        raise DamagedStageError(path, f"{place}: {first['msg'][:1].lower()}{first['msg'][1:]}") from error
