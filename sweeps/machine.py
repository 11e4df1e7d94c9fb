"""What this machine offers: cores, devices, and how workers share them."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from slimnet.devices import (
    DeviceWish,
    Kind,
    choose_device,
    device_count,
    device_name,
    kind_of,
    shortcomings,
)
from slimnet.precision import Precision, native_precision
from slimnet.progress import ProgressLine
from sweeps.config import Config
from sweeps.data import open_splits
from sweeps.jobs import Place
from sweeps.networks import Made, make_networks


@dataclass(frozen=True)
class Machine:
    """The devices that stages are computed on, as torch finds them.

    Attributes:
        kind: of device: "cpu", "cuda", "mps" or "xpu".
        count: how many; 1 for the processor.
        name: the product name of the first.
        precision: what it is best at.
        shortcomings: what it lacks of what a sweep uses, in sentences.
    """

    kind: Kind
    count: int
    name: str
    precision: Precision
    shortcomings: tuple[str, ...] = ()


def look(wish: DeviceWish) -> Machine:
    """Find the devices; imports torch, so a driver has it called in a worker.

    Raises:
        SlimnetError: there is no such device.
    """
    device = choose_device(wish)
    return Machine(
        kind=kind_of(device),
        count=device_count(kind_of(device)),
        name=device_name(device),
        precision=native_precision(device),
        shortcomings=tuple(shortcomings(device)),
    )


@dataclass(frozen=True)
class Prepared:
    """What a sweep needs to know before it begins, and only a process with torch finds out.

    Attributes:
        machine: the devices.
        networks: what the networks are made of that are not slimnet's own.
        notes: sentences for the user.
    """

    machine: Machine
    networks: dict[str, Made]
    notes: tuple[str, ...] = ()


def prepare(config: Config, data_dir: Path | None) -> Prepared:
    """Find the devices, fetch or decode the data if needed, and make the networks; called in a worker.

    Raises:
        SlimnetError: there is no such device, or something is wrong with the data or a network.
    """
    machine, data = look(config.device), config.data
    splits = open_splits(data, data.path, data_dir, seed=config.seed, on_progress=ProgressLine())
    notes: list[str] = []
    networks = make_networks(config, splits.image_shape, splits.num_classes, notes.append)
    return Prepared(machine, networks, tuple(dict.fromkeys(notes)))


def core_count() -> int:
    """How many cores this process may use, by its affinity and the container's quota where there are such."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _container_quota()
    return usable if quota is None else max(1, min(usable, math.ceil(quota)))


def _threads_allowed() -> int | None:
    """OMP_NUM_THREADS, of which a list's first number counts here; None if it is not set to a number."""
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) > 0 else None


def _container_quota() -> float | None:
    """The cores that a Linux container may use; None without a limit, and where there are no containers."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def places(
    workers: int | Literal["auto"],
    threads: int | Literal["auto"],
    machine: Machine,
    useful: int,
    gpu_share: int = 1,
) -> list[Place]:
    """One place per worker.

    Args:
        workers: how many; "auto" takes `gpu_share` per accelerator, or one per core, but never more than are
            useful. Small networks gain more from another worker than from another thread.
        threads: of each worker; "auto" divides the cores among them, or OMP_NUM_THREADS if that is less.
        machine: where to compute.
        useful: the most stages that can ever run at the same time.
        gpu_share: workers on each accelerator.
    """
    cores, on_cpu = core_count(), machine.kind == "cpu"
    count = min(cores if on_cpu else machine.count * gpu_share, useful) if workers == "auto" else workers
    each = max(1, min(cores, _threads_allowed() or cores) // count) if threads == "auto" else threads
    return [
        Place("cpu" if on_cpu else f"{machine.kind}:{index % machine.count}", each) for index in range(count)
    ]
