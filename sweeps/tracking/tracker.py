"""W&B during a sweep: a separate thread, so that no call to wandb ever blocks the sweep."""

from __future__ import annotations

import logging
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

from sweeps.records import StudyRecord
from sweeps.tracking.mode import Mode
from sweeps.tracking.projection import Projector
from sweeps.tracking.views import run_id

logger = logging.getLogger("sweeps.tracking")


class Tracker:
    """Projects a study to W&B in the background.

    `update` passes on the study as it is now and returns at once; a newer state replaces one that has not
    been projected yet. Nothing here raises: an error in wandb becomes a logged warning, which `news` tells
    once and `close` with all others. With mode "disabled" nothing is done and wandb is not imported.
    """

    def __init__(self, study_dir: Path, mode: Mode, sync: str = "python -m sweeps sync CONFIG") -> None:
        """Begin.

        Args:
            study_dir: runs/<study>.
            mode: how W&B is used.
            sync: the command that completes the record, for the warnings.
        """
        self._enabled = mode.value != "disabled"
        self._sync = sync
        self._stopped: SimpleQueue[str] = SimpleQueue()  # ids of runs
        self._projector = Projector(
            study_dir, online=mode.value == "online", warn=self._warn, on_stop=self._stopped.put
        )
        self._warnings: list[str] = []
        self._told = 0  # of the warnings
        self._named: set[tuple[str, str]] = set()  # runs that were left out or begun anew, and told of
        self._latest: StudyRecord | None = None
        self._closing = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="wandb-projection", daemon=True)

    def update(self, study: StudyRecord) -> None:
        """Project the study as it is now, later."""
        if not self._enabled or self._closing:
            return
        self._latest = study
        self._wake.set()
        if self._thread.ident is None:
            # requests silences this itself when wandb imports it, but a `catch_warnings` that ends meanwhile
            # in another thread takes that back.
            warnings.filterwarnings("ignore", "SOCKS support in urllib3")
            self._thread.start()

    @property
    def page(self) -> str | None:
        """The address of the project's page; None unless runs are on the server."""
        return self._projector.page

    def news(self) -> list[str]:
        """The warnings since the last call."""
        news = self._warnings[self._told :]
        self._told += len(news)
        return news

    def stopped(self) -> list[int]:
        """The trials whose stop button was pressed on their pages since the last call."""
        runs = [self._stopped.get() for _ in range(self._stopped.qsize())]
        study = self._latest
        trials = study.trials if study else []
        return [trial.number for trial in trials if study and run_id(study, trial.number) in runs]

    def close(self, timeout: float = 60.0, go_on: Callable[[], bool] = lambda: True) -> list[str]:
        """Project the last state and end all runs.

        Args:
            timeout: in seconds.
            go_on: asked, after that, whether to wait on for networks that are being uploaded.

        Returns:
            All warnings.
        """
        self._closing = True
        if self._thread.ident is not None:
            self._wake.set()
            self._thread.join(timeout)
            while self._thread.is_alive() and time.monotonic() < self._projector.busy_until and go_on():
                self._thread.join(0.2)
            if self._thread.is_alive():
                self._warn("W&B: not finished in time; the next run catches up")
        return list(self._warnings)

    def _run(self) -> None:
        try:
            while not self._project_latest():
                pass
        except Exception as error:
            self._enabled = False
            self._warn(f"W&B: given up, the sweep goes on without it ({type(error).__name__}: {error})")

    def _project_latest(self) -> bool:
        """Wait for a state and project it; True after the last one."""
        self._wake.wait()
        self._wake.clear()
        closing = self._closing  # read before the state, so that the final projection has the last state
        study = self._latest
        assert study is not None
        self._projector.project(study, final=closing)
        for run, why in self._projector.gone.items() - self._named:
            self._warn(f"W&B: the run {run} is left out: {why}", "--force")
        for run, how in self._projector.anew.items() - self._named:
            self._say(f"W&B: the run {run} is {how}")
        self._named |= self._projector.gone.items() | self._projector.anew.items()
        if closing and (runs := self._projector.cut_off(study)):
            self._warn(f"W&B: runs that are on the server in part: {len(runs)}")
        return closing

    def _warn(self, problem: str, *options: str) -> None:
        self._say(f"{problem}; complete the record with: {' '.join((self._sync, *options))}")

    def _say(self, message: str) -> None:
        logger.warning(message)  # before anybody who waits for `news` goes on
        self._warnings.append(message)
