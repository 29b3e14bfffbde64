"""On a disk that forgets everything unsynced, no acknowledged write is lost, wherever the power goes."""

from __future__ import annotations

from collections import Counter

import pytest

from raft.errors import StoreError
from tests.support.power_cluster import NAMES, LostWrite, PowerCluster, Stuck

CRASH_POINTS = 400
CHUNKS = 10


def crash_point(seed: int, *, lying: bool = False) -> PowerCluster:
    """Load a cluster, cut its power (of one replica or of all) in the middle of a disk operation, restart, look."""
    cluster = PowerCluster(seed, torn=bool(seed % 3))
    cluster.run(lambda: len(cluster.acknowledged) >= 10, "load")
    if lying:
        for replica in cluster.replicas.values():
            replica.disk.lying = True
    acknowledged = len(cluster.acknowledged)
    cluster.lose_power_after(NAMES[seed % 3], 1 + cluster.random.randrange(120), everywhere=seed % 4 != 0)
    cluster.run(lambda: cluster.outage, "the power cut")
    assert len(cluster.acknowledged) >= acknowledged
    cluster.run(cluster.settled, "recovery", limit_ms=5000)
    cluster.check()
    return cluster


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_no_acknowledged_write_is_lost(chunk: int) -> None:
    share, restored = CRASH_POINTS // CHUNKS, 0
    for seed in range(chunk * share, (chunk + 1) * share):
        restored += crash_point(seed).restored
    assert restored >= share // 4, "stores were opened through snapshots"


def test_without_the_sync_acknowledged_writes_are_lost() -> None:
    found = Counter[str]()
    for seed in range(60):
        try:
            crash_point(seed, lying=True)
        except (LostWrite, Stuck, StoreError) as error:
            found[type(error).__name__] += 1
    assert found["LostWrite"] >= 5, f"a disk that does not sync must be found out: {found}"
    assert found.total() >= 40, f"a disk that does not sync must be found out: {found}"


def crash_points_in_a_row(seed: int, count: int) -> None:
    """As `crash_point`, but the power goes again before everything is up, also while stores are opened."""
    cluster = PowerCluster(seed, torn=bool(seed % 2))
    cluster.run(lambda: len(cluster.acknowledged) >= 20, "load")
    for _ in range(count):
        name = NAMES[cluster.random.randrange(3)]
        cluster.lose_power_after(name, 1 + cluster.random.randrange(30), everywhere=True)
        cluster.run(lambda: cluster.outage, "the power cut")
    cluster.run(cluster.settled, "recovery")
    cluster.check()


def test_power_that_goes_again_while_stores_are_opened_loses_nothing() -> None:
    for seed in range(20):
        crash_points_in_a_row(seed, 3)


def test_the_same_seed_gives_the_same_run() -> None:
    first, second = crash_point(7), crash_point(7)
    assert (first.time_ns, first.acknowledged) == (second.time_ns, second.acknowledged)
