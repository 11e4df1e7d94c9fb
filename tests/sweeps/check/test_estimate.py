"""How long a sweep is said to take, from made-up times of its parts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from found import FOUND

from sweeps.check import Findings, estimate, seconds_of
from sweeps.cli import studies
from sweeps.config import load_config
from sweeps.executors.engines import LocalEngine

STEP, PRUNED, START = 0.1, 0.02, 0.5


def seconds(tmp_path: Path, *overrides: str, found: Findings = FOUND) -> float:
    settings = load_config("smoke", overrides)
    return seconds_of(studies.state_of(settings, tmp_path, LocalEngine(settings), found), found)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes begin at once, and latencies are known."""
    monkeypatch.setattr(estimate, "PROCESS", 0)
    monkeypatch.setattr(estimate, "LATENCY", 0)


@pytest.fixture
def found() -> Findings:
    """1,000 training images in 8 steps, and nothing else that takes time."""
    return replace(
        FOUND, workers=1, times=replace(FOUND.times, step=STEP, pruned_step=PRUNED, image=0, start=0, prune=0)
    )


def test_whole_and_pruned_networks_have_steps_of_their_own(tmp_path: Path, found: Findings) -> None:
    # two values of lambda and the dense network, 2 + 2 + 3 epochs; an epoch of fine-tuning in 3 trials
    assert seconds(tmp_path, found=found) == pytest.approx(8 * (7 * STEP + 3 * PRUNED))


def test_workers_share_the_time(tmp_path: Path, found: Findings) -> None:
    assert seconds(tmp_path, found=replace(found, workers=2)) == pytest.approx(
        seconds(tmp_path, found=found) / 2
    )


def test_uniform_controls_are_small_and_further_seeds_are_added(tmp_path: Path, found: Findings) -> None:
    alone = seconds(tmp_path, found=found)
    controls = seconds(tmp_path, "controls.uniform=true", "confirm.points=2", found=found)
    assert controls - alone == pytest.approx(8 * 2 * 3 * PRUNED)  # of 3 epochs each
    seeds = seconds(tmp_path, "confirm={seeds: 2, points: 1}", found=found)
    assert seeds - alone == pytest.approx(8 * ((3 + 2) * STEP + PRUNED))  # dense, and a trial once more


def test_stages_have_a_start_and_measurements(tmp_path: Path, found: Findings) -> None:
    started = replace(found, times=replace(found.times, start=START))
    stages = 7 / 2 + 3 + 3  # of sparse training, at most; of fine-tuning; of pruning
    assert seconds(tmp_path, found=started) - seconds(tmp_path, found=found) == pytest.approx(stages * START)
    measured = replace(found, times=replace(found.times, image=0.001))
    images = 300
    times = 7 / 2 + 3 + 3
    assert seconds(tmp_path, found=measured) - seconds(tmp_path, found=found) == pytest.approx(
        times * images * 0.001
    )


def test_processes_latencies_and_curves_take_their_time(
    tmp_path: Path, found: Findings, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = seconds(tmp_path, found=found)
    curved = seconds(tmp_path, "curves=true", found=found)
    assert curved - before == pytest.approx(7 / 2 * 10 * 20 * STEP / 3)  # ten ratios, twenty batches forward
    monkeypatch.setattr(estimate, "LATENCY", 1)
    assert seconds(tmp_path, found=found) - before == pytest.approx(3 + 1)
    monkeypatch.setattr(estimate, "PROCESS", 1)
    assert seconds(tmp_path, found=found) - before == pytest.approx(2 * 4 + 7 / 2 + 3 + 3)
