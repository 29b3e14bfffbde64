"""How long three replicas with many allocations take from their start until they serve; run by hand.

``python -m tests.bench.restart_of_all [ALLOCATIONS]`` prints one JSON object.  The state is made by three replicas
in one process, through consensus; then each is a process of its own, started at once with the others.  The clock
stops when all three answer ``/readyz`` and show one digest.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import structlog
from aiohttp import ClientError

from cluster.config import load
from scheduler import commands
from scheduler.assembly import Replica
from scheduler.model import Capacity, Limits, ResolvedJob, RestartPolicy, Workload
from tests.support.replicas import Answered, ReplicaCluster

NODES = 100
JOBS = 10
PART = 256
PRESENT_S = 9.0
MORE = {
    "SKERRY_LEASE_DURATION_MS": "600000",
    "SKERRY_RAFT_SNAPSHOT_ENTRIES": "200",
    "SKERRY_RAFT_KEEP_TAIL_ENTRIES": "50",
}


async def fill(replicas: list[Replica], allocations: int) -> None:
    """Nodes, jobs, placements and reports, as commands of the first replica."""

    async def propose(command: commands.Command) -> Any:
        applied = await replicas[0].proposals.propose(command, timeout_s=30)
        assert not applied.result.code, applied.result
        return applied

    for number in range(NODES):
        capacity = Capacity(1 << 40, 1 << 50, 1 << 30)
        await propose(commands.RegisterNode(f"a{number}", "i1", "b1", capacity, "full", "", "10.0.0.1", 1))
    await asyncio.sleep(PRESENT_S)  # nodes without a session: from then on the replicas' own placers leave them alone
    each = allocations // JOBS
    for number in range(JOBS):
        workload = Workload(f"j{number}", "default", "service", ("/bin/sleep",), {}, Limits(0, 0, 0), (), 5, "keep")
        spec = ResolvedJob(workload, each, 100, 1 << 20, 10, RestartPolicy.ALWAYS, -1)
        await propose(commands.SubmitJob(spec, f"r{number}", -1, 1))
        for first in range(0, each, PART):
            node = f"a{(first // PART) % NODES}"
            entry = replicas[0].state.registration(node)
            assert entry is not None
            names = [f"default/j{number}.{ordinal}" for ordinal in range(first, min(first + PART, each))]
            placements = tuple(commands.Placement(name, 1, 1, node, entry.generation) for name in names)
            epoch = replicas[0].state.books.shards.epoch
            placed = await propose(commands.Plan(placements, "n1", "bench", 1, epoch))
            assert not placed.result.refused, placed.result.refused[:1]
            reports = tuple(
                commands.AllocationStatus(name, placed.index, 1, "running", 42, f"/skerry/{name}", None)
                for name in names
            )
            await propose(commands.ReportStatus(node, "i1", reports, 1))


async def make(cluster: ReplicaCluster, allocations: int) -> None:
    log = structlog.get_logger()
    replicas = [Replica(load(environ=cluster.settings(name)).config, log) for name in cluster.names]
    running = [asyncio.create_task(replica.run()) for replica in replicas]

    async def led() -> bool:
        return all(replica.driver.leader is not None for replica in replicas)

    async def level() -> bool:
        return min(replica.state.index for replica in replicas) >= replicas[0].driver.status().commit_index

    await cluster.until(led, 30)
    await fill(replicas, allocations)
    await cluster.until(level, 30)
    for replica in replicas:
        replica.stop("filled")
    await asyncio.gather(*running)


def snapshots_mib(directory: Path) -> float:
    return sum(file.stat().st_size for file in directory.rglob("*.snap")) / (1 << 20)


async def measure(allocations: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as directory:
        cluster = ReplicaCluster(Path(directory), more=MORE)
        began = time.monotonic()
        await make(cluster, allocations)
        fill_s = time.monotonic() - began
        sizes = [snapshots_mib(Path(directory, name)) for name in cluster.names]
        async with cluster:
            began = time.monotonic()
            await cluster.start()

            async def served() -> bool:
                try:
                    for name in cluster.names:
                        await cluster.call("GET", "/readyz", via=name)
                    status = await cluster.call("GET", "/v1/status", via="n1")
                except (OSError, ClientError, Answered):
                    return False
                rows = status["replicas"]
                return len({(row["digest"], row["applied_index"]) for row in rows}) == 1 and bool(rows[0]["digest"])

            await cluster.until(served, 120)
            restart_s = time.monotonic() - began
            jobs = await cluster.jobs("n2")
            running = sum(job["counts"]["running"] for job in jobs.values())
            assert running == allocations // JOBS * JOBS, [job["counts"] for job in jobs.values()]
    return {
        "allocations": allocations, "restart_s": round(restart_s, 2), "fill_s": round(fill_s, 1),
        "snapshots_mib": [round(size, 2) for size in sizes],
    }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000))))
