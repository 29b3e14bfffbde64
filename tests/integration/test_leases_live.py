"""Leases end to end: real replica, agents, sandboxers; the node is cut off, its agent stopped or killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from agent_process import AgentProcess

from tests.support.relay import Relay
from tests.support.replicas import ReplicaCluster, free_ports

pytestmark = pytest.mark.root

WAIT_S = 30.0
LEASE_S, GRACE_S, DELTA_S = 1.0, 1.0, 0.3
BUSY_S = 3.0
"""What a busy machine may add; `skerry chaos run isolated-agent --runs 20` measures how soon it is on a quiet one."""
STUBBORN = "trap '' TERM; while :; do sleep 0.05; done"
NODES = (f"p{os.getpid()}", f"q{os.getpid()}")


class Field:
    """One replica, two nodes, each reached through a relay that can be cut."""

    def __init__(self, directory: Path, cluster: ReplicaCluster) -> None:
        self.directory = directory
        self.cluster = cluster
        self.relays = {node: Relay(cluster.link_ports["n1"]) for node in NODES}
        self.agents: dict[str, AgentProcess] = {}

    async def start(self) -> None:
        for (node, relay), port in zip(self.relays.items(), free_ports(len(NODES)), strict=True):
            await relay.start(port)
            self.agents[node] = AgentProcess(
                self.directory / node, node, "test", [f"127.0.0.1:{port}"], token=self.cluster.link_token,
                confirm_timeout_ms=0,
            )  # fmt: skip
            self.agents[node].start()
        await self.cluster.until(self._ready, WAIT_S)

    async def _ready(self) -> bool:
        nodes = await self.nodes()
        return len(nodes) == len(NODES) and all(state == "ready" for state in nodes.values())

    async def nodes(self) -> dict[str, str]:
        answer = await self.cluster.call("GET", "/v1/nodes", via="n1")
        return {node["id"]: node["state"] for node in answer["nodes"]}

    async def job(self, name: str) -> list[dict[str, Any]]:
        answer = await self.cluster.call("GET", f"/v1/jobs/default/{name}", via="n1")
        allocations: list[dict[str, Any]] = answer["allocations"]
        return allocations

    async def until(self, name: str, holds: Callable[[list[dict[str, Any]]], Any]) -> list[dict[str, Any]]:
        seen: list[dict[str, Any]] = []

        async def probe() -> list[dict[str, Any]] | None:
            seen[:] = await self.job(name)
            return seen if holds(seen) else None

        try:
            return await self.cluster.until(probe, WAIT_S)
        except AssertionError as error:
            logs = {node: agent.log[-2000:] for node, agent in self.agents.items()}
            raise AssertionError(f"{error}: {name} is {seen}; nodes {await self.nodes()}; agents {logs}") from None

    def events(self, kind: str) -> list[dict[str, Any]]:
        lines = [line for path in (self.directory / "trace").glob("*.jsonl") for line in path.read_text().splitlines()]
        found = [json.loads(line) for line in lines if f'"k":"{kind}"' in line and line.endswith("}")]
        return sorted(found, key=lambda event: event["hlc"])

    async def run_event(self, do: str, allocation: str, epoch: int) -> dict[str, Any]:
        """The node's own word; its journal child writes it shortly after."""

        async def probe() -> dict[str, Any] | None:
            found = [
                event
                for event in self.events("run")
                if (event["do"], event["allocation"], event["epoch"]) == (do, allocation, epoch)
            ]
            return found[0] if found else None

        return await self.cluster.until(probe, WAIT_S)

    def silence(self, how: str, node: str) -> None:
        agent = self.agents[node].process
        assert agent is not None
        if how == "cut off":
            self.relays[node].cut()
        else:
            agent.send_signal(signal.SIGSTOP if how == "stopped" else signal.SIGKILL)

    async def bring_back(self, how: str, node: str) -> None:
        agent = self.agents[node]
        assert agent.process is not None
        if how == "cut off":
            self.relays[node].heal()
        elif how == "stopped":
            agent.process.send_signal(signal.SIGCONT)
        else:
            await agent.wait()
            agent.start()


@pytest.fixture
async def field(tmp_path: Path, other_cgroups: object) -> AsyncIterator[Field]:
    more = {
        "SKERRY_LEASE_DURATION_MS": str(int(LEASE_S * 1000)),
        "SKERRY_LEASE_DELTA_MS": str(int(DELTA_S * 1000)),
    }
    async with ReplicaCluster(tmp_path, 1, more=more) as cluster:
        await cluster.start()
        await cluster.formed()
        field = Field(tmp_path, cluster)
        try:
            await field.start()
            yield field
        finally:
            for relay in field.relays.values():
                relay.heal()
            for agent in field.agents.values():
                if agent.process is not None and agent.process.poll() is None:
                    agent.process.send_signal(signal.SIGCONT)
                await agent.clean_up()
            for relay in field.relays.values():
                await relay.close()


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def test_a_silent_node_ends_its_stop_workload_before_the_replacement_starts_and_keeps_the_others(field):
    await field.cluster.submit(
        "strict", via="n1", command=["/bin/sh", "-c", STUBBORN], on_disconnect="stop",
        terminationGracePeriodSeconds=int(GRACE_S),
    )  # fmt: skip
    await field.cluster.submit("loose", via="n1", command=["sleep", "600"], replicas=2)
    await field.until("loose", lambda rows: [row["state"] for row in rows] == ["running"] * 2)
    gaps = {}
    for how in ("cut off", "stopped", "killed"):
        [old] = await field.until("strict", lambda rows: rows[0]["state"] == "running")
        loose = {row["node"]: row for row in await field.job("loose")}
        silenced = time.time()
        field.silence(how, old["node"])
        [new] = await field.until(
            "strict", lambda rows, old=old: rows[0]["state"] == "running" and rows[0]["epoch"] > old["epoch"]
        )
        assert new["node"] != old["node"]
        exited = await field.run_event("exit", "default/strict.0", old["epoch"])
        fenced = await field.run_event("fenced", "default/strict.0", old["epoch"])
        started = await field.run_event("start", "default/strict.0", new["epoch"])
        assert exited["exit"]["reason"] == "lease"
        assert fenced["t"] - silenced <= LEASE_S + DELTA_S + BUSY_S
        assert exited["t"] - silenced <= LEASE_S + GRACE_S + DELTA_S + BUSY_S
        assert started["t"] - silenced <= LEASE_S + GRACE_S + DELTA_S + BUSY_S
        gaps[how] = (started["t"] - exited["t"]) * 1000
        assert gaps[how] > 0, f"{how}: both ran for {-gaps[how]:.0f} ms"
        assert not alive(old["pid"])
        # What is kept runs on, is unknown to the cluster, and is not replaced.
        kept = loose[old["node"]]
        assert alive(kept["pid"])
        rows = {row["id"]: row for row in await field.job("loose")}
        assert rows[kept["id"]]["state"] == "unknown"
        assert (await field.nodes())[old["node"]] == "lost"
        told = await field.cluster.call("GET", "/v1/explain/default/loose", via="n1")
        assert "its node is lost; on_disconnect keep" in told["reason"]
        # Its node comes back: the same process is adopted, and the fenced one's booking is free.
        await field.bring_back(how, old["node"])
        rows_back = await field.until("loose", lambda rows: all(row["state"] == "running" for row in rows))
        assert {row["pid"] for row in rows_back} == {row["pid"] for row in loose.values()}
        assert (await field.nodes())[old["node"]] == "ready"
        await _until_freed(field, old["node"])
    print("gap ms", {how: round(gap) for how, gap in gaps.items()})


async def _until_freed(field: Field, node: str) -> None:
    async def probe() -> bool:
        found = await field.cluster.call("GET", f"/v1/nodes/{node}", via="n1")
        return [row["id"].rpartition(".")[0] for row in found["allocations"]] == ["default/loose"]

    await field.cluster.until(probe, WAIT_S)


async def test_a_second_agent_of_a_node_from_another_directory_is_refused_while_the_first_lives(field):
    node = NODES[0]
    relay = field.relays[node]
    twin = AgentProcess(
        field.directory / "twin", node, "test", [f"127.0.0.1:{relay.port}"], token=field.cluster.link_token,
        cgroups="none",
    )  # fmt: skip
    first = (await field.cluster.call("GET", f"/v1/nodes/{node}", via="n1"))["incarnation"]
    twin.start()
    try:
        async with asyncio.timeout(WAIT_S):
            while "node-in-use" not in twin.log:  # noqa: ASYNC110 - nothing tells of another process
                await asyncio.sleep(0.05)
        found = await field.cluster.call("GET", f"/v1/nodes/{node}", via="n1")
        assert (found["incarnation"], found["state"]) == (first, "ready")
    finally:
        await twin.clean_up()
