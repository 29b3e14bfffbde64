"""The leader dies while it places: every attempt is bound once, capacity holds, the trace agrees."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

from chaos.trace.check import check_directory
from tests.support.agents import FakeAgent
from tests.support.replicas import ReplicaCluster

SMALL = {"requests": {"cpu": "10m", "memory": "1Mi", "pids": 1}}


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


async def test_the_leader_dies_while_it_places(tmp_path: Path) -> None:
    agents = [FakeAgent(f"a{i}", cpu=2000) for i in range(3)]
    async with ReplicaCluster(tmp_path) as cluster:
        await cluster.start()
        await cluster.whole()
        sessions = [asyncio.create_task(keep_session(agent, cluster)) for agent in agents]
        try:
            for agent in agents:
                await agent.wait(lambda a: a.index > 0)
            for round_number in range(2):
                leader = await cluster.whole()
                via = next(cluster.followers(leader))
                await cluster.submit(f"wide{round_number}", via=via, replicas=200, resources=SMALL)
                await cluster.replicas[leader].kill()
                wanted = 200 * (round_number + 1)

                async def placed(via: str = via, wanted: int = wanted) -> bool:
                    rows = (await cluster.call("GET", "/v1/nodes", via=via))["nodes"]
                    return sum(row["allocations"] for row in rows) == wanted

                assert await cluster.until(placed, 20)
                await cluster.start(leader)
            await cluster.whole()
            rows = (await cluster.call("GET", "/v1/nodes", via="n1"))["nodes"]
            assert all(row["allocated"]["cpu_millicores"] <= 2000 for row in rows)
            for job in ("wide0", "wide1"):
                shown = await cluster.call("GET", f"/v1/jobs/default/{job}", via="n2")
                assert Counter(one["attempt"] for one in shown["allocations"]) == {1: 200}
        finally:
            for task in sessions:
                task.cancel()
            await asyncio.gather(*sessions, return_exceptions=True)
            for agent in agents:
                await agent.close()
        for replica in cluster.replicas.values():
            assert await replica.stop() == 0
    found = check_directory(tmp_path / "trace")
    assert found.ok, [finding for finding in found.invariants if finding.ok is False]
    checked = {finding.name: finding.checked for finding in found.invariants}
    assert checked["one-bind-per-attempt"] >= 400
    assert checked["capacity"] > 0
