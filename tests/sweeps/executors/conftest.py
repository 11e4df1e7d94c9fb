"""What the tests of the executors share."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest


@pytest.fixture(scope="session")
def with_ray() -> None:
    """Ray, which has the tests' token from the beginning."""
    if find_spec("ray") is None:
        pytest.skip("ray is not installed: pip install ray")
    import clusters  # noqa: F401 - sets the token


@pytest.fixture(scope="module")  # its processes are busy as long as it stands
def nodes(with_ray: None) -> Iterator[Any]:
    """A Ray cluster of a head and two nodes with one place each, which asks for a token."""
    import clusters

    with clusters.nodes(2) as nodes:
        yield nodes


@pytest.fixture(scope="module")
def cluster(nodes: Any) -> Iterator[Any]:
    """That cluster, joined."""
    import ray

    from sweeps.config.sections import Executor
    from sweeps.executors.ray_cluster import join

    yield join(Executor(kind="ray", address=nodes.address), gpus=False)
    ray.shutdown()
