"""Shards on real processes: all replicas decide, a killed one loses its arcs, its work is placed once all the same."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

from chaos.trace.check import check_directory
from tests.support.agents import FakeAgent
from tests.support.replicas import ReplicaCluster

SMALL = {"requests": {"cpu": "10m", "memory": "1Mi", "pids": 1}}
JOBS, REPLICAS = 24, 10


async def keep_session(agent: FakeAgent, cluster: ReplicaCluster) -> None:
    """Dial replica after replica, as an agent does, until cancelled."""
    for attempt in range(10_000):
        name = cluster.names[attempt % len(cluster.names)]
        try:
            await agent.connect(cluster.link_ports[name], cluster.link_token)
        except Exception:  # a replica that is down or not ready: the next one
            await asyncio.sleep(0.1)
            continue
        agent.goodbye = ""
        number = 0
        while not agent.goodbye:
            number += 1
            await agent.beat(number)
            await asyncio.sleep(0.3)


async def owners(cluster: ReplicaCluster, via: str) -> dict[str, str | None]:
    status = await cluster.call("GET", "/v1/status", via=via)
    return {node["id"]: node["owner"] for node in status["nodes"]}


def places(directory: Path) -> list[dict[str, Any]]:
    """Every `place` event that any replica recorded, each once."""
    found = {}
    for file in sorted((directory / "trace").glob("n*.jsonl")):
        for line in file.read_text().splitlines():
            event = json.loads(line)
            if event["k"] == "place":
                found[event["index"], event["allocation"], event["attempt"], event["do"]] = event
    return list(found.values())


async def test_a_replica_dies_while_all_of_them_place(tmp_path: Path) -> None:
    agents = [FakeAgent(f"a{i}", cpu=2000) for i in range(8)]
    async with ReplicaCluster(tmp_path) as cluster:
        await cluster.start()
        leader = await cluster.whole()
        sessions = [asyncio.create_task(keep_session(agent, cluster)) for agent in agents]
        try:
            for agent in agents:
                await agent.wait(lambda a: a.index > 0)
            killed, via = cluster.followers(leader)

            async def all_own() -> dict[str, str | None]:
                found = await owners(cluster, via)
                return found if len(found) == len(agents) and None not in found.values() else {}

            before = await cluster.until(all_own)
            for number in range(JOBS):
                if number == JOBS // 2:
                    await cluster.replicas[killed].kill()
                await cluster.submit(f"batch-{number}", via=via, kind="batch", replicas=REPLICAS, resources=SMALL)

            async def placed() -> bool:
                rows = (await cluster.call("GET", "/v1/nodes", via=via))["nodes"]
                return sum(row["allocations"] for row in rows) == JOBS * REPLICAS

            assert await cluster.until(placed, 20)

            async def moved() -> bool:
                return killed not in (await owners(cluster, via)).values()

            assert await cluster.until(moved)
            after = await owners(cluster, via)
            assert {node for node in before if before[node] != after[node]} == {
                node for node, owner in before.items() if owner == killed
            }
        finally:
            for task in sessions:
                task.cancel()
            await asyncio.gather(*sessions, return_exceptions=True)
            for agent in agents:
                await agent.close()
        for name in (leader, via):
            assert await cluster.replicas[name].stop() == 0
    binds = [event for event in places(tmp_path) if event["do"] == "bind"]
    assert len(binds) == JOBS * REPLICAS
    assert set(Counter(event["allocation"] for event in binds).values()) == {1}
    assert {event["by"] for event in binds} == {"n1", "n2", "n3"}
    found = check_directory(tmp_path / "trace")
    assert found.ok, [finding for finding in found.invariants if finding.ok is False]
