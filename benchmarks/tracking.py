"""What W&B costs the default sweep, in CPU time of one run that is tracked online. On Linux alone.

The server is the tests' stand-in, in this process, whose own time does not count.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONFIG = "fashion-mini"
POLL_SECONDS = 1.0  # more often, looking at the processes would take what they are to have
SERVICE = "wandb-core"


@dataclass(frozen=True)
class Spent:
    """CPU seconds: of wandb's service, and of the driver's threads, also ended ones, but the main one."""

    service: float = 0.0
    threads: float = 0.0


def main() -> None:
    """Print what W&B took of a sweep: its service, the driver's threads but the main one, and its import."""
    sys.path.insert(0, str(ROOT / "tests" / "sweeps"))
    from fake_wandb import API_KEY, FakeWandb

    server = FakeWandb()
    server.start()
    environment = {**os.environ, "WANDB_BASE_URL": server.url, "WANDB_API_KEY": API_KEY}
    with tempfile.TemporaryDirectory() as runs:
        command = [sys.executable, "-m", "sweeps", "run", CONFIG, "--wandb", "online", "--runs", runs, "-q"]
        spent, began = Spent(), time.perf_counter()
        with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL) as sweep:
            while sweep.poll() is None:
                spent = _look(sweep.pid) or spent
                time.sleep(POLL_SECONDS)
    server.stop()
    assert sweep.returncode == 0, f"the sweep ended with {sweep.returncode}"
    seconds, cores = time.perf_counter() - began, len(os.sched_getaffinity(0))
    loading = _import_of("wandb") - _import_of("sys")
    cost = spent.service + spent.threads + loading
    rows = sum(len(run.history) for run in server.runs.values())
    print(
        f"`sweeps run {CONFIG}` took {seconds:.0f} s on {cores} cores, and W&B at most {cost:.1f} s of their "
        f"CPU time, {cost / (seconds * cores):.1%}:\n{spent.service:.1f} s {SERVICE}, {spent.threads:.1f} s "
        f"the driver's threads but the main one, {loading:.1f} s the import of wandb;\n"
        f"{len(server.runs)} runs with {rows} rows, {len(server.committed('model'))} networks."
    )


def _of_children() -> float:
    """CPU seconds of all processes that have ended and were begun by this one, or by these."""
    found = resource.getrusage(resource.RUSAGE_CHILDREN)
    return found.ru_utime + found.ru_stime


def _import_of(module: str) -> float:
    """CPU seconds of a process that imports a module."""
    before = _of_children()
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
    return _of_children() - before


def _look(driver: int) -> Spent | None:
    """What W&B has taken so far; None once the driver or the service has ended, which it does last."""
    try:
        tasks = list(Path(f"/proc/{driver}/task").iterdir())
        main, whole = _cpu(Path(f"/proc/{driver}/task/{driver}/stat")), _cpu(Path(f"/proc/{driver}/stat"))
        children = [Path("/proc") / pid for task in tasks for pid in (task / "children").read_text().split()]
        services = [child for child in children if (child / "comm").read_text().strip() == SERVICE]
        return Spent(sum(_cpu(one / "stat") for one in services), whole - main) if services else None
    except OSError:
        return None


def _cpu(stat: Path) -> float:
    """CPU seconds of a process or thread."""
    fields = stat.read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
