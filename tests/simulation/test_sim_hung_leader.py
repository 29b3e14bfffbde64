"""A whole cluster whose leader's disk hangs: it renews nobody's lease any more, and the others go on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sim_cluster import LEASE_MS, REPLICAS, SimCluster, quiet
from sim_nodes import sim_run

from chaos.sim.world import World

T_MS = 150
FOREVER = sim_run("forever", 0, "obeys", "alone")


@pytest.fixture(autouse=True)
def silence() -> Iterator[None]:
    with quiet():
        yield


def told(world: World, node: str, kind: str) -> list[tuple[int, dict[str, Any]]]:
    """(milliseconds, fields) of one replica's events, in its own order."""
    return [
        (record[3] >> 16, record[5])
        for life, records in world.recording.lives.items()
        for record in records
        if life[0] == node and record[4] == kind
    ]


def leader_of(world: World) -> str:
    roles = [(fields["term"], node) for node in REPLICAS for _, fields in told(world, node, "role")
             if fields["role"] == "leader"]  # fmt: skip
    return max(roles)[1]


@pytest.mark.parametrize("seed", range(4))
def test_a_leader_whose_disk_hangs_renews_nothing_and_no_workload_notices(seed: int) -> None:
    with World(seed, policy="random") as world:
        cluster = SimCluster(world, nodes=3)
        cluster.submit("one", *FOREVER, on_disconnect="stop")
        [(_, epoch, where)] = cluster.until(cluster.running)
        old = leader_of(world)
        hung_ms = world.clock.wall_ns() // 1_000_000
        world.hosts[old].storage.hang()
        cluster.submit("two", *FOREVER)
        world.run_for(1.0)

        [stepped] = [at for at, fields in told(world, old, "role") if "hangs" in fields["why"]]
        assert stepped >= hung_ms + T_MS
        new = leader_of(world)
        assert new != old
        world.run_for(2 * LEASE_MS / 1000)

        beats = [at for at, fields in told(world, old, "send") if fields["type"] == "append"]
        assert max(beats) <= stepped, "no heartbeat after it"
        confirms = [at for at, fields in told(world, old, "lease") if fields["do"] == "confirm"]
        assert confirms, "it granted leases before"
        assert max(confirms) <= stepped, "no lease after it"
        assert len([at for at, fields in told(world, new, "lease") if fields["do"] == "confirm" and at > stepped]) > 3
        assert ("default/one.0", epoch, where) in cluster.running(), "it was never without a lease"
        assert len(cluster.running()) == 2, "and work is placed meanwhile"

        world.hosts[old].storage.unhang()
        cluster.submit("three", *FOREVER)
        cluster.until(lambda: len(cluster.running()) == 3)
        world.run_for(1.0)
        status = cluster.call("GET", "/v1/status")
        assert status["healthy"]
        assert len({row["applied_index"] for row in status["replicas"]}) == 1
        assert not world.loop.failures
