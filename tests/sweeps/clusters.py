"""Ray clusters of several nodes on this machine, for tests. Needs ray."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

os.environ.setdefault("RAY_AUTH_MODE", "token")  # read when ray is imported
os.environ.setdefault("RAY_AUTH_TOKEN", "of-the-tests-of-slimnet")
os.environ.setdefault("RAY_health_check_period_ms", "300")  # of the five questions to a node that has died
os.environ.setdefault("RAY_prestart_worker_first_driver", "0")  # in an environment that no stage has

from ray.cluster_utils import Cluster as Nodes

STORE = 80 * 2**20  # bytes of each node's object store, the least that Ray takes


@contextmanager
def nodes(workers: int, *, on_head: int = 0) -> Iterator[Nodes]:
    """A head without a place, and nodes with one each."""
    cluster = Nodes()
    try:
        cluster.add_node(num_cpus=on_head, object_store_memory=STORE, include_dashboard=False)
        for _ in range(workers):
            add_node(cluster)
        yield cluster
    finally:
        cluster.shutdown()


def add_node(cluster: Nodes) -> Any:
    """Add a node with one place."""
    return cluster.add_node(num_cpus=1, object_store_memory=STORE)
