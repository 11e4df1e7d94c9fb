"""Images that stay in memory-mapped files: batches are gathered while the one before is computed with."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from slimnet.data.upstream import Pixels
from slimnet.devices import pins_memory

AHEAD = 2  # batches that are gathered beforehand, each by a thread
WHOLE = 0.25  # fraction of a device's free memory that images may take, as workers share the device


def is_mapped(x: npt.NDArray[np.generic]) -> bool:
    """Whether an array is a view of a memory-mapped file."""
    array: object = x
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap):
            return True
        array = array.base
    return False


def takes_whole(size: int, device: torch.device) -> bool:
    """Whether a device is to hold so many bytes of mapped images.

    A processor is not: the file is in its memory as it is, once for all processes, as long as there is room.
    """
    if device.type == "cpu":
        return False
    try:
        free, _ = torch.accelerator.get_memory_info(device)
    except (RuntimeError, NotImplementedError):  # where nobody counts
        return False
    return size <= WHOLE * free


def stream(x: Pixels, batches: Sequence[npt.NDArray[np.int64]], device: torch.device) -> Iterator[Tensor]:
    """The images x[rows] for each of `batches`, (B, H, W, C), uint8, on the device.

    Args:
        x: (N, H, W, C), memory-mapped.
        batches: the rows of each.
        device: where they go; from pinned memory and while it computes, where it can.
    """
    pinned = pins_memory(device)

    def gather(rows: npt.NDArray[np.int64]) -> Tensor:
        # numpy lets go of the interpreter meanwhile; pages that are not in memory are read here.
        batch = torch.empty((len(rows), *x.shape[1:]), dtype=torch.uint8, pin_memory=pinned)
        np.take(x, rows, axis=0, out=batch.numpy(), mode="clip")  # any other mode copies once more
        return batch

    waiting = iter(batches)
    gathered: deque[Future[Tensor]] = deque()
    with ThreadPoolExecutor(AHEAD) as pool:
        try:
            for rows in waiting:
                gathered.append(pool.submit(gather, rows))
                if len(gathered) > AHEAD:
                    yield gathered.popleft().result().to(device, non_blocking=pinned)
            while gathered:
                yield gathered.popleft().result().to(device, non_blocking=pinned)
        finally:  # also where the caller takes no more
            pool.shutdown(cancel_futures=True)
