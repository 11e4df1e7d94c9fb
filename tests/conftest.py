"""What the tests of both packages share."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

# A suite begun in the background of a script or by nohup ignores these, and so would every process it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# pytest-xdist tells its workers how wide its terminal is, as watch(1) tells the commands that it runs.
os.environ.pop("COLUMNS", None)


@pytest.fixture(scope="session")
def live() -> Iterator[Callable[..., dict[str, Any]]]:
    """Calls a function of a test file in a process that may be killed; see `live` in mortal.py."""
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("mortal.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    ) as server:
        orders, answers = server.stdin, server.stdout
        assert orders is not None
        assert answers is not None

        def order(
            function: Callable[..., None],
            arguments: dict[str, Any],
            *,
            place: str | None = None,
            limit: int = 0,
            seconds: float | None = None,
            counted: bool = True,
            loaded: Sequence[str] = (),
        ) -> dict[str, Any]:
            given = {
                "file": function.__code__.co_filename,
                "name": function.__name__,
                "arguments": arguments,
                "place": place,
                "limit": limit,
                "seconds": seconds,
                "counted": counted,
                "loaded": loaded,
            }
            print(json.dumps(given), file=orders, flush=True)
            answer: dict[str, Any] = json.loads(answers.readline())
            assert answer["killed"] or answer["status"] == 0, "it ended with a traceback, which is above"
            return answer

        yield order
        orders.close()


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_xdist_auto_num_workers() -> Generator[None, int, int]:
    """One process more than there are cores, as many tests wait: for servers, clusters, other processes."""
    return (yield) + 1


LONGEST = (
    *("sweeps/executors/test_ray.py", "sweeps/test_sweep.py", "sweeps/test_kill.py", "sweeps/test_slurm.py"),
    *("examples/test_examples.py", "sweeps/tracking/test_online.py", "sweeps/tracking/test_confirmed.py"),
    *("sweeps/stages/test_mirrored.py", "sweeps/tracking/test_models.py", "slimnet/cli/test_cli.py"),
    *("sweeps/cli/test_commands.py", "sweeps/wandb_sweeps/test_trial.py", "sweeps/test_driver.py"),
)
"""The files that take longest, from about two minutes to half a one."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, then others with slow tests: none is left for one process at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: (places.get(item.path, len(LONGEST)), item.path not in slow))


def pytest_collection_finish() -> None:
    """Leave what is imported by now out of every garbage collection: torch's objects are a million."""
    gc.freeze()


NEEDS = {  # a word in the reason of a skipped test -> what the test needs
    "chromium": "a browser: apt-get install chromium",
    "dataset-fashion-mnist": "Debian's Fashion-MNIST: apt-get install dataset-fashion-mnist",
    "C++ compiler": "a C++ compiler: apt-get install g++",
    "onnx": "ONNX: pip install onnx onnxscript onnxruntime",
}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print in one line what skipped tests need, and how to install it."""
    reasons = [
        report.longrepr[2] for report in terminalreporter.stats.get("skipped", [])
    ]  # file, line, reason
    wanted = {advice: sum(word in reason for reason in reasons) for word, advice in NEEDS.items()}
    missing = [f"{count} need {advice}" for advice, count in wanted.items() if count]
    if missing:
        packages = "all Debian packages: sudo sh scripts/test-extras.sh"
        terminalreporter.write_line(f"not run: {'; '.join(missing)} ({packages})")
