"""Devices that this machine may lack, as torch and the system would present them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from slimnet import devices
from slimnet.errors import SlimnetError
from slimnet.precision import native_precision
from slimnet.training.determinism import make_deterministic

Accelerate = Callable[[str | None], None]


@pytest.fixture
def accelerate(monkeypatch: pytest.MonkeyPatch) -> Accelerate:
    """Has torch find an accelerator of a kind, or none."""

    def present(kind: str | None) -> None:
        found = None if kind is None else torch.device(kind)
        monkeypatch.setattr("torch.accelerator.current_accelerator", lambda check_available=False: found)

    return present


@pytest.fixture
def without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(self: Path, *args: object, **options: object) -> str:
        raise FileNotFoundError(self)

    monkeypatch.setattr(Path, "read_text", missing)


@pytest.mark.parametrize("kind", ["cuda", "mps", "xpu"])
def test_auto_takes_the_accelerator_and_the_processor_can_be_had(kind: str, accelerate: Accelerate) -> None:
    accelerate(kind)
    assert devices.choose_device("auto") == devices.choose_device(kind) == torch.device(kind)  # type: ignore[arg-type]
    assert devices.choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("kind", [None, "privateuseone"])
def test_without_an_accelerator_that_slimnet_knows_auto_is_the_processor(
    kind: str | None, accelerate: Accelerate
) -> None:
    accelerate(kind)
    assert devices.choose_device("auto") == torch.device("cpu")
    with pytest.raises(
        SlimnetError, match=r"device is cuda, but torch finds no CUDA GPU .*; use cpu or auto"
    ):
        devices.choose_device("cuda")


def test_another_accelerator_than_the_one_there_is_refused_with_its_name(accelerate: Accelerate) -> None:
    accelerate("mps")
    with pytest.raises(SlimnetError, match="no CUDA GPU here; use mps, cpu or auto"):
        devices.choose_device("cuda")


def test_bfloat16_is_taken_where_it_is_known_to_be_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for supported, precision in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr("torch.xpu.is_bf16_supported", lambda including_emulation, s=supported: s)
        assert native_precision("xpu:0") == precision
        monkeypatch.setattr(
            "torch.cuda.get_device_capability", lambda device, s=supported: (8 if s else 7, 0)
        )
        assert native_precision("cuda:0") == precision
        monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: False)
        monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda s=supported: s)
        assert native_precision("cpu") == precision
    assert native_precision("mps") == "float32"


def test_what_a_device_lacks_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    (precision, bits) = devices.shortcomings("mps")
    assert precision.startswith("mps: precision auto is float32")
    assert "does not promise the same bits twice" in bits
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: True)
    assert devices.shortcomings("cpu") == []
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (9, 0))
    assert devices.shortcomings("cuda") == []


@pytest.fixture
def undetermined() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(("device", "on"), [("cpu", False), ("mps:0", True), ("xpu:0", True)])
def test_accelerators_are_asked_for_the_same_bits_and_cublas_only_on_cuda(
    device: str, on: bool, undetermined: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    make_deterministic(device)
    assert torch.are_deterministic_algorithms_enabled() == on
    assert "CUBLAS_WORKSPACE_CONFIG" not in __import__("os").environ


def test_a_linux_without_names_in_proc_still_has_a_processor(without_proc: None) -> None:
    assert devices.device_name("cpu")


def test_macos_is_asked_for_its_processor_by_its_own_command(
    without_proc: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def answer(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        return subprocess.CompletedProcess(command, 0, "Apple M3\n", "")

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(subprocess, "run", answer)
    assert (devices.device_name("cpu"), devices.device_name("mps:0")) == ("Apple M3", "GPU of Apple M3")
    assert asked[0][0] == "sysctl"

    def absent(command: list[str], **options: object) -> None:
        raise FileNotFoundError(command[0])

    monkeypatch.setattr(subprocess, "run", absent)
    assert devices.device_name("cpu")


def test_peak_memory_is_counted_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    used = devices.peak_memory("cpu")
    assert used is not None
    assert used > 2**26  # torch alone takes more than 64 MiB

    def uncounted(device: object) -> int:
        raise RuntimeError("the allocator of this device does not count")

    monkeypatch.setattr("torch.accelerator.max_memory_allocated", uncounted)
    assert devices.peak_memory("mps:0") is None
    monkeypatch.setitem(sys.modules, "resource", None)
    assert devices.peak_memory("cpu") is None


def test_only_accelerators_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[torch.device] = []
    monkeypatch.setattr("torch.accelerator.synchronize", waited.append)
    for name in ("cpu", "xpu:1"):
        devices.synchronize(torch.device(name))
    assert waited == [torch.device("xpu:1")]
