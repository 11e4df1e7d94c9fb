"""Makes docs/terminal.svg, the terminal in the README, from a real sweep: on its way, and at its end.

    python scripts/record_terminal.py [CONFIG] [--out FILE] [--runs DIR]

The sweep runs in DIR, or in a folder that is deleted afterwards. Where it has ended already, there is nothing
to be seen of its way.
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from rich.console import Console
from rich.text import Text

from sweeps.config import load_config
from sweeps.console import display
from sweeps.progress import Progress, ProgressFile

OUT = Path(__file__).resolve().parent.parent / "docs" / "terminal.svg"
COLUMNS = 110
SHOWN_AT = 0.6  # of the epochs
HIDDEN = ("load one:", "more trials:", "latency:")  # lines that say nothing to who only looks


def run(config: str, runs: Path) -> tuple[list[str], Progress | None]:
    """Run a sweep; returns the lines that it prints, and how far it was at about SHOWN_AT of its epochs."""
    script = Path(sys.executable).with_name("sweeps")
    runs.parent.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        [script, "run", config, "--runs", runs.name, "--wandb", "disabled"],
        cwd=runs.parent,
        stdout=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "COLUMNS": str(COLUMNS),
            "PATH": os.pathsep.join([str(script.parent), os.environ.get("PATH", "")]),  # for what it suggests
        },
    )
    assert process.stdout is not None
    lines: list[str] = []
    reading = threading.Thread(target=lambda: lines.extend(process.stdout or ()))
    reading.start()
    file, shown = ProgressFile(runs / load_config(config).study), None
    while reading.is_alive():
        reading.join(0.5)
        now = file.read(since=0.0)
        if now and now.front and (shown is None or now.epochs_done <= SHOWN_AT * now.epochs_total):
            shown = now
    if process.wait():
        raise SystemExit(f"the sweep ended with status {process.returncode}:\n{''.join(lines[-20:])}")
    return [line.rstrip("\n") for line in lines], shown


def picture(config: str, lines: list[str], shown: Progress | None) -> str:
    """The recording as SVG."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text(f"$ sweeps run {config}", style="bold"))
    stamped = [line[2:3] == ":" and line[5:6] == ":" for line in lines]
    for line in lines[: stamped.index(True)]:
        console.print(line, markup=False, highlight=False)
    if shown:
        console.print(display(shown))
        console.print(Text("  ⋮", style="dim"))
    for line in lines[len(stamped) - stamped[::-1].index(True) :]:
        if not line.startswith(HIDDEN):
            console.print(line, markup=False, highlight=False)
    return console.export_svg(title="sweeps", unique_id="terminal")


def main() -> None:
    """Make the recording."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("config", nargs="?", default="fashion-mini", help="of the sweep")
    parser.add_argument("--out", type=Path, default=OUT, help="the file to write")
    parser.add_argument("--runs", type=Path, help="the folder of the studies")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = (arguments.runs or Path(folder, "runs")).resolve()
        lines, shown = run(arguments.config, runs)
    arguments.out.write_text(picture(arguments.config, lines, shown), encoding="utf-8")
    print(arguments.out)


if __name__ == "__main__":
    main()
