"""A leader that is told to stop leaves no gap: real processes, a writer at another replica."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from tests.support.replicas import ReplicaCluster

ELECTION_TIMEOUT_MS = 3_000
"""So long that an election by time-out could not be taken for a hand-over."""


async def test_writes_go_on_while_the_leader_is_stopped(tmp_path: Path) -> None:
    async with ReplicaCluster(tmp_path, election_timeout_ms=ELECTION_TIMEOUT_MS) as cluster:
        await cluster.start()
        old = await cluster.whole(timeout_s=30)
        other = next(cluster.followers(old))
        await cluster.submit("before", via=other)
        process = cluster.replicas[old].process
        assert process is not None
        process.terminate()
        asked = time.monotonic()
        acked: list[float] = []
        number = 0
        while len(acked) < 2 or process.returncode is None:
            number += 1
            await cluster.submit(f"j{number}", via=other)
            acked.append(time.monotonic())
        assert await process.wait() == 0
        gap_ms = max(after - before for before, after in zip([asked, *acked], acked, strict=False)) * 1000
        print(f"longest gap {gap_ms:.0f} ms in {number} writes, the first after {(acked[0] - asked) * 1000:.0f} ms")
        assert gap_ms < ELECTION_TIMEOUT_MS / 2
        assert "handed the leadership over" in cluster.replicas[old].said()
        new = await cluster.formed()
        assert new != old
        assert set(await cluster.jobs(new)) >= {f"default/j{each + 1}" for each in range(number)}


async def test_a_cluster_told_to_stop_at_once_does_not_wait_for_successors(tmp_path: Path) -> None:
    async with ReplicaCluster(tmp_path) as cluster:
        await cluster.start()
        await cluster.whole()
        codes = await asyncio.gather(*(replica.stop() for replica in cluster.replicas.values()))
        assert codes == [0, 0, 0]
