"""Real replicas, one of which applies by chance: it is found, sends everybody away, and is healed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.support.replicas import Answered, ReplicaCluster

EVERY = 32
BY_CHANCE = """
import os, secrets
from pathlib import Path
from msgspec.structs import replace
from scheduler.state import submission

original = submission.submit

def submit(books, index, command):
    odd = Path(os.environ["SKERRY_REPLICA_DIR"]) / "odd"
    if odd.exists() and command.job.workload.job == "coin":
        command = replace(command, request_id=secrets.token_hex(8))
    return original(books, index, command)

submission.submit = submit
"""


def cluster_in(directory: Path) -> ReplicaCluster:
    cluster = ReplicaCluster(directory, election_timeout_ms=500, more={"SKERRY_RAFT_DIGEST_EVERY": str(EVERY)})
    for replica in cluster.replicas.values():
        replica.before = BY_CHANCE
    return cluster


async def go_wrong(cluster: ReplicaCluster, *names: str, via: str) -> None:
    """These replicas apply the next submission by chance, and nothing else."""
    for name in names:
        (cluster.directory / name / "odd").touch()
    await cluster.submit("coin", via=via)

    async def everywhere() -> bool:
        status = await cluster.call("GET", "/v1/status", via=via)
        return len({row["applied_index"] for row in status["replicas"]}) == 1

    await cluster.until(everywhere)
    for name in names:
        (cluster.directory / name / "odd").unlink()


async def write(cluster: ReplicaCluster, count: int, *, via: str, tag: str) -> None:
    for start in range(0, count, 8):
        await asyncio.gather(*(cluster.submit(f"{tag}{start + each}", via=via) for each in range(8)))


async def metrics(cluster: ReplicaCluster, via: str) -> str:
    assert cluster.http is not None
    headers = {"Authorization": f"Bearer {cluster.api_token}"}
    async with cluster.http.get(f"{cluster.url(via)}/metrics", headers=headers) as response:
        return await response.text()


async def one_state(cluster: ReplicaCluster, via: str) -> dict[str, Any]:
    async def same() -> dict[str, Any] | None:
        status = await cluster.call("GET", "/v1/status", via=via)
        rows = status["replicas"]
        well = status["healthy"] and all(row.get("state") == "ok" for row in rows)
        return status if well and len({(row["applied_index"], row["digest"]) for row in rows}) == 1 else None

    found: dict[str, Any] = await cluster.until(same, 20)
    return found


async def test_a_follower_that_applies_by_chance_is_found_and_healed(tmp_path: Path) -> None:
    async with cluster_in(tmp_path) as cluster:
        await cluster.start()
        leader = await cluster.whole()
        wrong = next(cluster.followers(leader))
        await go_wrong(cluster, wrong, via=leader)
        status = await cluster.call("GET", "/v1/status", via=leader)
        assert len({row["digest"] for row in status["replicas"]}) == 2, "it is wrong, and nobody knows yet"
        await write(cluster, EVERY, via=leader, tag="j")
        status = await one_state(cluster, leader)
        assert status["leader"] == leader
        said = cluster.replicas[wrong].said()
        assert "state-diverged" in said
        assert "is being fetched anew" in said
        assert len(await cluster.jobs(wrong)) == EVERY + 1
        await cluster.submit("after", via=wrong)


async def test_a_leader_that_applies_by_chance_hands_over_and_is_healed(tmp_path: Path) -> None:
    async with cluster_in(tmp_path) as cluster:
        await cluster.start()
        old = await cluster.whole()
        other = next(cluster.followers(old))
        await go_wrong(cluster, old, via=other)
        await write(cluster, EVERY, via=other, tag="j")
        status = await one_state(cluster, other)
        assert status["leader"] != old
        assert "state-diverged" in cluster.replicas[old].said()
        assert f"{old} hands its leadership over" in cluster.replicas[status["leader"]].said()
        assert len(await cluster.jobs(old)) == EVERY + 1, "every acknowledged write is there"


async def test_without_a_majority_nothing_is_written_and_it_is_said(tmp_path: Path) -> None:
    async with cluster_in(tmp_path) as cluster:
        await cluster.start()
        leader = await cluster.whole()
        await go_wrong(cluster, *cluster.followers(leader), via=leader)
        with pytest.raises(Answered) as caught:
            await write(cluster, 2 * EVERY, via=leader, tag="j")
        assert (caught.value.code, caught.value.outcome) == ("state-diverged", "not-done")
        assert caught.value.problem["hint"]
        status = await cluster.call("GET", "/v1/status", via=leader)
        assert not status["healthy"]
        assert "no majority agrees" in status["why"]
        assert {row["state"] for row in status["replicas"]} == {"split"}
        assert len(status["alerts"]) == 1
        assert 'skerry_state_standing{standing="split"} 1.0' in await metrics(cluster, leader)
        assert len(await cluster.jobs(leader)) >= 1, "reading goes on"
