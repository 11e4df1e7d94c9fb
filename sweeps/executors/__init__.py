"""Executors, which compute stages: the interface that the driver uses, and its implementations."""

from sweeps.executors.base import Event, Executor, ExecutorDiedError

__all__ = ["Event", "Executor", "ExecutorDiedError"]
