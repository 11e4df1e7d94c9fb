"""Updates W&B from a study's folders: the only place that decides which run is written where."""

from __future__ import annotations

import re
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

from slimnet.wording import one_line, plural
from sweeps.records import ContenderRecord, StageRecord, StudyRecord, TrialRecord
from sweeps.tracking import sdk
from sweeps.tracking.ledger import FOLDER, UNKNOWN, Entry, Ledger
from sweeps.tracking.offline import read_offline_run
from sweeps.tracking.server import Held, Server
from sweeps.tracking.study_view import standings, study_view, study_views
from sweeps.tracking.views import RunView, contender_view, dense_view, trial_view

if TYPE_CHECKING:
    from wandb.sdk.wandb_run import Run

CONFIRM_SECONDS = 20.0  # how long a server may take to count what it was sent
ASK_SECONDS = 5.0  # between two questions about runs that have ended, while the sweep runs


@dataclass
class _Live:
    """A run that is open on the server, and the first step that is not there yet."""

    run: Run
    view: RunView
    next_step: int


class Projector:
    """Writes a study's runs, online row by row or offline one run at a time; not thread-safe.

    Online, rows are sent as they come, and a resumed run continues at the step that the server names. A run
    counts as uploaded when the server, asked for it, counts all of its rows, files and artifacts; what was
    uploaded to one server, entity or project is not thereby on another.
    Offline, a trial's run is written at once when the trial has ended, read back, and then noted in the
    ledger: a folder that is not in the ledger was left by a killed process and is made anew. If the server
    fails, the rest is written offline; runs that had begun on it wait until they can continue there.
    Rows on the server cannot be taken back: if a version trains differently from an earlier one, its training
    gets another run, and the earlier one stays. Runs that were deleted on the server stay deleted, unless
    `force` is given.

    Records are immutable: one that is the same object as when it was last written is skipped.

    Attributes:
        gone: why a run cannot go on under its id on the server, by run id: it was deleted, or has other rows.
        busy_until: when the networks that are being uploaded must be there, by `time.monotonic`.
        anew: how and why a run was begun anew under another id, by run id; what is left of the former stays.
    """

    def __init__(
        self,
        study_dir: Path,
        *,
        online: bool,
        warn: Callable[[str], None],
        on_stop: Callable[[str], None] = lambda run_id: None,
        force: bool = False,
    ) -> None:
        """Begin with the content of the ledger.

        Args:
            study_dir: runs/<study>.
            online: whether to try the server.
            warn: called with a line for each problem but what is `gone`.
            on_stop: called with the id of a run whose stop button was pressed on its page, in another thread.
            force: whether to begin such runs anew, under other ids.
        """
        self._study_dir = study_dir
        self._wandb_dir = study_dir / "wandb"
        self._ledger = Ledger(self._wandb_dir)
        self._online = online
        self._warn = warn
        self._on_stop = on_stop
        self._force = force
        self._server: Server | None = None
        self._held: dict[str, Held] = {}  # what the server said last, by its ids
        self._sent: dict[str, int] = {}  # the next step of runs that have ended, by their ids on the server
        self._asked = 0.0  # when it was last asked about runs that have ended
        self._live: dict[str, _Live] = {}
        self._unconfirmed: dict[str, RunView] = {}
        self._reconciled = False
        self._settled = False  # whether the study has ended, so that its front is known
        self.gone: dict[str, str] = {}
        self.anew: dict[str, str] = {}
        self.busy_until = 0.0
        self._failed: dict[str, str] = {}  # why a run is not complete on the server, by run id
        self._end_of_server = ""  # why the server is not used any more
        self._dense: StageRecord | None = None  # as written last
        self._trials: dict[int, TrialRecord] = {}
        self._contenders: dict[tuple[str, int | None, int], ContenderRecord] = {}
        self._shown = 0  # complete trials in the study's run

    @property
    def page(self) -> str | None:
        """The address of the project's page; None offline."""
        return self._server.place if self._server and self._online else None

    def project(self, study: StudyRecord, *, final: bool = False) -> None:
        """Write what is new.

        Args:
            study: as it is now.
            final: also end every open run and, offline, write the run of the study.

        Raises:
            OSError: even an offline run cannot be written. Errors of wandb are then raised too.
        """
        self._begin(study)
        if study.dense is not self._dense:
            self._write(dense_view(study), final)
            if self._dense is not None and self._dense.state != study.dense.state:
                self._trials.clear()  # which are compared with it
            self._dense = study.dense
        self._settled = final and study.ended
        stands = standings(study) if self._settled else {}
        for trial in study.trials:
            if self._settled or self._trials.get(trial.number) is not trial:
                self._write(trial_view(study, trial, stands.get(trial.number, "")), final)
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
        self._confirm(CONFIRM_SECONDS if final else 0.0)
        if final and self._online:
            self._clear_away()

    def _study_is_due(self, study: StudyRecord) -> bool:
        """Whether to write the study's run before the sweep ends: online, after every 10 % more trials.

        Its tables hold every trial: written after each of many, they would cost as much as everything else.
        """
        complete = len(study.complete) if self._online else 0
        due = complete > 1.1 * self._shown
        if due:
            self._shown = complete
        return due

    def _write(self, view: RunView, final: bool) -> None:
        if self._online:
            view = self._unmixed(view)
            if not self._is_confirmed(view):
                self._stream(view)
        if not self._online:
            self._write_folder_of(view, final)

    def missing_on_server(self, study: StudyRecord) -> list[RunView]:
        """The runs that the server does not have, or not as they are now."""
        self._begin(study)
        self._settled = study.ended
        begun = [self._unmixed(view) for view in study_views(study) if view.state != "waiting"]
        return [view for view in begun if not self._is_confirmed(view)]

    def why_not(self, run_id: str) -> str:
        """Why a run is not on the server as it is."""
        own = self.gone.get(run_id) or self._failed.get(run_id)
        done = "sent, but not confirmed" if run_id in self._unconfirmed else "not sent"
        return own or f"{done}, as the server had failed ({self._end_of_server})"

    def cut_off(self, study: StudyRecord) -> list[RunView]:
        """The runs that are on a server in part, can only continue there, and have not been warned of."""
        told = self.gone.keys() | self._unconfirmed.keys()
        begun = [view for view in study_views(study) if view.state != "waiting" and view.id not in told]
        known = [(view, self._on_servers(view)) for view in begun]
        return [
            view
            for view, entries in known
            if entries and not any(self._shows(entry, view) for entry in entries)
        ]

    def _begin(self, study: StudyRecord) -> None:
        """Once: make the ledger agree with the folders, and connect to the server."""
        if not self._reconciled:
            self._reconciled = True
            self._reconcile(study)
        if self._online and self._server is None:
            self._settled = study.ended
            try:
                self._server = Server(study.config.wandb.project, study.config.wandb.entity)
                self._check(study)
            except Exception as error:
                self._go_offline(error)

    # Online

    def _entry(self, view: RunView) -> Entry | None:
        """What is known of a run on this server, or on one that was not noted."""
        assert self._server is not None
        return self._ledger.at(self._server.place, view.id)

    def _note(self, view: RunView, entry: Entry) -> None:
        """Note what is known of a run on this server."""
        assert self._server is not None
        self._ledger.put(self._server.place, view.id, entry)
        self._ledger.drop(UNKNOWN, view.id)

    def _is_confirmed(self, view: RunView) -> bool:
        entry = self._entry(view) if self._server else None
        return entry is not None and self._shows(entry, view)

    def _shows(self, entry: Entry, view: RunView) -> bool:
        """Whether what is known of a run is the view; how a trial stands matters only in the end."""
        known = entry.mark if self._settled else entry.mark.partition("+")[0]
        return known == view.mark

    def _unmixed(self, view: RunView) -> RunView:
        """The view, with another id if the run with its id has rows of other stages on the server."""
        return self._ledger.unmixed(self._server.place, view) if self._server else view

    def _id_there(self, view: RunView) -> str:
        """The id that a run has on the server."""
        assert self._server is not None
        return self._ledger.id_at(self._server.place, view)

    def _check(self, study: StudyRecord) -> None:
        """Ask the server for all runs, and find those that are not there as they were left."""
        assert self._server is not None
        views = [self._unmixed(view) for view in study_views(study)]
        self._held = self._server.held([self._id_there(view) for view in views])
        for view in views:
            entry = self._ledger.get(self._server.place, view.id)
            held = self._held.get(self._id_there(view))
            if entry is None:
                continue
            if held is None:
                self._give_up(view, "it is not on the server any more; was it deleted there?")
            elif self._shows(entry, view) and self._lack(view, held):
                self._note(view, replace(entry, mark=""))

    def _give_up(self, view: RunView, problem: str) -> None:
        """Leave a run on the server as it is: begin it again under another id, or only say so."""
        entry = self._entry(view) or Entry(chain=view.chain)
        if self._force or view.job_type == "study":
            self._note(view, replace(entry, mark="", again=entry.again + 1))
            self.anew[view.id] = f"begun anew as {self._id_there(view)}: {problem}"
        elif view.id not in self.gone:
            self._note(view, replace(entry, mark=""))
            self.gone[view.id] = problem

    def _lack(self, view: RunView, held: Held | None) -> str | None:
        """What the server lacks of a run that has ended; None if it has everything."""
        if held is None:
            return "it is not on the server"
        if held.rows != (count := view.count_rows(None)):
            return f"the server has {held.rows} of its {plural(count, 'row')}"
        if missing := [one.name for one in view.models if not one.is_input and one.name not in held.models]:
            return f"the server has not received the network {', '.join(missing)}"
        if held.lacking:
            return (
                f"the server has not received {plural(len(held.lacking), 'file')}, such as {held.lacking[0]}"
            )
        return None

    def _stream(self, view: RunView) -> None:
        """Log the view's new rows, and end the run if the view has ended."""
        ended = self._unconfirmed.get(view.id)
        if view.state == "waiting" or view.id in self.gone or (ended and ended.mark == view.mark):
            return
        live = self._live.get(view.id)
        if live is not None and live.view.mark == view.mark:
            return
        try:
            live = live or self._open(view)
            if live is None:
                return
            live.view = view
            last_step = sdk.log_rows(live.run, view.rows(live.next_step))
            if view.job_type == "study":
                sdk.write_summary(live.run, view)
        except Exception as error:
            self._failed[view.id] = one_line(error)
            self._go_offline(error)
            return
        if last_step is not None:
            live.next_step = last_step + 1
        if view.ended:
            self._end([self._live.pop(view.id)])

    def _open(self, view: RunView) -> _Live | None:
        """Open the view's run on the server; None if it cannot go on there."""
        kept = self._id_there(view)
        held = self._held.get(kept)
        try:
            run = sdk.open_run(
                replace(view, id=kept), self._study_dir, "online", partial(self._on_stop, view.id)
            )
        except Exception as error:
            if "deleted" not in str(error):
                raise
            self._give_up(view, "it was deleted on the server")
            return self._open(view) if view.id not in self.gone else None
        rows = held.rows if held else 0
        known = self._sent.get(kept) == run.starting_step  # by this process, which the server still counts
        if not known and rows != view.count_rows(run.starting_step):
            sdk.close(run)
            self._give_up(view, _other_rows(view, rows))
            return self._open(view) if view.id not in self.gone else None
        self._move_to_server(view)
        self._live[view.id] = live = _Live(run, view, run.starting_step)
        return live

    def _move_to_server(self, view: RunView) -> None:
        folder = self._ledger.get(FOLDER, view.id)
        if folder is not None and folder.folder:
            mark_synced(self._wandb_dir / folder.folder)
            self._ledger.drop(FOLDER, view.id)
        entry = self._entry(view) or Entry()
        self._note(view, Entry(chain=view.chain, again=entry.again))

    def _end_all(self) -> None:
        runs, self._live = list(self._live.values()), {}
        self._end(runs)

    def _end(self, runs: list[_Live]) -> None:
        """End runs in parallel, as each takes its whole timeout if the server does not answer."""
        uploads = [time.monotonic() + sdk.seconds_for(live.view.models) for live in runs]
        self.busy_until = max(self.busy_until, *uploads, 0.0)
        ends: SimpleQueue[tuple[_Live, Exception | None]] = SimpleQueue()
        for live in runs:
            threading.Thread(target=lambda live=live: ends.put((live, _finish(live))), daemon=True).start()
        for _ in runs:
            live, error = ends.get()
            if error is None:
                self._unconfirmed[live.view.id] = live.view
                self._sent[self._id_there(live.view)] = live.next_step
            else:
                self._failed[live.view.id] = one_line(error)
                self._go_offline(error)

    def _confirm(self, patience: float) -> None:
        """Note which of the ended runs are on the server; with patience, wait, and say which are not.

        A server counts what it was sent a little later.
        """
        if not self._unconfirmed or time.monotonic() - self._asked < (0 if patience else ASK_SECONDS):
            return
        end, pause = time.monotonic() + patience, 0.1
        while self._online and (lacks := self._still_lacking()) and time.monotonic() < end:
            time.sleep(pause)
            pause = min(2 * pause, 2.0)
        self._asked = time.monotonic()
        if patience and self._online and lacks:
            run, lack = next(iter(lacks.items()))
            self._warn(f"W&B: runs whose upload is not complete: {len(lacks)} ({run}: {lack})")

    def _clear_away(self) -> None:
        """Delete wandb's folders of runs that all servers have confirmed where they have begun.

        They were made from the stages, and could be again. What artifacts were put together in goes when
        none is under way.
        """
        settled = self._ledger.settled()
        for folder in self._wandb_dir.glob("*run-*"):
            if _run_of(folder) in settled:
                shutil.rmtree(folder, ignore_errors=True)
        if not self._unconfirmed:
            shutil.rmtree(self._wandb_dir / "artifacts", ignore_errors=True)

    def _still_lacking(self) -> dict[str, str]:
        """Ask the server about the runs that have ended, and note those that are complete there."""
        assert self._server is not None
        ids = {view.id: self._id_there(view) for view in self._unconfirmed.values()}
        lacks = {}
        try:
            self._held |= self._server.held(list(ids.values()))
            for view in list(self._unconfirmed.values()):
                held = self._held.get(ids[view.id])
                if lack := self._lack(view, held):
                    lacks[view.id] = self._failed[view.id] = lack
                elif held is not None:
                    self._server.set_seconds(held, view.seconds)
                    del self._unconfirmed[view.id]
                    entry = self._entry(view) or Entry()
                    self._note(view, replace(entry, mark=view.mark, chain=view.chain))
        except Exception as error:
            self._go_offline(error)
        return lacks

    def _go_offline(self, error: Exception) -> None:
        if self._online:
            self._online, self._end_of_server = False, one_line(error)
            self._warn(
                f"W&B: the server does not take this sweep's runs, continuing offline ({self._end_of_server})"
            )
            self._end_all()
            sdk.shut_down()

    # Offline

    def _write_folder_of(self, view: RunView, final: bool) -> None:
        old = self._ledger.get(FOLDER, view.id)
        if (old is not None and self._shows(old, view)) or self._on_servers(view):
            return
        if view.ended or (final and view.job_type == "study" and view.state != "waiting"):
            if old is not None and old.folder:  # first, as one written in the same second has the same name
                shutil.rmtree(self._wandb_dir / old.folder, ignore_errors=True)
            folder = self._write_folder(view)
            self._ledger.put(FOLDER, view.id, Entry(view.mark, view.chain, folder.name))

    def _on_servers(self, view: RunView) -> list[Entry]:
        """What is known of a run on servers that it may be meant for."""
        ending = f"/{view.entity}/{view.project}" if view.entity else f"/{view.project}"
        return self._ledger.on_servers(view.id, ending)

    def _write_folder(self, view: RunView) -> Path:
        run = sdk.open_run(view, self._study_dir, "offline")
        sdk.log_rows(run, view.rows(0))
        sdk.finish_run(run, view)
        folder = Path(run.dir).parent
        _wait_until_whole(folder)
        return folder

    def _reconcile(self, study: StudyRecord) -> None:
        """Make the ledger and the offline folders of this study agree."""
        for folder in sorted(self._wandb_dir.glob("offline-run-*")):
            run_id = _run_of(folder)
            if run_id.startswith(f"{study.name}-") and run_id.endswith(f"-{study.uid[:6]}"):
                self._reconcile_folder(folder, run_id)
        for run_id, entry in self._ledger.items(FOLDER):
            if not (self._wandb_dir / str(entry.folder)).is_dir():
                self._ledger.drop(FOLDER, run_id)

    def _reconcile_folder(self, folder: Path, run_id: str) -> None:
        """A folder marked as uploaded by `wandb sync` may be on some server, which will be asked."""
        entry = self._ledger.get(FOLDER, run_id)
        noted = entry is not None and entry.folder == folder.name
        if is_synced(folder):
            if noted or not self._ledger.servers(run_id):
                self._ledger.put(UNKNOWN, run_id, Entry(chain=entry.chain if entry and noted else None))
                self._ledger.drop(FOLDER, run_id)
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


def _other_rows(view: RunView, rows: int) -> str:
    """Why a run with so many rows on the server cannot go on there."""
    if view.job_type == "study":
        return f"rows of trials that were run again belong between the {rows} that it has"
    return f"the server has {plural(rows, 'row')} of it, not those of this study"


def _finish(live: _Live) -> Exception | None:
    try:
        sdk.log_models(live.run, live.view.models)
    except Exception as error:
        with suppress(Exception):  # wandb's threads would go on for a run that is not ended
            sdk.close(live.run)
        return error
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
    return re.sub(r"^(offline-)?run-\d+_\d+-", "", folder.name)  # killed before it had a file
