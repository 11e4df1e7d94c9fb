"""Images that stream from a memory-mapped file beside images in memory: the same loop, the same network.

The file holds 50,000 images of 224x224, 7.5 GB, made of one block of noise over and over. It is read as
training reads it, at random, once with the file in the system's memory and once from the disk. The ways take
turns, so that whatever else the machine does meets them all.
"""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from slimnet import models
from slimnet.data import Augmentation, Images, Splits, train_batches
from slimnet.devices import choose_device, device_name, synchronize
from slimnet.errors import SlimnetError
from slimnet.precision import autocast, native_precision
from slimnet.training.memory import keep_memory

COUNT, SIDE = 50_000, 224
BLOCK = 500  # images of noise that the file repeats
BATCH, STEPS, ROUNDS = 32, 3, 9
HELD = 2_000  # images of those in memory; a step costs the same with any number
CHANGES = Augmentation(flip=True)


def main() -> None:
    """Print the table; the file is removed at the end."""
    keep_memory()
    device = choose_device("auto")
    place = Path(os.environ.get("SLIMNET_BENCH_DIR") or tempfile.gettempdir())
    needed = COUNT * SIDE * SIDE * 3
    if shutil.disk_usage(place).free < 2 * needed:
        raise SlimnetError(
            f"{place} has no room for a file of {needed / 1e9:.1f} GB; name a folder with SLIMNET_BENCH_DIR"
        )
    with tempfile.TemporaryDirectory(dir=place) as folder:
        path = Path(folder) / "images"
        seconds = _write(path)
        x = np.memmap(path, np.uint8, "c", shape=(COUNT, SIDE, SIDE, 3))
        y = torch.arange(COUNT, device=device) % 10
        held = torch.from_numpy(np.array(x[:HELD])).permute(0, 3, 1, 2).to(device)
        mapped = Images(torch.from_numpy(x).permute(0, 3, 1, 2), y, torch.arange(COUNT))
        print(
            f"{COUNT:,} images of {SIDE}x{SIDE}, {needed / 1e9:.1f} GB, written in {seconds:.0f} s; batches "
            f"of {BATCH}, {STEPS} steps a turn, medians of {ROUNDS} turns; {device_name(device)}\n"
        )
        ways = {
            "in memory": (Images(held, y[:HELD]), lambda: None),
            "streaming, file in memory": (mapped, lambda: None),
            "streaming, from disk": (mapped, lambda: _forget(path)),
        }
        for name, make in _networks().items():
            _compare(name, make().to(device).to(memory_format=torch.channels_last), ways, device)


def _networks() -> dict[str, Callable[[], nn.Module]]:
    return {
        "ResNet, one block a stage, width 16": lambda: models.resnet([1, 1, 1, 1], 16, stem="imagenet"),
        "none: batches only": nn.Identity,
    }


def _compare(
    name: str,
    network: nn.Module,
    ways: dict[str, tuple[Images, Callable[[], None]]],
    device: torch.device,
) -> None:
    speeds: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(ROUNDS + 1):
        for way, (images, before) in ways.items():
            before()
            speed = _turn(network, images, turn, device)
            if turn:
                speeds[way].append(speed)
    first = speeds["in memory"]
    print(f"| {name} | images/s | of those in memory (range) |\n|---|---|---|")
    for way, found in speeds.items():
        ratios = [speed / other for speed, other in zip(found, first, strict=True)]
        share = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"| {way} | {statistics.median(found):,.0f} | {share} |")
    print()


def _turn(network: nn.Module, images: Images, turn: int, device: torch.device) -> float:
    """Images per second of a few steps of training."""
    statistic = torch.full((1, 3, 1, 1), 127.5, device=device)
    splits = Splits(images, images, images, mean=statistic, std=statistic, num_classes=10)
    parameters = list(network.parameters())
    optimizer = torch.optim.SGD(parameters, 0.01, momentum=0.9, fused=True) if parameters else None
    precision = native_precision(device)
    synchronize(device)
    started = time.perf_counter()
    batches = train_batches(images, splits, BATCH, seed=turn, epoch=0, augmentation=CHANGES)
    for x, y in islice(batches, STEPS):
        if optimizer is None:
            continue
        with autocast(device, precision):
            loss = F.cross_entropy(network(x).float(), y)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    synchronize(device)
    return BATCH * STEPS / (time.perf_counter() - started)


def _write(path: Path) -> float:
    """Write the file; returns the seconds that it took."""
    started = time.perf_counter()
    block = np.random.default_rng(0).integers(0, 256, (BLOCK, SIDE, SIDE, 3), dtype=np.uint8).tobytes()
    with path.open("wb") as file:
        for _ in range(COUNT // BLOCK):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    return time.perf_counter() - started


def _forget(path: Path) -> None:
    """Have the system drop what it holds of the file in memory, where it can be asked to."""
    if hasattr(os, "posix_fadvise"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
