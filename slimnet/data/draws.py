"""Where all chance of batches comes from."""

from __future__ import annotations

import hashlib

import torch


def generator_of(*names: str | int) -> torch.Generator:
    """A generator on the CPU whose draws follow from the names alone; near names do not give near draws."""
    return torch.Generator().manual_seed(number_of(*names))


def number_of(*names: str | int) -> int:
    """A number of 64 bits that follows from the names."""
    digest = hashlib.sha256(repr(names).encode()).digest()
    return int.from_bytes(digest[:8], "big")
