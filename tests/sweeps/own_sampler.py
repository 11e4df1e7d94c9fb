"""Samplers of a user's, in a file beside a config."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

OWN = """
from optuna.samplers import RandomSampler

class Lowest(RandomSampler):
    def sample_independent(self, study, trial, name, distribution):
        value = super().sample_independent(study, trial, name, distribution)
        return min(value, self.most) if name == "prune.ratio" else value

def lowest(seed, most=0.5):
    sampler = Lowest(seed=seed)
    sampler.most = most
    return sampler

def wrong(seed):
    return seed

def unseeded():
    return RandomSampler()

class Breaks(RandomSampler):
    def sample_independent(self, study, trial, name, distribution):
        raise RuntimeError("no idea")

class Exits(RandomSampler):
    def sample_independent(self, study, trial, name, distribution):
        raise SystemExit("bye")
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of own_samplers.py."""
    (tmp_path / "own_samplers.py").write_text(OWN)
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.delitem(sys.modules, "own_samplers", raising=False)
    return tmp_path
