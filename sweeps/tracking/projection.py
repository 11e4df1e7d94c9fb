"""Updates W&B from a study's folders: the only place that decides which run is written where."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

from sweeps.records import ContenderRecord, StageRecord, StudyRecord, TrialRecord
from sweeps.tracking import sdk
from sweeps.tracking.ledger import Entry, Ledger
from sweeps.tracking.offline import read_offline_run
from sweeps.tracking.views import RunView, contender_view, dense_view, study_view, study_views, trial_view

if TYPE_CHECKING:
    from wandb.sdk.wandb_run import Run


@dataclass
class _Live:
    """A run that is open on the server, and the first step that is not there yet."""

    run: Run
    view: RunView
    next_step: int


class Projector:
    """Writes a study's runs, online row by row or offline one run at a time; not thread-safe.

    Online, rows are sent as they come, and a resumed run continues at the step that the server names.
    Offline, a trial's run is written at once when the trial has ended, read back, and then noted in the
    ledger: a folder that is not in the ledger was left by a killed process and is made anew. If the server
    fails, the rest is written offline; runs that had begun on it wait until they can continue there.
    Rows on the server cannot be taken back: if a version trains differently from an earlier one, its training
    gets another run, and the earlier one stays.

    Records are immutable: one that is the same object as when it was last written is skipped.
    """

    def __init__(self, study_dir: Path, *, online: bool, warn: Callable[[str], None]) -> None:
        """Begin with the content of the ledger.

        Args:
            study_dir: runs/<study>.
            online: whether to try the server.
            warn: called with a line for each problem.
        """
        self._study_dir = study_dir
        self._wandb_dir = study_dir / "wandb"
        self._ledger = Ledger(self._wandb_dir)
        self._online = online
        self._warn = warn
        self._live: dict[str, _Live] = {}
        self._reconciled = False
        self._dense: StageRecord | None = None  # as written last
        self._trials: dict[int, TrialRecord] = {}
        self._contenders: dict[tuple[str, int | None, int], ContenderRecord] = {}
        self._shown = 0  # complete trials in the study's run

    def project(self, study: StudyRecord, *, final: bool = False) -> None:
        """Write what is new.

        Args:
            study: as it is now.
            final: also end every open run and, offline, write the run of the study.

        Raises:
            OSError: even an offline run cannot be written. Errors of wandb are then raised too.
        """
        self._reconcile(study)
        if study.dense is not self._dense:
            self._write(dense_view(study), final)
            self._dense = study.dense
        for trial in study.trials:
            if self._trials.get(trial.number) is not trial:
                self._write(trial_view(study, trial), final)
                self._trials[trial.number] = trial
        for contender in study.contenders:
            name = (contender.kind, contender.trial, contender.seed)
            if self._contenders.get(name) is not contender:
                self._write(contender_view(study, contender), final)
                self._contenders[name] = contender
        if final or self._study_is_due(study):
            self._write(study_view(study), final)
        if final:
            self._end_all()

    def _study_is_due(self, study: StudyRecord) -> bool:
        """Whether to write the study's run before the sweep ends: online, after every 10 % more trials.

        Its row holds every trial: written after each of many, it would cost as much as everything else.
        """
        complete = len(study.complete) if self._online else 0
        due = complete > 1.1 * self._shown
        if due:
            self._shown = complete
        return due

    def _write(self, view: RunView, final: bool) -> None:
        view = self._unmixed(view)
        if self._online and not self._is_on_server(view):
            self._stream(view)
        if not self._online and not self._is_noted(view):
            self._write_folder_of(view, final)

    def missing_on_server(self, study: StudyRecord) -> list[RunView]:
        """The runs that the server does not have, or not as they are now."""
        self._reconcile(study)
        begun = [self._unmixed(view) for view in study_views(study) if view.state != "waiting"]
        return [view for view in begun if not self._is_on_server(view)]

    def cut_off(self, study: StudyRecord) -> list[RunView]:
        """The runs that have begun on the server and can only continue there."""
        return [view for view in self.missing_on_server(study) if self._home(view) == "server"]

    def _unmixed(self, view: RunView) -> RunView:
        """The view, with another id if the run with its id has rows of other stages on the server."""
        entry = self._ledger.get(view.id)
        if entry is None or entry.home == "folder" or view.job_type == "study":
            return view
        if entry.chain is None and entry.mark == view.mark:
            self._ledger.put(view.id, entry := replace(entry, chain=view.chain))
        if entry.chain == view.chain:
            return view
        stem, _, uid = view.id.rpartition("-")
        return replace(view, id=f"{stem}-{view.chain[:6]}-{uid}")

    def _home(self, view: RunView) -> str | None:
        entry = self._ledger.get(view.id)
        return entry.home if entry else None

    def _is_noted(self, view: RunView) -> bool:
        entry = self._ledger.get(view.id)
        return entry is not None and entry.mark == view.mark

    def _is_on_server(self, view: RunView) -> bool:
        return self._home(view) == "server" and self._is_noted(view)

    # Online

    def _stream(self, view: RunView) -> None:
        """Log the view's new rows, and end the run if the view has ended."""
        if view.state == "waiting":
            return
        live = self._live.get(view.id)
        if live is not None and live.view.mark == view.mark:
            return
        try:
            live = live or self._open(view)
            live.view = view
            last_step = sdk.log_rows(live.run, view.rows(live.next_step))
        except Exception as error:
            self._go_offline(error)
            return
        if last_step is not None:
            live.next_step = last_step + 1
        if view.ended:
            self._end([self._live.pop(view.id)])

    def _open(self, view: RunView) -> _Live:
        run = sdk.open_run(view, self._study_dir, "online")
        entry = self._ledger.get(view.id)
        if entry is None or entry.home == "folder":
            self._move_to_server(view, entry)
        self._live[view.id] = live = _Live(run, view, run.starting_step)
        return live

    def _move_to_server(self, view: RunView, entry: Entry | None) -> None:
        if entry is not None and entry.folder:
            mark_synced(self._wandb_dir / entry.folder)
        self._ledger.put(view.id, Entry("server", mark="", chain=view.chain))

    def _end_all(self) -> None:
        runs, self._live = list(self._live.values()), {}
        self._end(runs)

    def _end(self, runs: list[_Live]) -> None:
        """End runs in parallel, as each takes its whole timeout if the server does not answer."""
        ends: SimpleQueue[tuple[_Live, Exception | None]] = SimpleQueue()
        for live in runs:
            threading.Thread(target=lambda live=live: ends.put((live, _finish(live))), daemon=True).start()
        for _ in runs:
            live, error = ends.get()
            if error is None:
                self._ledger.put(live.view.id, Entry("server", live.view.mark, chain=live.view.chain))
            else:
                self._go_offline(error)

    def _go_offline(self, error: Exception) -> None:
        if self._online:
            self._online = False
            cause = " ".join(str(error).split()) or type(error).__name__
            self._warn(f"W&B: the server does not take this sweep's runs, continuing offline ({cause})")
            self._end_all()
            sdk.shut_down()

    # Offline

    def _write_folder_of(self, view: RunView, final: bool) -> None:
        if self._home(view) == "server":
            return
        if view.ended or (final and view.job_type == "study" and view.state != "waiting"):
            old = self._ledger.get(view.id)
            folder = self._write_folder(view)
            self._ledger.put(view.id, Entry("folder", view.mark, folder.name, view.chain))
            if old is not None and old.folder:
                shutil.rmtree(self._wandb_dir / old.folder, ignore_errors=True)

    def _write_folder(self, view: RunView) -> Path:
        run = sdk.open_run(view, self._study_dir, "offline")
        sdk.log_rows(run, view.rows(0))
        sdk.finish_run(run, view)
        folder = Path(run.dir).parent
        _wait_until_whole(folder)
        return folder

    def _reconcile(self, study: StudyRecord) -> None:
        """Make the ledger and the offline folders of this study agree; once."""
        if self._reconciled:
            return
        self._reconciled = True
        for folder in sorted(self._wandb_dir.glob("offline-run-*")):
            run_id = _run_of(folder)
            if run_id.startswith(f"{study.name}-") and run_id.endswith(f"-{study.uid[:6]}"):
                self._reconcile_folder(folder, run_id)
        for run_id, entry in self._ledger.items():
            if entry.home == "folder" and not (self._wandb_dir / str(entry.folder)).is_dir():
                self._ledger.drop(run_id)

    def _reconcile_folder(self, folder: Path, run_id: str) -> None:
        entry = self._ledger.get(run_id)
        noted = entry is not None and entry.folder == folder.name
        if is_synced(folder):
            if entry is None or entry.home == "folder":  # the user ran `wandb sync`
                mark, chain = (entry.mark, entry.chain) if entry and noted else ("", None)
                self._ledger.put(run_id, Entry("server", mark, chain=chain))
        elif not noted:
            shutil.rmtree(folder, ignore_errors=True)


def is_synced(folder: Path) -> bool:
    """Whether an offline run's folder is marked as uploaded."""
    return any(folder.glob("run-*.wandb.synced"))


def mark_synced(folder: Path) -> None:
    """Mark it as uploaded, as `wandb sync` does, which then skips it: no row may be uploaded twice."""
    for file in folder.glob("run-*.wandb"):
        file.with_name(f"{file.name}.synced").touch()


def _wait_until_whole(folder: Path) -> None:
    """Wait until a run can be read to its end: wandb's service still writes after the run has finished.

    Raises:
        OSError: it is still incomplete after FINISH_TIMEOUT (a full disk, which wandb does not report).
    """
    pause, end = 0.02, time.monotonic() + sdk.FINISH_TIMEOUT
    while problem := read_offline_run(folder).problem:
        if time.monotonic() > end:
            raise OSError(f"{folder} was not written to its end: {problem}")
        time.sleep(pause)
        pause *= 2


def _finish(live: _Live) -> Exception | None:
    try:
        sdk.finish_run(live.run, live.view)
    except Exception as error:
        return error
    return None


def _run_of(folder: Path) -> str:
    """The id of the run in a folder."""
    file = next(folder.glob("run-*.wandb"), None)
    if file is not None:
        return file.stem.removeprefix("run-")
    return folder.name.split("-", 3)[-1]  # killed before it had a file: offline-run-<time>-<id>
