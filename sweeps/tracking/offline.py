"""Reads a `.wandb` file, the transaction log that W&B writes for each run.

A 7-byte header, then blocks of 32 KiB. A block holds chunks: crc32 (of type and data), length, type, data; a
record is one full chunk or a first, some middle and a last one. A record is a wandb_internal.Record.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slimnet.errors import SlimnetError
from sweeps.tracking import sdk

_MAGIC = b":W&B"
_FILE_HEADER = 7
_BLOCK = 32 * 1024
_CHUNK_HEADER = struct.Struct("<IHB")
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


@dataclass
class OfflineRun:
    """What a run's file holds.

    Attributes:
        id, project, group, job_type, name: of the run; "" for what the file does not say.
        config: the run's config.
        history: its rows, in order.
        summary: its summary.
        exit_code: None if the file does not reach the end of the run.
        problem: where the file is incomplete or damaged; None if it is not.
    """

    id: str = ""
    project: str = ""
    group: str = ""
    job_type: str = ""
    name: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None
    problem: str | None = None


def run_file(folder: Path) -> Path:
    """The `.wandb` file of a run's folder.

    Raises:
        SlimnetError: there is none.
    """
    files = sorted(folder.glob("run-*.wandb"))
    if not files:
        raise SlimnetError(f"{folder} is not the folder of a W&B run: it holds no run-*.wandb file.")
    return files[0]


def read_offline_run(path: Path) -> OfflineRun:
    """Read a run from its folder or its `.wandb` file, as far as the file is intact.

    Raises:
        SlimnetError: there is no such file.
    """
    sdk.load_wandb()
    from wandb.proto import wandb_internal_pb2 as records

    file = run_file(path) if path.is_dir() else path
    run = OfflineRun()
    try:
        for payload in _records(file.read_bytes()):
            _take(run, records.Record.FromString(payload))  # type: ignore[attr-defined]
    except _BrokenError as broken:
        run.problem = str(broken)
    if run.problem is None and run.exit_code is None:
        run.problem = "the file ends before its run does"
    return run


class _BrokenError(Exception):
    pass


def _records(data: bytes) -> Iterator[bytes]:
    """The payloads of a transaction log.

    Raises:
        _BrokenError: the log is incomplete or damaged.
    """
    if len(data) < _FILE_HEADER or not data.startswith(_MAGIC):
        raise _BrokenError("the file does not begin as a W&B file")
    record = b""
    position = _FILE_HEADER
    while position < len(data):
        rest_of_block = _BLOCK - position % _BLOCK
        if rest_of_block < _CHUNK_HEADER.size:  # too short for a chunk: padding
            position += rest_of_block
            continue
        kind, chunk = _chunk(data, position)
        position += _CHUNK_HEADER.size + len(chunk)
        record = chunk if kind in (_FULL, _FIRST) else record + chunk
        if kind in (_FULL, _LAST):
            yield record
            record = b""
    if record:
        raise _BrokenError(f"the file breaks off within a record, at byte {len(data)}")


def _chunk(data: bytes, position: int) -> tuple[int, bytes]:
    start = position + _CHUNK_HEADER.size
    if start > len(data):
        raise _BrokenError(f"the file breaks off within a record, at byte {len(data)}")
    checksum, length, kind = _CHUNK_HEADER.unpack(data[position:start])
    chunk = data[start : start + length]
    if len(chunk) < length:
        raise _BrokenError(f"the file breaks off within a record, at byte {len(data)}")
    if kind not in (_FULL, _FIRST, _MIDDLE, _LAST) or zlib.crc32(bytes([kind]) + chunk) != checksum:
        raise _BrokenError(f"the record at byte {position} is damaged")
    return kind, chunk


def _take(run: OfflineRun, record: Any) -> None:
    """Add one record to the run."""
    match record.WhichOneof("record_type"):
        case "run":
            header = record.run
            run.id, run.project, run.group = header.run_id, header.project, header.run_group
            run.job_type, run.name = header.job_type, header.display_name
            _update(run.config, header.config.update)
        case "config":
            _update(run.config, record.config.update)
        case "history":
            row: dict[str, Any] = {}
            _update(row, record.history.item)
            run.history.append(row)
        case "summary":
            _update(run.summary, record.summary.update)
        case "exit":
            run.exit_code = record.exit.exit_code


def _update(target: dict[str, Any], items: Iterable[Any]) -> None:
    """Put items, each with a key or a path of keys and a value in JSON, into a nested dictionary."""
    for item in items:
        *parents, key = item.nested_key or [item.key]
        place = target
        for parent in parents:
            place = place.setdefault(parent, {})
        place[key] = json.loads(item.value_json)
