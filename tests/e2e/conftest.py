"""The development cluster that end-to-end tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from dev_cluster import Cluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three replicas and four agents, for one module."""
    running = Cluster(tmp_path_factory.mktemp("dev") / "cluster")
    running.start("--replicas", "3", "--agents", "4")
    try:
        yield running
    finally:
        running.json("dev", "stop")
        assert running.cgroups() == []
