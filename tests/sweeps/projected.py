"""Projects records of studies with the real SDK, and looks at what a server then holds."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from fake_wandb import FakeWandb
from tracked import run_id

from sweeps.records import StudyRecord
from sweeps.tracking import Mode, Tracker

ONLINE = Mode("online", "for the test")
OFFLINE = Mode("offline", "for the test")
STEPS = list(range(6))  # of a whole trial
PATIENCE = 300.0  # seconds; a machine that is busy with something else must not fail a test

Wait = Callable[[float], None]


def track(study_dir: Path, *states: StudyRecord, mode: Mode = ONLINE) -> list[str]:
    """Projects one state after the other; returns the warnings."""
    tracker = Tracker(study_dir, mode)
    for state in states:
        tracker.update(state)
    return tracker.close(timeout=PATIENCE)


def wait_for(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def steps(server: FakeWandb, name: int | str) -> list[int]:
    """The steps of a run's rows; none if there is no such run."""
    run = server.runs.get(run_id(name))
    return run.steps() if run else []
