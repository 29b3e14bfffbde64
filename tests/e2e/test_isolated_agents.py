"""Strict singletons on nodes that are cut off: fenced there before they begin elsewhere, or found out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from dev_cluster import Cluster

from chaos.scenario.live import run_scenario
from chaos.scenario.model import parse_scenario
from chaos.scenario.runner import RunResult
from skerry.dev.target import DevCluster

pytestmark = pytest.mark.root

LEASE_MS, GRACE_S = 1500, 1
SOON_MS = LEASE_MS + GRACE_S * 1000 + 2000

START = f"""
name = "isolated-agents"
duration = "8500ms"
[cluster]
replicas = 3
agents = 4
[load]
rate = "6/s"
jobs = 1
replicas = 4
kind = "service"
command = ["/bin/sleep", "3600"]
on_disconnect = "stop"
grace = {GRACE_S}
[expect]
always = ["at-most-one-process", "absence-never-stops", "fencing", "election-safety", "no-acknowledged-placement-lost"]
eventually = {{ leader = "5s" }}
sometimes = ["replaced", "link-cut"]
budget = {{ acked_lost = 0, overlap_ms = 0, double_run_ms = 0, replaced_ms = {SOON_MS} }}
[[at]]
t = "1500ms"
fault = "isolate"
id = "i"
for = "6s"
"""
ALIVE_STOPPED_AND_KILLED = (
    START
    + """
target = "agent:1+agent:2+agent:3"
[[at]]
t = "1700ms"
fault = "pause"
target = "agent:2"
id = "p"
for = "5500ms"
[[at]]
t = "1700ms"
fault = "kill"
target = "agent:3"
id = "k"
for = "5500ms"
"""
)
ALIVE = START + 'target = "agent:1"\n'


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Cluster]:
    dev = Cluster(tmp_path / "cluster")
    yield dev
    await asyncio.to_thread(dev.run, "dev", "stop")


async def _run(dev: Cluster, scenario: str, *more: str) -> RunResult:
    settings = ("--replicas", "3", "--agents", "4", "--set", f"lease.duration_ms={LEASE_MS}", *more)
    facts = await asyncio.to_thread(dev.start, *settings)
    return await run_scenario(parse_scenario(scenario, "isolated-agents.toml"), DevCluster(facts), seed=3)


async def test_cut_off_nodes_fence_their_workloads_with_the_agent_alive_stopped_or_killed(home):
    result = await _run(home, ALIVE_STOPPED_AND_KILLED)
    assert result.reasons == ()
    assert result.verdict == "pass"
    numbers = result.metrics
    assert numbers["replaced"] is not None
    assert numbers["replaced"] >= 3, "each of the three nodes had a workload that went on elsewhere"
    assert numbers["overlap_ms"] == 0
    assert numbers["gap_ms"] is not None
    assert numbers["gap_ms"] >= 0


async def test_without_fencing_two_processes_run_at_once_and_the_run_fails(home):
    result = await _run(home, ALIVE, "--break", "no-fencing")
    assert result.verdict == "fail"
    found = {each.name: each for each in result.invariants}["at-most-one-process"]
    assert found.ok is False
    assert {ref.split("/")[0] for ref in found.refs} >= {"a1"}
    assert (result.metrics["overlap_ms"] or 0) > 0
