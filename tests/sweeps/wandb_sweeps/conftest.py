"""The real wandb SDK, with a server on the loopback to talk to."""

from __future__ import annotations

from wandb_account import no_account, server, wait

__all__ = ["no_account", "server", "wait"]
