"""What the tests of the commands share."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sweeps.executors.inline import InlineExecutor
from sweeps.executors.reporting import Compute


@pytest.fixture
def instantly(monkeypatch: pytest.MonkeyPatch) -> Callable[[Compute], None]:
    """Has stages computed in this process, by what is given."""

    def use(compute: Compute) -> None:
        monkeypatch.setattr("sweeps.executors.local.LocalExecutor", lambda *given: InlineExecutor(compute, 2))
        monkeypatch.setattr("sweeps.executors.processes.ask", lambda question, *args: question(*args))

    return use
