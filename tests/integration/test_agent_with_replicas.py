"""A real replica and a real agent: a submitted job runs in control groups and its end comes back."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from agent_process import AgentProcess

from agents.sandbox_client import SandboxClient
from tests.support.replicas import Answered, ReplicaCluster

pytestmark = pytest.mark.root

WAIT_S = 30.0
NODE = f"a{os.getpid()}"
MIB = 1 << 20


class Small:
    """One replica, one agent."""

    def __init__(self, cluster: ReplicaCluster, agent: AgentProcess, via: str = "n1") -> None:
        self.via = via
        self.cluster = cluster
        self.agent = agent

    async def submit(self, name: str, script: str, **spec: Any) -> dict[str, Any]:
        return await self.cluster.submit(name, via=self.via, command=["/bin/sh", "-c", script], **spec)

    async def allocation(self, name: str, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first allocation of a job, once it is as wanted."""
        last: dict[str, Any] = {}

        async def probe() -> dict[str, Any] | None:
            last.update(await self.cluster.call("GET", f"/v1/jobs/default/{name}", via=self.via))
            found = last["allocations"]
            return found[0] if found and holds(found[0]) else None

        try:
            return await self.cluster.until(probe, WAIT_S)
        except AssertionError as error:
            raise AssertionError(f"{error}\n--- job\n{last}\n--- agent\n{self.agent.log[-3000:]}") from None


@pytest.fixture
async def small(tmp_path: Path, other_cgroups: object) -> AsyncIterator[Small]:
    async with ReplicaCluster(tmp_path, 1) as cluster:
        await cluster.start()
        await cluster.formed()
        address = f"127.0.0.1:{cluster.link_ports['n1']}"
        agent = AgentProcess(tmp_path / "a1", NODE, "test", [address], token=cluster.link_token)
        agent.start()
        try:
            yield Small(cluster, agent)
        finally:
            await agent.clean_up()


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def limit(cgroup: str, v1: str, v2: str) -> str:
    """A limit file of a workload, in whichever hierarchy holds it."""
    controller, file = v1.split("/")
    name = cgroup[cgroup.index("skerry-") :]
    for path in (Path("/sys/fs/cgroup") / controller / name / file, Path(cgroup) / v2):
        if path.exists():
            return path.read_text().strip()
    raise AssertionError(f"{cgroup} has neither {v1} nor {v2}")


async def test_a_submitted_job_runs_in_a_cgroup_whose_limit_files_equal_the_spec(small):
    limits = {"cpu": "500m", "memory": "64Mi", "pids": 20}
    await small.submit("bounded", "sleep 300", resources={"requests": {"cpu": "100m"}, "limits": limits})
    running = await small.allocation("bounded", lambda a: a["state"] == "running")
    assert running["node"] == NODE
    assert running["pid"] > 0
    cgroup = running["cgroup"]
    assert limit(cgroup, "memory/memory.limit_in_bytes", "memory.max") == str(64 * MIB)
    assert limit(cgroup, "pids/pids.max", "pids.max") == "20"
    assert limit(cgroup, "cpu/cpu.cfs_quota_us", "cpu.max").split()[0] == "50000"
    members = limit(cgroup, "memory/cgroup.procs", "cgroup.procs").split()
    assert members, "the workload is in it"


async def test_the_exit_of_a_batch_job_comes_back_and_it_stays_complete(small):
    await small.submit("once", "exit 0", kind="batch")
    done = await small.allocation("once", lambda a: a["state"] == "complete")
    assert (done["exit"]["code"], done["exit"]["reason"], done["exit"]["status_known"]) == (0, "exited", True)


async def test_a_job_that_dies_is_started_again_by_its_policy_and_its_limit(small):
    await small.submit("fails", "exit 3", kind="batch", restartPolicy="OnFailure", backoffLimit=1)
    failed = await small.allocation("fails", lambda a: a["state"] == "failed" and a["attempt"] == 2)
    assert failed["exit"]["code"] == 3


async def test_a_job_over_its_memory_limit_is_reported_oom(small):
    eater = "dd if=/dev/zero of=/dev/null bs=256M count=1"
    resources = {"requests": {"memory": "32Mi"}, "limits": {"memory": "32Mi"}}
    await small.submit("eater", eater, kind="batch", restartPolicy="Never", resources=resources)
    ended = await small.allocation("eater", lambda a: a["exit"] is not None)
    assert ended["exit"]["reason"] == "oom"


async def test_a_stopped_job_ends_and_frees_its_node(small):
    await small.submit("stops", "sleep 300")
    running = await small.allocation("stops", lambda a: a["state"] == "running")
    await small.cluster.call("POST", "/v1/jobs/default/stops/stop", {"request_id": "stop-1"}, via="n1")
    await small.allocation("stops", lambda a: a["state"] == "stopped")
    assert not alive(running["pid"])
    nodes = (await small.cluster.call("GET", "/v1/nodes", via="n1"))["nodes"]
    assert all(amount == 0 for amount in nodes[0]["allocated"].values() if isinstance(amount, int))


async def test_an_agent_killed_and_started_again_reports_the_exit_that_nobody_saw(small, shared):
    gate = shared / "gate"
    os.mkfifo(gate)
    await small.submit("waits", f"read line < {gate}; exit 23", kind="batch", restartPolicy="Never")
    running = await small.allocation("waits", lambda a: a["state"] == "running")
    await small.agent.end(signal.SIGKILL)
    assert alive(running["pid"])
    with gate.open("w") as out:
        out.write("go\n")
    small.agent.start()
    ended = await small.allocation("waits", lambda a: a["exit"] is not None)
    assert (ended["exit"]["code"], ended["attempt"]) == (23, 1)


async def test_a_sandboxer_killed_leaves_the_job_running_and_its_end_is_known_later(small, shared):
    gate = shared / "gate"
    os.mkfifo(gate)
    await small.submit("orphan", f"read line < {gate}; exit 0", kind="batch", restartPolicy="Never")
    running = await small.allocation("orphan", lambda a: a["state"] == "running")
    client = await SandboxClient.connect(small.agent.directory, start_if_absent=False)
    old, pid = client.incarnation, client.hello.pid
    await client.close()
    os.kill(pid, signal.SIGKILL)

    async def replaced() -> bool:
        [node] = (await small.cluster.call("GET", "/v1/nodes", via="n1"))["nodes"]
        return node["incarnation"] != old and node["state"] == "ready"

    await small.cluster.until(replaced, WAIT_S)
    still = await small.allocation("orphan", lambda a: True)
    assert (still["state"], still["pid"], still["attempt"]) == ("running", running["pid"], 1)
    with gate.open("w") as out:
        out.write("go\n")
    ended = await small.allocation("orphan", lambda a: a["exit"] is not None)
    assert (ended["exit"]["code"], ended["exit"]["reason"]) in ((0, "exited"), (None, "lost"))


async def test_a_replica_killed_and_started_again_finds_the_workload_untouched(small):
    await small.submit("steady", "sleep 300")
    before = await small.allocation("steady", lambda a: a["state"] == "running")
    await small.cluster.replicas["n1"].kill()
    await small.cluster.start("n1")
    await small.cluster.formed()
    await small.submit("after", "exit 0", kind="batch")
    await small.allocation("after", lambda a: a["state"] == "complete")
    after = await small.allocation("steady", lambda a: a["state"] == "running")
    assert (after["pid"], after["epoch"], after["attempt"]) == (before["pid"], before["epoch"], 1)


async def test_output_is_read_through_the_api(small):
    await small.submit("talks", "echo hello; echo oops >&2; exit 0", kind="batch")
    await small.allocation("talks", lambda a: a["state"] == "complete")
    answer = await small.cluster.call("GET", "/v1/logs/default/talks.0", via="n1")
    assert sorted((line["stream"], line["text"]) for line in answer["lines"]) == [
        ("stderr", "oops"),
        ("stdout", "hello"),
    ]


async def test_a_session_moves_from_a_paused_replica_and_new_work_still_reaches_the_node(tmp_path, other_cgroups):
    async with ReplicaCluster(tmp_path, 3) as cluster:
        await cluster.start()
        await cluster.whole()
        addresses = [f"127.0.0.1:{port}" for port in cluster.link_ports.values()]
        agent = AgentProcess(tmp_path / "a1", NODE, "test", addresses, token=cluster.link_token)
        agent.start()
        holder = ""

        async def owner(via: str) -> str:
            [node] = (await cluster.call("GET", "/v1/status", via=via))["nodes"] or [{}]
            return str(node.get("session") or "")

        async def held() -> str:
            return await owner("n1")

        try:
            holder = await cluster.until(held, WAIT_S)
            via = next(cluster.followers(holder))
            cluster.replicas[holder].process.send_signal(signal.SIGSTOP)
            small = Small(cluster, agent, via)

            async def moved() -> bool:
                try:
                    return await owner(via) not in ("", holder)
                except (Answered, aiohttp.ClientError):
                    return False

            await cluster.until(moved, WAIT_S)
            await small.submit("later", "exit 0", kind="batch")
            await small.allocation("later", lambda a: a["state"] == "complete")
        finally:
            if holder:
                cluster.replicas[holder].process.send_signal(signal.SIGCONT)
            await agent.clean_up()
