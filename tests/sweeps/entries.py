"""A study and some of its trials, as the Optuna study is to hold them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sweeps.config import Config, load_config
from sweeps.study import Point
from sweeps.study.database import Entry

FACTS = {"uid": "abc", "precision": "float32", "data": "123"}
SPACE = (
    "{sparse.lambda: {log: [0.001, 0.1], steps: 5}, prune.ratio: {range: [0.1, 0.7], step: 0.2}, "
    "model.blocks: [[1], [1, 1]]}"
)
STRENGTHS = [0.001, 0.00316228, 0.01, 0.0316228, 0.1]


def config(**overrides: Any) -> Config:
    given = {"study": "one", "search.space": SPACE, "search.trials": 20, **overrides}
    return load_config("smoke", [f"{key}={value}" for key, value in given.items()])


def entry(number: int, state: str = "complete", **changes: Any) -> Entry:
    params = {
        "sparse.lambda": STRENGTHS[number % 5],
        "prune.ratio": [0.1, 0.3, 0.5, 0.7][number % 4],
        "model.blocks": [[1], [1, 1]][number % 2],
    }
    values = (0.5 + number / 100, 1000.0 - number) if state == "complete" else None
    attributes = {"NSGAIISampler:generation": number // 3, "study": {"NSGAIISampler:parent:1": [0, 2]}}
    return replace(Entry(number, Point(params, attributes), values, state), **changes)  # type: ignore[arg-type]


ENTRIES = [entry(0), entry(1, "failed"), entry(2), entry(3, "running"), entry(4, "running")]
