"""A study without Optuna's, for sweeps of which no test looks at that."""

from __future__ import annotations

from collections.abc import Callable

from sweeps.study.database import Entry
from sweeps.study.mirror import patiently


class NoMirror:
    """In place of Optuna's study, which is written after each trial: that takes most of the time of a run."""

    def add(self, entry: Entry) -> None:
        pass

    def tell(self, entry: Entry) -> None:
        pass

    def update(self) -> list[str]:
        return []

    def close(self, wait_on: Callable[[str], bool] = patiently) -> list[str]:
        return []
