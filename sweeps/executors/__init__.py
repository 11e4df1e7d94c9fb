"""Where stages are computed: what the driver needs of such a place, and the places there are."""

from sweeps.executors.base import Event, Executor

__all__ = ["Event", "Executor"]
