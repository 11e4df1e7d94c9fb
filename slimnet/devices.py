"""Where torch computes: the accelerator of this machine, or its processor, and what each of them has.

torch is imported when a function is called, so that command lines can name the devices without it.
"""

from __future__ import annotations

import platform
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from slimnet.errors import SlimnetError

if TYPE_CHECKING:
    import torch

Kind = Literal["cpu", "cuda", "mps", "xpu"]
DeviceWish = Literal["auto", Kind]
"""A kind of device, or the accelerator if there is one and else the processor."""

LABELS: dict[Kind, str] = {"cpu": "processor", "cuda": "CUDA GPU", "mps": "Apple GPU", "xpu": "Intel GPU"}


def choose_device(wish: DeviceWish) -> torch.device:
    """The device to compute on, without an index.

    Raises:
        SlimnetError: the machine, or its torch, has no such device.
    """
    import torch

    found = torch.accelerator.current_accelerator(check_available=True)
    kind = found.type if found is not None and found.type in LABELS else "cpu"
    if wish != "auto" and wish not in ("cpu", kind):
        other = "cpu or auto" if kind == "cpu" else f"{kind}, cpu or auto"
        raise SlimnetError(f"device is {wish}, but torch finds no {LABELS[wish]} here; use {other}")
    return torch.device("cpu" if wish == "cpu" else kind)


def device_count(kind: Kind) -> int:
    """How many devices of a kind torch sees; the processor is one."""
    import torch

    return 1 if kind == "cpu" else torch.accelerator.device_count()


def device_name(device: torch.device | str) -> str:
    """The product name of a device, such as "NVIDIA H100" or the processor's; else what is known of it."""
    import torch

    device = torch.device(device)
    if device.type in ("cuda", "xpu"):
        return str(getattr(torch, device.type).get_device_name(device))
    name = _processor_name()
    return f"GPU of {name}" if device.type == "mps" else name


def _processor_name() -> str:
    if sys.platform == "darwin":
        with suppress(OSError, subprocess.SubprocessError):
            asked = ["sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.run(
                asked, capture_output=True, text=True, check=True, timeout=10
            ).stdout.strip()
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():  # Linux on arm64 names none
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def synchronize(device: torch.device) -> None:
    """Wait until an accelerator has done what it was given; a processor already has."""
    import torch

    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def peak_memory(device: torch.device | str) -> int | None:
    """The most bytes that this process has held on a device; on the processor, all memory of the process.

    None where that is not counted.
    """
    import torch

    if torch.device(device).type != "cpu":
        with suppress(RuntimeError, NotImplementedError, AttributeError):
            return torch.accelerator.max_memory_allocated(device)
        return None
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def pins_memory(device: torch.device | str) -> bool:
    """Whether batches reach the device sooner from pinned memory, which Apple's GPUs share anyway."""
    import torch

    return torch.device(device).type in ("cuda", "xpu")


def kind_of(device: torch.device | str) -> Kind:
    """The kind of a device that `choose_device` has chosen."""
    import torch

    return cast(Kind, torch.device(device).type)


def shortcomings(device: torch.device | str) -> list[str]:
    """What a device lacks of what a sweep uses, in sentences for the log."""
    from slimnet.precision import native_precision

    kind, found = kind_of(device), []
    if native_precision(device) == "float32":
        found.append(f"{kind}: precision auto is float32, as bfloat16 is not known to be quicker here")
    if kind in ("mps", "xpu"):
        found.append(
            f"{kind}: torch does not promise the same bits twice here, so a training that is resumed may "
            "differ in the last digits from one that was not"
        )
    return found
