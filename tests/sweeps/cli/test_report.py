"""The report as a command serves it while a sweep runs."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

from running import ROOT, Sweep, wait_until


def test_a_watched_report_follows_the_study_until_ctrl_c(finished: Sweep, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(finished.runs, runs)
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "sweeps", "report", "smoke", "--runs", str(runs), "--watch"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        assert process.stdout
        said = process.stdout.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+/", said)
        assert address, said
        assert b"3 of 3 trials complete" in urlopen(address[0]).read()
        for result in (runs / "stages" / "finetune").glob("*/result.json"):
            result.unlink()
        wait_until(lambda: b"0 of 3 trials complete" in urlopen(address[0]).read())
    finally:
        process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 0
