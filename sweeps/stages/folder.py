"""The folder of a stage: the only place that knows its files.

spec.json         what the result depends on
history.jsonl     a row per finished epoch, appended
checkpoint.pt     the newest epoch of a training; the network once the stage is done
timing.json       seconds spent on the epochs that are kept
result.json       metrics, seconds, peak memory, environment; appears last
failure.json      why the stage failed, until it is retried
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from slimnet.errors import SlimnetError
from sweeps.files import write_json, write_text
from sweeps.records import Row, StageRecord, StageState
from sweeps.stages.chain import Stage

LOCK_POLL = 0.2  # seconds between checks of `stop` while another process holds the folder


class Store:
    """The folders of all stages, `runs/stages/<kind>/<key>/`."""

    def __init__(self, runs: Path) -> None:
        self.root = runs / "stages"

    def folder(self, stage: Stage | StageRecord) -> StageFolder:
        """The folder of a stage, which need not exist yet."""
        return StageFolder(self.root / stage.kind / stage.key)


class StageFolder:
    """One stage's folder. Only the worker that holds it writes the files of the computation.

    Methods raise SlimnetError, naming the file, if a file is damaged or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def checkpoint(self) -> Path:
        """The file that holds the training's last epoch, and later the network of the finished stage."""
        return self.path / "checkpoint.pt"

    # Reading

    def state(self) -> StageState:
        """How far the stage is."""
        if self._file("result").exists():
            return "done"
        if self._file("failure").exists():
            return "failed"
        return "partial" if self._history.exists() else "missing"

    def read(self, stage: Stage) -> StageRecord:
        """The stage as its folder holds it now."""
        result = self.result()
        failure = None if result else self._read("failure")
        epochs = stage.epochs if result else self.epochs_done()
        return StageRecord(
            name=stage.name,
            kind=stage.kind,
            key=stage.key,
            spec=stage.spec.dump(),
            state="done" if result else "failed" if failure else "partial" if epochs else "missing",
            epochs_done=epochs,
            result=result,
            failure=failure,
            source=self,
        )

    def result(self) -> dict[str, Any] | None:
        """The content of result.json without the histograms per layer; None before the stage is done."""
        content = self._read("result")
        if content is not None:
            content["metrics"].pop("gamma_layers", None)
        return content

    def gamma_layers(self) -> dict[str, Any]:
        """The histogram of γ of each layer at the end of sparse training; empty for other stages."""
        content = self._read("result")
        layers: dict[str, Any] = content["metrics"].get("gamma_layers", {}) if content else {}
        return layers

    def history(self) -> list[Row]:
        """A row per finished epoch."""
        rows = []
        for line in self._lines():
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                raise damaged(self._history, error) from error
        return rows

    def epochs_done(self) -> int:
        """How many epochs the history holds."""
        return len(self._lines())

    def seconds(self) -> float:
        """The seconds that earlier runs have spent on the epochs that are kept; 0 if unknown."""
        with suppress(SlimnetError, KeyError, TypeError):
            return float((self._read("timing") or {})["seconds"])
        return 0.0

    # Writing

    def prepare(self, stage: Stage) -> None:
        """Make the folder and write the spec."""
        if not self._file("spec").exists():
            write_json(self._file("spec"), stage.spec.dump())

    @contextmanager
    def hold(self, stop: Callable[[], bool]) -> Iterator[bool]:
        """Hold the folder, waiting while another process holds it; yields False if `stop` ended the wait.

        Deletes temporary files that a killed holder left.
        """
        lock = FileLock(self.path / ".lock")
        while not (stop() or lock.is_locked):
            with suppress(Timeout):
                lock.acquire(timeout=LOCK_POLL)
        try:
            if lock.is_locked:
                self._remove_halves()
            yield lock.is_locked
        finally:
            lock.release()

    def append(self, row: Row) -> None:
        """Add a row to the history."""
        try:
            with self._history.open("ab") as file:
                file.write(_line(row))
        except OSError as error:
            raise SlimnetError(
                f"cannot write {self._history}: {error.strerror}; make room or choose another folder"
            ) from error

    def rewrite(self, rows: Sequence[Row]) -> None:
        """Replace the history by these rows, unless it already equals them."""
        content = b"".join(map(_line, rows))
        try:
            same = self._history.read_bytes() == content
        except FileNotFoundError:
            same = not rows
        if not same:
            write_text(self._history, content.decode())

    def note_seconds(self, seconds: float) -> None:
        """Record the seconds spent so far."""
        write_json(self._file("timing"), {"seconds": seconds})

    def commit(self, result: dict[str, Any]) -> None:
        """Write the result, after which the stage is done."""
        write_json(self._file("result"), result)

    def fail(self, reason: str, detail: str) -> None:
        """Record why the stage failed; its trials fail with it until `forget_failure`."""
        write_json(self._file("failure"), {"reason": reason, "detail": detail})

    def forget_failure(self) -> None:
        """Let the stage run again, from its last epoch, or from the start if the checkpoint is damaged."""
        from slimnet.checkpoint import read

        try:
            read(self.checkpoint)
        except SlimnetError:
            self.checkpoint.unlink(missing_ok=True)
        self._file("failure").unlink(missing_ok=True)

    def _file(self, name: str) -> Path:
        return self.path / f"{name}.json"

    def _read(self, name: str) -> dict[str, Any] | None:
        """The content of a file; None if it does not exist."""
        path = self._file(name)
        try:
            content: dict[str, Any] = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except (ValueError, OSError) as error:
            raise damaged(path, error) from error
        return content

    @property
    def _history(self) -> Path:
        return self.path / "history.jsonl"

    def _lines(self) -> list[bytes]:
        """The complete lines of the history, without a last one that a killed worker did not finish."""
        try:
            content = self._history.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise damaged(self._history, error) from error
        return content.split(b"\n")[:-1]

    def _remove_halves(self) -> None:
        for name in ("checkpoint.pt", "history.jsonl", "timing.json", "result.json"):
            for half in self.path.glob(f".{name}.*"):
                half.unlink()


def damaged(path: Path, error: Exception) -> SlimnetError:
    """The error for a file of a stage that cannot be read."""
    return SlimnetError(
        f"{path} is damaged ({error}); delete the folder {path.parent} and it is computed again"
    )


def _line(row: Row) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"
