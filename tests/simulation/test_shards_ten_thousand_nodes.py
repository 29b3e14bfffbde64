"""10,000 nodes on three replicas (A10, A11): balance, a replica killed and back, nothing lost, nothing placed twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from cluster.shards import MOVE_PAUSE_MS
from tests.support.shard_cluster import ShardCluster
from tests.support.virtual_loop import run_virtually

NODES = 10_000
REPLICAS = 20
JOBS = 240
"""Jobs of 20 allocations, one every 100 ms of virtual time."""
KILLED_S, BACK_S = 6.0, 9.0


class Run:
    """What one run showed."""

    def __init__(self, cluster: ShardCluster) -> None:
        self.cluster = cluster
        self.owners: dict[str, dict[str, str | None]] = {}
        self.owner_sets: list[tuple[float, tuple[str, ...]]] = []

    def note(self, moment: str) -> None:
        self.owners[moment] = self.cluster.owners()

    def moved(self, before: str, after: str) -> dict[str, tuple[str | None, str | None]]:
        return {
            node: (owner, self.owners[after][node])
            for node, owner in self.owners[before].items()
            if owner != self.owners[after][node]
        }


async def scenario(killed: str, seed: int) -> Run:
    """Three replicas place jobs that keep coming; one of them dies amid it and comes back."""
    cluster = ShardCluster(3, NODES, seed)
    run = Run(cluster)
    cluster.start(*cluster.names)
    cluster.elect("n1")

    async def jobs() -> None:
        for number in range(JOBS):
            cluster.submit(f"job-{number}", REPLICAS)
            await asyncio.sleep(0.1)

    submitting = asyncio.create_task(jobs())
    try:
        await asyncio.sleep(KILLED_S)
        run.note("whole")
        await cluster.kill(killed)
        await asyncio.sleep(BACK_S - KILLED_S)
        run.note("without")
        cluster.start(killed)
        await submitting
        await asyncio.sleep(2.0)
        run.note("back")
        for replica in cluster.replicas.values():
            await replica.barrier(timeout_s=5.0)
            assert replica.state.digest() == cluster.oracle.digest()
    finally:
        await cluster.stop()
    return run


@pytest.fixture(scope="module", params=[("n2", 1), ("n1", 2)], ids=["a follower dies", "the leader dies"])
def run(request: pytest.FixtureRequest) -> tuple[str, Run]:
    killed, seed = request.param
    return killed, run_virtually(scenario(killed, seed))


def test_every_replica_owns_its_third_of_the_nodes(run: tuple[str, Run]) -> None:
    counts = Counter(run[1].owners["whole"].values())
    assert sorted(counts) == ["n1", "n2", "n3"]
    assert all(count * 3 / NODES == pytest.approx(1, abs=0.15) for count in counts.values())


def test_only_the_arcs_of_the_killed_replica_move_and_they_come_back(run: tuple[str, Run]) -> None:
    killed, seen = run
    away = seen.moved("whole", "without")
    assert {before for before, _ in away.values()} == {killed}
    assert len(away) == Counter(seen.owners["whole"].values())[killed]
    heirs = Counter(after for _, after in away.values())
    assert len(heirs) == 2
    assert min(heirs.values()) > len(away) / 3
    assert seen.owners["back"] == seen.owners["whole"]


def test_arcs_move_at_most_once_in_ten_seconds(run: tuple[str, Run]) -> None:
    changes = [(at, tuple(fields["owners"])) for at, kind, fields in run[1].cluster.changes if kind == "shard"]
    assert len(changes) == 3, changes
    (_, first), (away_s, second), (back_s, third) = changes
    assert first == third == ("n1", "n2", "n3")
    assert len(second) == 2
    assert KILLED_S < away_s < BACK_S
    assert back_s - away_s >= MOVE_PAUSE_MS / 1000 - 0.001


def test_no_evaluation_is_lost_and_no_attempt_is_placed_twice(run: tuple[str, Run]) -> None:
    binds = Counter((event["allocation"], event["attempt"]) for event in run[1].cluster.events("place", do="bind"))
    assert len(binds) == JOBS * REPLICAS
    assert set(binds.values()) == {1}


def test_every_replica_decides_and_mostly_on_its_own_arcs(run: tuple[str, Run]) -> None:
    cluster = run[1].cluster
    by = Counter(event["by"] for event in cluster.events("place", do="bind"))
    assert sorted(by) == ["n1", "n2", "n3"]
    assert min(by.values()) > JOBS * REPLICAS / 10
    owners = run[1].owners
    away = run[1].moved("whole", "without")
    first = cluster.events("shard")[0]["index"]
    settled = [e for e in cluster.events("place", do="bind") if e["node"] not in away and e["index"] > first]
    assert len(settled) > JOBS * REPLICAS / 2
    assert all(owners["whole"][event["node"]] == event["by"] for event in settled)


def test_conflicts_are_few(run: tuple[str, Run]) -> None:
    refused = Counter(event["why"].partition(":")[0] for event in run[1].cluster.events("place", do="refuse"))
    assert set(refused) <= {"already-placed", "node-moved"}
    assert refused.total() < JOBS * REPLICAS / 20


def test_the_same_seed_gives_the_same_log() -> None:
    async def short(seed: int) -> list[Any]:
        cluster = ShardCluster(3, 300, seed)
        cluster.start(*cluster.names)
        cluster.elect("n1")
        for number in range(20):
            cluster.submit(f"job-{number}", 5)
            await asyncio.sleep(0.1)
            if number == 10:
                await cluster.kill("n3")
        await cluster.stop()
        return cluster.entries

    first, again, other = (run_virtually(short(seed)) for seed in (5, 5, 6))
    assert first == again
    assert first != other
