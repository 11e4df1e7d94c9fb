"""A port for a server that is started later, or again."""

from __future__ import annotations

import random
import socket
from pathlib import Path

LOWEST, TO_CHOOSE_FROM = 10_000, 10_000
EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port() -> int:
    """A port at which nobody listens, below those that the system hands out (where there are any).

    Of those, any connection of a test beside this one may take the port of a server that has stopped.
    """
    handed_out = int(EPHEMERAL.read_text().split()[0]) if EPHEMERAL.exists() else 32_768
    last = max(handed_out, LOWEST + TO_CHOOSE_FROM)
    while True:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", random.SystemRandom().randrange(LOWEST, last)))
            except OSError:
                continue
            port: int = probe.getsockname()[1]
            return port
