"""The folder of a stage: the only place that knows its files.

spec.json         what the result depends on
history.jsonl     a row per finished epoch, appended
checkpoint.pt     the newest epoch of a training; the network once the stage is done
timing.json       seconds spent on the epochs that are kept, and when each ended
result.json       metrics, seconds, peak memory, environment; appears last
failure.json      why the stage failed, until it is retried
*.damaged         what was set aside, as it could not be read
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, count
from pathlib import Path
from typing import Any

from slimnet.errors import SlimnetError
from slimnet.wording import plural
from sweeps.claim import Claim
from sweeps.files import write_json, write_text
from sweeps.records import Row, StageRecord, StageState
from sweeps.stages.chain import Stage
from sweeps.stages.contents import DamagedStageError, failure_in, result_in, row_in

SMALL_FILES = ("result.json", "failure.json", "timing.json", "history.jsonl", "spec.json")


class StageFolder:
    """One stage's folder. Only the worker that holds it writes the files of the computation.

    Methods raise DamagedStageError, naming the file, if one is damaged, and SlimnetError if one cannot be
    written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._claim: Claim | None = None

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
        failure = None if result else self._failure()
        return self._record(stage, result, failure, stage.epochs if result else self.epochs_done())

    def blank(self, stage: Stage) -> StageRecord:
        """The stage as if its folder were empty."""
        return self._record(stage, None, None, 0)

    def _record(
        self, stage: Stage, result: dict[str, Any] | None, failure: dict[str, Any] | None, epochs: int
    ) -> StageRecord:
        return StageRecord(
            name=stage.name,
            kind=stage.kind,
            key=stage.key,
            spec=stage.spec.dump(),
            state="done" if result else "failed" if failure else "partial" if epochs else "missing",
            epochs_done=epochs,
            result=result,
            failure=None if result else failure,
            source=self,
        )

    def result(self) -> dict[str, Any] | None:
        """The content of result.json without the histograms per layer; None before the stage is done."""
        content = self._whole_result()
        if content is not None:
            content["metrics"].pop("gamma_layers", None)
        return content

    def gamma_layers(self) -> dict[str, Any]:
        """The histogram of γ of each layer at the end of sparse training; empty for other stages."""
        content = self._whole_result()
        layers: dict[str, Any] = content["metrics"].get("gamma_layers", {}) if content else {}
        return layers

    def history(self) -> list[Row]:
        """A row per finished epoch."""
        return [row_in(self._history, line, epoch) for epoch, line in enumerate(self._lines(), 1)]

    def epochs_done(self) -> int:
        """How many epochs the history holds."""
        return len(self._lines())

    def seconds(self) -> float:
        """The seconds that earlier runs have spent on the epochs that are kept; 0 if unknown."""
        with suppress(OSError, ValueError, LookupError, TypeError):
            return float(json.loads(self._file("timing").read_bytes())["seconds"])
        return 0.0

    def times(self) -> list[float]:
        """When each epoch ended, in seconds since 1970; fewer than there are epochs where it is not known."""
        with suppress(OSError, ValueError, LookupError, TypeError):
            return list(map(float, json.loads(self._file("timing").read_bytes())["ended"]))
        return []

    def network(self) -> Path | None:
        """The file of the network of a finished stage; None if there is none."""
        return self.checkpoint if self.checkpoint.is_file() else None

    def fetch_network(self) -> None:
        """Have the network of a finished stage on this disk, where folders of this kind are."""

    def drop_network(self) -> bool:
        """Delete the network if it is a copy, so that `fetch_network` gets another; False if it is none."""
        return False

    # Writing

    def prepare(self, stage: Stage) -> None:
        """Make the folder and write the spec."""
        if not self._file("spec").exists():
            write_json(self._file("spec"), stage.spec.dump())

    def is_prepared(self) -> bool:
        """Whether the folder is there, which it is not on a machine that does not share the storage."""
        return self._file("spec").exists()

    def look_anew(self) -> None:
        """Have a network's file system look for files that it remembers as missing, for up to a minute."""
        with suppress(OSError):
            list(self.path.iterdir())

    @contextmanager
    def hold(
        self,
        stop: Callable[[], bool],
        warn: Callable[[str], None] = lambda text: None,
        *,
        wait: bool = True,
    ) -> Iterator[bool]:
        """Hold the folder, waiting while another process holds it; yields False if `stop` ended the wait.

        Deletes temporary files that a killed holder left. Of a folder that is held, those that write for the
        computation raise ClaimLostError once another machine has taken it over.

        Args:
            stop: ends the wait.
            warn: told, in a sentence, of a wait for another machine.
            wait: for a holder that is alive.
        """
        claim = Claim(self.path)
        if not claim.take(stop, wait=wait, on_wait=warn):
            yield False
            return
        self._claim = claim
        try:
            self._remove_halves()
            yield True
        finally:
            self._claim = None
            claim.release()

    def check(self) -> None:
        """See, before something is written for the computation, that the folder is still held.

        Raises:
            ClaimLostError: another machine has taken it over.
        """
        if self._claim:
            self._claim.check()

    def append(self, row: Row) -> None:
        """Add a row to the history."""
        self.check()
        try:
            with self._history.open("ab") as file:
                file.write(_line(row))
        except OSError as error:
            raise SlimnetError(
                f"cannot write {self._history}: {error.strerror}; make room or choose another folder"
            ) from error

    def rewrite(self, rows: Sequence[Row]) -> None:
        """Replace the history by these rows, unless it already equals them."""
        self.check()
        content = b"".join(map(_line, rows))
        try:
            same = self._history.read_bytes() == content
        except FileNotFoundError:
            same = not rows
        if not same:
            write_text(self._history, content.decode())

    def note_epoch(self, epoch: int, seconds: float) -> None:
        """Record that an epoch, numbered from 1, has ended now, and the seconds spent so far."""
        self.check()
        known, now = self.times()[: epoch - 1], time.time()
        unknown = [now] * (epoch - 1 - len(known))  # of an earlier version, or lost
        write_json(self._file("timing"), {"seconds": seconds, "ended": [*known, *unknown, now]})

    def publish(self) -> None:
        """Say that the files belong together now, after an epoch, for those who keep copies of them."""

    def commit(self, result: dict[str, Any]) -> None:
        """Write the result, after which the stage is done."""
        self.check()
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

    # Mending

    def mend(self, stage: Stage) -> tuple[StageRecord, list[str]]:
        """Set aside what is damaged, so that it is computed again, from the checkpoint where that is intact.

        Nothing is done while a process computes the stage.

        Returns:
            The stage as its folder holds it then, and a sentence on each file that was set aside.

        Raises:
            DamagedStageError: a file is damaged, and a process computes the stage.
        """
        record, defects = self._look(stage)
        if not defects:
            return record, []
        said: list[str] = []
        with StageFolder.hold(self, lambda: False, wait=False) as alone:
            if alone:
                said = self._set_aside(self._look(stage)[1])
        return self.read(stage), said

    def give_up_network(self, reason: str) -> list[str]:
        """Set aside the network of a finished stage, which is damaged, and its result; its epochs are lost.

        Args:
            reason: what is wrong with the network, as a sentence that names its file.

        Returns:
            The sentences of `mend`.
        """
        with suppress(FileNotFoundError):
            self.checkpoint.replace(_free(self.checkpoint))
        with suppress(FileNotFoundError):
            self._file("result").replace(_free(self._file("result")))
        for path in (self._history, self._file("timing")):
            path.unlink(missing_ok=True)
        return [f"{reason}; it was set aside, and the stage is computed again"]

    def _look(self, stage: Stage) -> tuple[StageRecord, list[DamagedStageError]]:
        """Read all files of the stage, once: what they hold, and what is wrong with them."""
        defects: list[DamagedStageError] = []

        def tried(look: Callable[[], Any]) -> Any:
            try:
                return look()
            except DamagedStageError as error:
                defects.append(error)
                return None

        result, failure, _ = tried(self.result), tried(self._failure), tried(self._check_spec)
        epochs = len(tried(self.history) or [])
        if result and not defects and epochs != stage.epochs:
            defects.append(
                DamagedStageError(self._history, f"it has {epochs} of {plural(stage.epochs, 'epoch')}")
            )
        return self._record(stage, result, failure, epochs), defects

    def _set_aside(self, defects: list[DamagedStageError]) -> list[str]:
        said = []
        for defect in defects:
            aside = _free(defect.path)
            with suppress(FileNotFoundError):
                defect.path.replace(aside)
            said.append(
                f"{defect.path} was damaged ({defect.defect}); it is {aside.name} now, "
                "and what it held is computed again"
            )
            if defect.path == self._history:  # which is written anew with the result
                self._file("result").unlink(missing_ok=True)
        return said

    def _check_spec(self) -> None:
        """See that spec.json, if it is there, is that of a stage of this kind."""
        path = self._file("spec")
        try:
            content = json.loads(path.read_bytes())
        except FileNotFoundError:
            return
        except (ValueError, OSError) as error:
            raise DamagedStageError(path, str(error)) from error
        if not isinstance(content, dict) or content.get("kind") != self.path.parent.name:
            raise DamagedStageError(path, "it is of another stage")

    def _whole_result(self) -> dict[str, Any] | None:
        path = self._file("result")
        content = _content(path)
        return None if content is None else result_in(path, content)

    def _failure(self) -> dict[str, Any] | None:
        path = self._file("failure")
        content = _content(path)
        return None if content is None else failure_in(path, content)

    def _file(self, name: str) -> Path:
        return self.path / f"{name}.json"

    @property
    def _history(self) -> Path:
        return self.path / "history.jsonl"

    def _lines(self) -> list[bytes]:
        """The complete lines of the history, without a last one that a killed worker did not finish."""
        content = _content(self._history)
        return [] if content is None else content.split(b"\n")[:-1]

    def _remove_halves(self) -> None:
        for name in ("checkpoint.pt", "history.jsonl", "timing.json", "result.json"):
            for half in self.path.glob(f".{name}.*"):
                half.unlink()


def _content(path: Path) -> bytes | None:
    """What a file holds; None if it does not exist."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DamagedStageError(path, error.strerror or str(error)) from error


def _free(path: Path) -> Path:
    """A free name for a damaged file."""
    numbered = (path.with_name(f"{path.name}.damaged-{number}") for number in count(2))
    names = chain([path.with_name(f"{path.name}.damaged")], numbered)
    return next(name for name in names if not name.exists())


def _line(row: Row) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"
