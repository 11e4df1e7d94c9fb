"""Cores and places on machines that have, and lack, what Linux has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sweeps.jobs import Place
from sweeps.machine import Machine, core_count, look, places

CPU = Machine("cpu", 1, "a processor", "float32")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Eight cores, without affinity and containers, as on macOS."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    set_quota(monkeypatch, None)
    return monkeypatch


def set_quota(monkeypatch: pytest.MonkeyPatch, content: str | None) -> None:
    def read(self: Path) -> str:
        if content is None:
            raise FileNotFoundError(self)
        return content

    monkeypatch.setattr(Path, "read_text", read)


def test_cores_without_affinity_and_cgroups_are_those_of_the_system(machine: pytest.MonkeyPatch) -> None:
    assert core_count() == 8
    machine.setattr(os, "cpu_count", lambda: None)
    assert core_count() == 1


@pytest.mark.parametrize(
    ("quota", "cores"), [("150000 100000", 2), ("max 100000", 8), ("10000 100000", 1), ("odd", 8)]
)
def test_a_container_s_quota_is_rounded_up(machine: pytest.MonkeyPatch, quota: str, cores: int) -> None:
    set_quota(machine, quota)
    assert core_count() == cores


def test_affinity_counts_where_there_is_one(machine: pytest.MonkeyPatch) -> None:
    machine.setattr(os, "sched_getaffinity", lambda pid: {1, 3, 5}, raising=False)
    assert core_count() == 3


def test_workers_share_the_cores_and_take_an_accelerator_each(machine: pytest.MonkeyPatch) -> None:
    assert places("auto", "auto", CPU, useful=5) == [Place("cpu", 1)] * 5
    assert places(3, "auto", CPU, useful=5) == [Place("cpu", 2)] * 3
    two = Machine("xpu", 2, "a GPU", "bfloat16")
    assert places("auto", "auto", two, useful=5) == [Place("xpu:0", 4), Place("xpu:1", 4)]
    assert [place.device for place in places(3, "auto", two, useful=5)] == ["xpu:0", "xpu:1", "xpu:0"]
    assert places("auto", "auto", Machine("mps", 1, "a GPU", "float32"), useful=5) == [Place("mps:0", 8)]


def test_workers_may_share_an_accelerator(machine: pytest.MonkeyPatch) -> None:
    two = Machine("cuda", 2, "a GPU", "bfloat16")
    shared = places("auto", "auto", two, useful=9, gpu_share=2)
    assert shared == [Place("cuda:0", 2), Place("cuda:1", 2)] * 2
    assert len(places("auto", "auto", two, useful=3, gpu_share=2)) == 3
    assert len(places("auto", "auto", CPU, useful=9, gpu_share=2)) == 8


@pytest.mark.parametrize(
    ("allowed", "each"), [("4", 2), ("1", 1), ("100", 4), ("6,2", 3), ("", 4), ("0", 4), ("many", 4)]
)
def test_threads_are_what_the_environment_allows_unless_the_config_says(
    machine: pytest.MonkeyPatch, allowed: str, each: int
) -> None:
    machine.setenv("OMP_NUM_THREADS", allowed)
    assert places(2, "auto", CPU, useful=5) == [Place("cpu", each)] * 2
    assert places(2, 3, CPU, useful=5) == [Place("cpu", 3)] * 2


def test_the_machine_is_what_torch_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.accelerator.current_accelerator", lambda check_available=False: None)
    found = look("auto")
    assert (found.kind, found.count, bool(found.name)) == ("cpu", 1, True)
