"""What a driver costs at 100, 1,000 and 10,000 trials, with stages that take no time."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks import instant
from slimnet.precision import Precision
from sweeps.config import Config, load_config
from sweeps.console import Console
from sweeps.driver import Driver
from sweeps.executors import Event, Executor
from sweeps.executors.inline import InlineExecutor
from sweeps.interruption import Interruption
from sweeps.jobs import Job
from sweeps.outputs import write_outputs
from sweeps.records import StudyRecord
from sweeps.resuming import resume
from sweeps.study import keep_config, make_study
from sweeps.tracking import Tracker
from sweeps.tracking.mode import Mode

SIZES = (100, 1000, 10_000)
COLUMNS = {
    "trials": "trials",
    "events": "events",
    "trial_ms": "ms per trial",
    "event_ms": "ms per event",
    "sampler_ms": "sampler's, ms per trial",
    "start_s": "start, s",
    "memory_mb": "peak, MB",
    "report_s": "report, s",
    "report_mb": "report, MB",
}


def main() -> None:
    """Print the table, each size measured in a process of its own."""
    print(
        "CPU time of the driver's thread, without the sampler's own (a random one), W&B off, 10 epochs of\n"
        "fine-tuning per trial; `start` goes on with the finished study.\n"
    )
    print("  ".join(COLUMNS.values()))
    for size in SIZES:
        command = [sys.executable, "-m", "benchmarks.driver", str(size)]
        facts = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print("  ".join(_cell(facts[name]).rjust(len(title)) for name, title in COLUMNS.items()), flush=True)


def _cell(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.2f}"


def measure(trials: int) -> dict[str, Any]:
    """The facts for one size."""
    config = load_config(
        "fashion-mini",
        [
            "search.sampler=random",
            "search.stopping=null",
            f"search.trials={trials}",
            "search.space={sparse.lambda: {log: [0.001, 0.008], steps: 4}, prune.ratio: {range: [0.2, 0.9]}}",
        ],
    )
    with tempfile.TemporaryDirectory() as folder:
        executor = _Counting()
        first = _Run(config, Path(folder), executor)
        began = time.thread_time()
        record = first.driver.run()
        spent = time.thread_time() - began - first.sampling.sampler_seconds
        assert len(record.complete) == trials

        began = time.perf_counter()
        again = _Run(config, Path(folder), _Counting())
        assert again.driver.run().front == record.front
        start = time.perf_counter() - began
        unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes on macOS, KiB on Linux
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
        report, size = _report(record, Path(folder))
    return {
        "trials": trials,
        "events": executor.events.total(),
        "trial_ms": 1000 * spent / trials,
        "event_ms": 1000 * spent / executor.events.total(),
        "sampler_ms": 1000 * first.sampling.sampler_seconds / trials,
        "start_s": start,
        "memory_mb": int(memory),
        "report_s": report,
        "report_mb": size,
    }


class _Counting(InlineExecutor):
    """Counts the news."""

    def __init__(self) -> None:
        super().__init__(instant.compute, workers=2)
        self.events: Counter[str] = Counter()

    def poll(self, timeout: float) -> list[Event]:
        events = super().poll(timeout)
        self.events.update(event.kind for event in events)
        return events

    def start(self, job: Job) -> str:
        self.events["start"] += 1
        return super().start(job)


def run_in(runs: Path, config: Config, executor: Executor, precision: Precision = "float32") -> StudyRecord:
    """Run a sweep to its end, without W&B and without a word."""
    return _Run(config, runs, executor, precision).driver.run()


class _Run:
    """A run of a sweep, as the command line makes one."""

    def __init__(
        self, config: Config, runs: Path, executor: Executor, precision: Precision = "float32"
    ) -> None:
        folder = runs / config.study
        folder.mkdir(parents=True, exist_ok=True)
        keep_config(folder, config)
        study = make_study(folder, config, precision)
        state, self.sampling, mirror = resume(study, config, runs)
        tracker = Tracker(folder, Mode("disabled", ""))
        self.driver = Driver(
            state, study, self.sampling, mirror, executor, tracker, Console(quiet=True), Interruption()
        )


def _report(record: StudyRecord, runs: Path) -> tuple[float, float]:
    """Seconds and megabytes of the front's files and the report."""
    began = time.perf_counter()
    page = write_outputs(runs / record.name, record)
    return time.perf_counter() - began, page.stat().st_size / 1e6


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))
