"""The driver beside what people write: `study.optimize`, with every trial trained from scratch."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna

from benchmarks import recorded
from benchmarks.driver import run_in
from benchmarks.lockstep import Lockstep
from benchmarks.recorded import EPOCHS, SPACE, SPARSE_EPOCHS
from benchmarks.stopping import volume
from sweeps.executors import Event
from sweeps.jobs import Job

SEEDS = (0, 1, 2)
TRIALS = 40
MOMENTS = (80, 160, 213, 320, 480, 640)  # epochs; 213 is a third of what TRIALS take by hand
OURS = {"sharing and stopping": "search.stopping=0.001", "sharing alone": "search.stopping=null"}

Course = list[tuple[int, float]]
"""The hypervolume after so many epochs, at each end of a trial."""


def main() -> None:
    """Print the epochs that each needs for the hypervolume that `study.optimize` ends with, and the way."""
    total = TRIALS * (SPARSE_EPOCHS + EPOCHS)
    print(
        f"{TRIALS} trials of study.optimize, {SPARSE_EPOCHS} + {EPOCHS} epochs each, on "
        f"{len(recorded.load().curves)} recorded points; TPE in both\n"
    )
    print(
        f"| seed | study.optimize, {total} epochs | " + " | ".join(f"{name}: epochs" for name in OURS) + " |"
    )
    print("|---" * (2 + len(OURS)) + "|")
    courses: dict[str, list[Course]] = {name: [] for name in ("study.optimize", *OURS)}
    for seed in SEEDS:
        plain = by_hand(seed)
        end = plain[-1][1]
        courses["study.optimize"].append(plain)
        cells = [f"{end:,.0f}, reached after {_epochs_to(end, plain)}"]
        for name, change in OURS.items():
            courses[name].append(course := by_driver(seed, change))
            needed = _epochs_to(end, course)
            cells.append(
                f"{needed} ({needed / total:.0%})" if needed else f"not reached: {course[-1][1]:,.0f}"
            )
        print(f"| {seed} | " + " | ".join(cells) + " |", flush=True)
    print("\n| mean hypervolume after epochs | " + " | ".join(map(str, MOMENTS)) + " |")
    print("|---" * (1 + len(MOMENTS)) + "|")
    for name, some in courses.items():
        means = [statistics.mean(_after(moment, course) for course in some) for moment in MOMENTS]
        print(f"| {name} | " + " | ".join(f"{mean:,.0f}" for mean in means) + " |")


def by_hand(seed: int) -> Course:
    """What people write, whose points may repeat."""
    values = {path: _values(path) for path in SPACE}
    found: list[dict[str, Any]] = []
    course: Course = []

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        strength, budget = (
            values[path][trial.suggest_int(path, 0, len(values[path]) - 1)]
            for path in ("sparse.lambda", "prune.params")
        )
        weights = trial.suggest_categorical("finetune.weights", values["finetune.weights"])
        curve = recorded.load().of[strength, budget, weights]
        found.append({"val_accuracy": curve.tuned[-1], "params": curve.params})
        course.append((len(found) * (SPARSE_EPOCHS + EPOCHS), volume(found)))
        return curve.tuned[-1], curve.params

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=seed)
    optuna.create_study(directions=["maximize", "minimize"], sampler=sampler).optimize(objective, TRIALS)
    return course


def by_driver(seed: int, *changes: str) -> Course:
    """The driver, with one worker, until it has tried every point."""
    points = len(recorded.load().curves)
    config = recorded.settings(f"seed={seed}", "search.sampler=tpe", f"search.trials={points}", *changes)
    executor = _Counting()
    with tempfile.TemporaryDirectory() as folder:
        study = run_in(Path(folder), config, executor)
    ends = sorted((executor.ends[trial.stages[-1].key], trial) for trial in study.complete)
    rows = [trial.metrics for _, trial in ends]
    return [(epochs, volume(rows[: count + 1])) for count, (epochs, _) in enumerate(ends)]


class _Counting(Lockstep):
    """Counts the epochs of trials, and notes how many there were when each stage ended."""

    def __init__(self) -> None:
        super().__init__(recorded.compute)
        self.ends: dict[str, int] = {}
        self._epochs = 0
        self._dense = ""

    def start(self, job: Job) -> str:
        if job.stage.epochs == SPARSE_EPOCHS + EPOCHS:
            self._dense = job.key  # no trial, and no part of the search
        return super().start(job)

    def poll(self, timeout: float) -> list[Event]:
        events = super().poll(timeout)
        for event in events:
            self._epochs += event.kind == "epoch" and event.key != self._dense
            if event.ends:
                self.ends[event.key] = self._epochs
        return events


def _values(path: str) -> Sequence[Any]:
    entry = recorded.settings("search.trials=1").search.space[path]
    return list(entry.values() or [])


def _after(epochs: int, course: Course) -> float:
    """The hypervolume after so many epochs."""
    return max((reached for moment, reached in course if moment <= epochs), default=0.0)


def _epochs_to(hypervolume: float, course: Course) -> int:
    """The epochs after which a hypervolume is reached; 0 if it never is."""
    return next((epochs for epochs, reached in course if reached >= hypervolume * (1 - 1e-12)), 0)
