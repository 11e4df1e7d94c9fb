"""A sweep whose stages take no time and are kept in any place."""

from __future__ import annotations

import signal
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unmirrored import NoMirror

from benchmarks import instant
from sweeps.config import Config, load_config
from sweeps.console import Console
from sweeps.driver import Driver
from sweeps.executors import Executor
from sweeps.executors.inline import InlineExecutor
from sweeps.interruption import Interruption
from sweeps.jobs import Job, Place, Watch
from sweeps.records import StudyRecord
from sweeps.resuming import resume
from sweeps.study import keep_config, make_study
from sweeps.tracking import Tracker
from sweeps.tracking.mode import Mode

SPACE = "{sparse.lambda: {log: [0.001, 0.008], steps: 3}, prune.ratio: {range: [0.2, 0.8], step: 0.1}}"


@dataclass
class Runner:
    """Runs of a study in one runs folder, and the epochs that were computed in them."""

    runs: Path
    place: str | None
    trials: int = 6
    computed: Counter[str] = field(default_factory=Counter)

    @property
    def config(self) -> Config:
        trials = f"search.trials={self.trials}"
        chosen = ["search.sampler=random", trials, f"search.space={SPACE}", "finetune.epochs=3"]
        return load_config("smoke", [*chosen, *([f"stages={self.place}"] if self.place else [])])

    def run(
        self, epochs: int | None = None, workers: int = 2, executor: Executor | None = None
    ) -> StudyRecord:
        """Run to the goal, or until so many epochs have been computed; in this process if not given."""
        interruption, config = Interruption(), self.config

        def compute(job: Job, place: Place, watch: Watch) -> bool:
            def epoch(row: dict[str, Any]) -> None:
                self.computed[f"{job.key} {row['epoch']}"] += 1
                if sum(self.computed.values()) == epochs:
                    interruption.note(signal.SIGTERM)
                watch.epoch(row)

            return instant.compute(job, place, Watch(epoch, watch.step, watch.warning, watch.stop))

        folder = self.runs / config.study
        folder.mkdir(parents=True, exist_ok=True)
        study = make_study(folder, config, "float32", machine="")
        keep_config(folder, config)
        state, sampling, _ = resume(study, config, self.runs)
        executor = executor or InlineExecutor(compute, workers)
        tracker, quiet = Tracker(folder, Mode("disabled", "")), Console(quiet=True)
        return Driver(state, study, sampling, NoMirror(), executor, tracker, quiet, interruption).run()
