"""Snapshots of the real state by real processes: catching up past a compacted log, restarting, running on."""

from __future__ import annotations

from pathlib import Path

from chaos.trace.check import check_directory
from tests.support.replicas import ReplicaCluster

SMALL = {
    "SKERRY_RAFT_SNAPSHOT_ENTRIES": "20",
    "SKERRY_RAFT_KEEP_TAIL_ENTRIES": "5",
    "SKERRY_RAFT_SNAPSHOT_CHUNK_BYTES": "1024",
    "SKERRY_RAFT_LOG_ENTRIES_MAX": "128",
    "SKERRY_RAFT_SEGMENT_BYTES": "65536",
}


async def test_a_replica_that_was_down_while_the_log_was_compacted_comes_back_and_leads(tmp_path: Path) -> None:
    async with ReplicaCluster(tmp_path, 3, election_timeout_ms=500, more=SMALL) as cluster:
        await cluster.start()
        await cluster.whole()
        await cluster.submit("first", via="n1")
        await cluster.replicas["n3"].kill()
        for number in range(150):
            await cluster.submit(f"j{number}", via="n1" if number % 2 else "n2")
        await cluster.replicas["n3"].start()
        await cluster.whole()
        await cluster.submit("last", via="n3")
        assert len(await cluster.jobs("n3")) == 152
        for name in cluster.names:
            assert await cluster.replicas[name].stop() == 0
        for name in cluster.names:
            assert [path for path in (tmp_path / name).iterdir() if path.suffix == ".snap"], name
            await cluster.replicas[name].start()
        await cluster.whole()
        await cluster.submit("again", via="n3")
        assert len(await cluster.jobs("n3")) == 153
        for name in cluster.names:
            assert await cluster.replicas[name].stop() == 0
    result = check_directory(tmp_path / "trace")
    assert result.violated == (), result.violated
