"""The same numbers from the same work on an accelerator too; a processor gives them by itself."""

from __future__ import annotations

import os

import torch


def make_deterministic(device: torch.device | str) -> None:
    """Have an accelerator use algorithms that always give the same bits, where it has such."""
    kind = torch.device(device).type
    if kind == "cpu":  # where nothing would change, and the call takes seconds
        return
    if kind == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Nothing reads memory before it is written, and to fill it takes a kernel for every tensor.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
