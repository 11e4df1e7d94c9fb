"""A trial that an agent of W&B runs: the point it was given, and its run on W&B as the trial goes on."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from slimnet.errors import SlimnetError
from slimnet.wording import one_line
from sweeps.config import Config
from sweeps.pareto import dominates
from sweeps.records import StudyRecord
from sweeps.tracking import sdk
from sweeps.tracking.server import Server
from sweeps.tracking.views import Row, RunView, trial_view
from sweeps.wandb_sweeps.definition import ACCURACY

if TYPE_CHECKING:
    from wandb.sdk.wandb_run import Run

SWEEP = "WANDB_SWEEP_ID"
NEWS_SECONDS = 2.0  # between two looks at the trial
Read = Callable[[], StudyRecord | None]
Rows = Callable[[int], Iterator[tuple[int, Row]]]
logger = logging.getLogger("sweeps.tracking")


def overrides_of(config: Config) -> tuple[str, list[str]]:
    """The id of the run that an agent has begun, and the overrides that make a study of its trial alone.

    The study is named after the run, so that an agent which gets the run again goes on with it. Its stages
    lie with those of all studies, and are shared.

    Raises:
        SlimnetError: this was not begun by an agent.
    """
    run, path = os.environ.get("WANDB_RUN_ID"), os.environ.get("WANDB_SWEEP_PARAM_PATH")
    if not run or not path:
        raise SlimnetError(
            "this command is for agents of a W&B sweep; make one with: sweeps wandb-sweep CONFIG"
        )
    given = yaml.safe_load(Path(path).read_text())
    point = {name: given[name]["value"] for name in config.search.space if name in given}
    fields = {
        "study": f"{config.study}-{run}",
        "search.trials": 1,
        "search.points": [point],
        "controls": {},
        "confirm": {},
        "wandb.mode": "disabled",
    }
    return run, [f"{name}={json.dumps(value)}" for name, value in fields.items()]


@contextmanager
def followed(run: str, config: Config, folder: Path, read: Read) -> Iterator[None]:
    """Log a trial to the agent's run on W&B while it is computed, and end the run with it.

    Args:
        run: the id of the run.
        config: of the study that the sweep is of.
        folder: where wandb may write.
        read: reads the study of the trial; None before there is one.
    """
    follower = _Follower(run, config, folder, read)
    ended = threading.Event()
    thread = threading.Thread(target=follower.until, args=(ended,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        follower.finish()


class _Follower:
    def __init__(self, run: str, config: Config, folder: Path, read: Read) -> None:
        self._id = run
        self._config = config
        self._folder = folder
        self._read = read
        self._run: Run | None = None
        self._view: RunView | None = None
        self._next = 0

    def until(self, ended: threading.Event) -> None:
        """Log what is new until the trial has ended; what fails is tried again."""
        while not ended.wait(NEWS_SECONDS):
            try:
                self._look()
            except Exception as error:
                logger.warning(f"W&B: the run {self._id} is not brought up to date ({error})")

    def finish(self) -> None:
        """Log the rest, and end the run.

        Raises:
            SlimnetError: the server does not take it.
        """
        try:
            self._look()
            if self._run is not None and self._view is not None:
                view = self._view
                if not view.ended and Server(view.project, view.entity).was_stopped(view.id):
                    view = _stopped(view)  # else the sweep would hand it out again
                sdk.log_models(self._run, view.models if self._uploads(view) else ())
                sdk.finish_run(self._run, view)
        except Exception as error:
            with suppress(Exception):
                if self._run is not None:
                    sdk.close(self._run)
            raise SlimnetError(
                f"W&B did not take the run {self._id} ({one_line(error)}); its stages are kept, "
                "and the same command logs them again"
            ) from error

    def _look(self) -> None:
        """Log what is new."""
        record = self._read()
        if record is None or not record.trials:
            return
        trial = record.trials[0]
        view = self._of_agent(trial_view(_as_part(record, self._config), trial))
        self._view = view = replace(view, rows=partial(_judged_rows, view.rows, trial.stages[-1].name))
        if self._run is None:
            self._run = sdk.open_run(view, self._folder, "online")
            self._next = self._run.starting_step
        last = sdk.log_rows(self._run, view.rows(self._next))
        self._next = self._next if last is None else last + 1

    def _of_agent(self, view: RunView) -> RunView:
        """The view as the agent's run, in the place that the agent has set."""
        environment: Any = os.environ.get
        return replace(
            view,
            id=self._id,
            name=view.name.partition(" · ")[2],
            project=environment("WANDB_PROJECT") or view.project,
            entity=environment("WANDB_ENTITY") or view.entity,
            notes=f"A trial of {self._config.study}, given out by the sweep {environment(SWEEP)}.",
            make_models=lambda: tuple(
                one if one.is_input else replace(one, aliases=(one.aliases[0], self._id))
                for one in view.models
            ),
        )

    def _uploads(self, view: RunView) -> bool:
        """Whether to upload the trial's networks: for "front", if no other of the sweep dominates it now."""
        if self._config.wandb.artifacts != "front" or not view.models:
            return bool(view.models)
        own, search = view.summary, self._config.search
        others = Server(view.project, view.entity).summaries(os.environ[SWEEP])
        judged = {*search.objectives, *search.constraints}
        ended = (one for one in others.values() if one.get("state") == "complete")
        measured = (one for one in (own, *ended) if _has_numbers(one, judged))
        allowed = [one for one in measured if search.allows(one)]
        return own in allowed and not any(dominates(one, own, search.objectives) for one in allowed)


def _stopped(view: RunView) -> RunView:
    return replace(view, state="stopped", make_summary=lambda: {**view.summary, "state": "stopped"})


def _judged_rows(rows: Rows, last: str, start: int) -> Iterator[tuple[int, Row]]:
    """Rows in which accuracies of the last training also have the name by which the sweep judges its runs."""
    for step, row in rows(start):
        measured = f"{last}/{ACCURACY}"
        yield step, {**row, ACCURACY: row[measured]} if measured in row else row


def _has_numbers(facts: dict[str, Any], names: Iterable[str]) -> bool:
    return all(isinstance(facts.get(name), int | float) for name in names)


def _as_part(record: StudyRecord, config: Config) -> StudyRecord:
    """The study of one trial under the name of that which the sweep is of, with the trial's networks."""
    artifacts = "none" if config.wandb.artifacts == "none" else "all"
    wandb = record.config.wandb.model_copy(update={"artifacts": artifacts})
    return replace(record, name=config.study, config=record.config.model_copy(update={"wandb": wandb}))
