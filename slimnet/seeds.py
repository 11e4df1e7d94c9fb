"""Seeds for one purpose each, so that purposes do not share random numbers."""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, *names: str) -> int:
    """A seed that follows from `seed` and the purpose's names; the same in a sweep and in steps by hand."""
    digest = hashlib.sha256(repr((seed, *names)).encode()).digest()
    return int.from_bytes(digest[:4], "big")
