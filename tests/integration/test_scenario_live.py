"""A scenario against three real replicas with the real proxy between them; cancelled, it heals."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chaos.scenario.live import heal_everything, run_scenario
from chaos.scenario.model import parse_scenario
from chaos.toxiproxy_client import ToxiproxyClient
from chaos.trace.explain import explain_directory
from skerry.dev.target import DevCluster
from tests.support.dev_cluster import Cluster

SHORT = """
name = "short"
duration = "7s"
[cluster]
replicas = 3
[load]
rate = "30/s"
jobs = 3
[[at]]
t = "1s"
fault = "partition"
groups = ["minority", "rest"]
id = "p"
for = "4s"
[expect]
always = ["election-safety", "no-acknowledged-placement-lost", "link-cut-silent", "commit-by-quorum"]
eventually = { leader = "5s", state-hash-equal = "10s", all-placed = "5s" }
sometimes = ["leader-changed", "write-during-fault", "link-cut"]
budget = { acked_lost = 0 }
"""


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[DevCluster]:
    dev = Cluster(tmp_path / "cluster")
    facts = await asyncio.to_thread(dev.start, "--replicas", "3", "--agents", "0")
    try:
        yield DevCluster(facts)
    finally:
        await asyncio.to_thread(dev.run, "dev", "stop")


@pytest.mark.timeout(120)
async def test_a_partitioned_leader_loses_nothing_and_a_cancelled_run_heals(cluster: DevCluster) -> None:
    said: list[str] = []
    result = await run_scenario(parse_scenario(SHORT, "short.toml"), cluster, seed=3, say=said.append)
    assert result.reasons == ()
    assert result.verdict == "pass"
    assert result.metrics["acked"] is not None
    assert result.metrics["acked"] > 30
    assert result.metrics["acked_lost"] == 0
    assert result.metrics["elections"] is not None
    assert result.metrics["elections"] >= 1
    assert {finding.name for finding in result.invariants if finding.ok is False} == set()
    story = "\n".join(sentence.text for sentence in explain_directory(cluster.trace))
    assert "not one byte had crossed" in story
    assert re.search(r"While it was cut off, n\d was asked for \d+ writes? and acknowledged none of them", story)

    running = asyncio.create_task(run_scenario(parse_scenario(SHORT, "short.toml"), cluster))
    client = ToxiproxyClient(cluster.chaos_api)
    async with asyncio.timeout(30):
        while not await client.toxics():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await client.toxics() == []

    victim = next(iter(cluster.apis))
    await cluster.kill(victim)
    await client.set_enabled("n1~n2", False)
    assert sorted(await heal_everything(cluster)) == sorted(["n1~n2", f"{victim} started"])
    assert victim in await cluster.pids()
