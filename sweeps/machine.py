"""What this machine offers: cores, devices, and how workers share them."""

from __future__ import annotations

import math
import os
import platform
from pathlib import Path
from typing import Literal

from slimnet.errors import SlimnetError
from sweeps.jobs import Place


def core_count() -> int:
    """How many cores this process may use, by its affinity and the container's quota."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return usable
    return usable if quota == "max" else max(1, min(usable, math.ceil(int(quota) / int(period))))


def choose_device(wish: Literal["auto", "cpu", "cuda"]) -> Literal["cpu", "cuda"]:
    """Where stages are computed: a GPU if there is one, unless the config says otherwise.

    Raises:
        SlimnetError: cuda is requested, but not available.
    """
    import torch  # takes seconds, and most commands do not need it

    available = torch.cuda.is_available()
    if wish == "cuda" and not available:
        raise SlimnetError("device is cuda, but torch finds no GPU here; use device: cpu or auto")
    return "cuda" if available and wish != "cpu" else "cpu"


def places(workers: int | Literal["auto"], device: Literal["cpu", "cuda"], useful: int) -> list[Place]:
    """One place per worker, the cores divided among them.

    Args:
        workers: how many; "auto" takes one per GPU, or one per core, but never more than are useful. Small
            networks gain more from another worker than from another thread.
        device: where to compute.
        useful: the most stages that can ever run at the same time.
    """
    gpus = _gpu_count() if device == "cuda" else 0
    count = min(gpus or core_count(), useful) if workers == "auto" else workers
    threads = max(1, core_count() // count)
    return [Place(f"cuda:{index % gpus}" if gpus else "cpu", threads) for index in range(count)]


def _gpu_count() -> int:
    import torch

    return torch.cuda.device_count()


def device_name(device: str) -> str:
    """The product name of "cpu" or "cuda:<n>"."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
