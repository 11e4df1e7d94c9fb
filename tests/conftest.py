"""What the tests of both packages share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def live() -> Iterator[Callable[..., dict[str, Any]]]:
    """Calls a function of a test file in a process that may be killed; see `live` in mortal.py."""
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("mortal.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None

        def order(
            function: Callable[..., None],
            arguments: dict[str, Any],
            *,
            place: str | None = None,
            limit: int = 0,
            seconds: float | None = None,
        ) -> dict[str, Any]:
            given = {
                "file": function.__code__.co_filename,
                "name": function.__name__,
                "arguments": arguments,
                "place": place,
                "limit": limit,
                "seconds": seconds,
            }
            print(json.dumps(given), file=server.stdin, flush=True)
            answer: dict[str, Any] = json.loads(server.stdout.readline())
            assert answer["killed"] or answer["status"] == 0, "it ended with a traceback, which is above"
            return answer

        yield order
        server.stdin.close()
