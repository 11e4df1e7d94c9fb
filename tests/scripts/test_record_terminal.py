"""The terminal in the README, drawn from what a sweep printed and how far it was."""

from __future__ import annotations

import html
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import record_terminal

from sweeps.progress import Progress, RunningStage

LINES = [
    "study smoke: 3 trials, 1 worker on cpu",
    "12:00:00 0 of 3 trials, 0 of 10 epochs, 1 s so far, estimating the time left",
    "12:00:09 trial 2 done",
    "Pareto front of smoke",
    "load one:     slimnet.load(...)",
    "From 8,066 parameters at 75.3 % to 4,838",
]


def test_its_beginning_its_way_and_its_end() -> None:
    running = [RunningStage("finetune", (1,), 0.01, 0.5, 2.0, 4, 0.7)]
    shown = Progress(1, 0, 3, 4.0, 10.0, 20.0, running, [{"trial": 0, "params": 4028}], 1)
    drawn = html.unescape(record_terminal.picture("smoke", LINES, shown)).replace("\N{NO-BREAK SPACE}", " ")
    order = [
        "$ sweeps run smoke",
        "1 worker on cpu",
        "1 of 3 trials",
        "front so far",
        "Pareto front",
        "From 8,066",
    ]
    places = [drawn.index(text) for text in order]
    assert places == sorted(places)
    assert "trial 2 done" not in drawn
    assert "slimnet.load" not in drawn
