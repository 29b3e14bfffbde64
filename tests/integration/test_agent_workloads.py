"""Agent, real sandboxer and real workloads; the replica is the test's own half of the session."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from agent_process import AgentProcess
from agent_replica import ReplicaHalf

from agents.sandbox_client import SandboxClient
from scheduler.model import Limits, Workload
from scheduler.session import Assignment, StopOrder

pytestmark = pytest.mark.root

ALLOCATION = "default/web.0"
MIB = 1 << 20


@pytest.fixture
async def replica() -> AsyncIterator[ReplicaHalf]:
    one = await ReplicaHalf().open()
    yield one
    await one.close()


@pytest.fixture
async def node(tmp_path: Path, replica: ReplicaHalf, other_cgroups: object) -> AsyncIterator[AgentProcess]:
    agent = AgentProcess(tmp_path / "a1", "a1", f"t{os.getpid()}", [replica.address])
    agent.start()
    yield agent
    await agent.clean_up()


def shell(script: str, *, epoch: int = 50, allocation: str = ALLOCATION, grace_s: int = 2, **limits: int) -> Assignment:
    bounds = Limits(limits.get("cpu", 0), limits.get("memory", 0), limits.get("pids", 0))
    work = Workload("web", "default", "service", ("/bin/sh", "-c", script), {"A": "b"}, bounds, (), grace_s, "keep")
    return Assignment(allocation, epoch, 1, work)


async def order(replica: ReplicaHalf, *assignments: Assignment) -> None:
    """Wait for the session and send this set."""
    await replica.until(lambda: replica.connected)
    replica.assignments = list(assignments)
    await replica.push()


def trees(cluster: str) -> list[Path]:
    """Control groups of the node a1 of this cluster."""
    return list(Path("/sys/fs/cgroup").glob(f"**/skerry-{cluster}-a1"))


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def test_a_workload_runs_and_its_exit_code_is_reported(node, replica):
    await order(replica, shell("exit 7"))
    await replica.until(lambda: replica.state(ALLOCATION, 50) == "exited")
    report = replica.reports(ALLOCATION)[-1]
    assert (report.exit.code, report.exit.signal, report.exit.reason, report.exit.status_known) == (
        7, None, "exited", True,
    )  # fmt: skip


async def test_a_program_that_does_not_exist_is_reported_as_failed_start(node, replica):
    work = Workload("web", "default", "service", ("/no/such/program",), {}, Limits(0, 0, 0), (), 1, "keep")
    await order(replica, Assignment(ALLOCATION, 50, 1, work))
    await replica.until(lambda: replica.state(ALLOCATION, 50) == "exited")
    assert replica.reports(ALLOCATION)[-1].exit.reason == "start-failed"


async def test_a_workload_over_its_memory_limit_is_reported_oom(node, replica):
    eater = shell("dd if=/dev/zero of=/dev/null bs=256M count=1; exit 0", memory=32 * MIB)
    await order(replica, shell("sleep 60", epoch=51, allocation="default/web.1"), eater)
    await replica.until(lambda: replica.state(ALLOCATION, 50) == "exited")
    how = replica.reports(ALLOCATION)[-1].exit
    assert how.reason == "oom"
    assert replica.state("default/web.1", 51) != "exited", "it dies alone"


async def test_usage_is_in_the_heartbeats(node, replica):
    await order(replica, shell("while :; do :; done", cpu=200))
    await replica.until(lambda: replica.beats and replica.beats[-1].usage.get(ALLOCATION, (0, 0, 0))[0] > 50_000_000)
    cpu_ns, memory_bytes, pids = replica.beats[-1].usage[ALLOCATION]
    assert memory_bytes > 0
    assert pids >= 1
    assert replica.beats[-1].node_usage[0] >= cpu_ns


async def test_a_stop_order_stops_it(node, replica):
    await order(replica, shell("trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done"))
    await replica.until(lambda: replica.state(ALLOCATION, 50) == "running")
    await wait_for_line(replica, "ready")
    replica.stops = [StopOrder(ALLOCATION, 50, replica.index)]
    replica.assignments = []
    await replica.push()
    await replica.until(lambda: replica.state(ALLOCATION, 50) == "exited")
    how = replica.reports(ALLOCATION)[-1].exit
    assert how.reason == "stopped"


async def wait_for_line(replica: ReplicaHalf, text: str) -> str:
    """The cursor behind the line `text`."""
    cursor = ""
    for _ in range(100):
        reply = await replica.read_logs(ALLOCATION, cursor, wait_ms=500)
        cursor = reply.cursor
        if any(line.text == text for line in reply.lines):
            return cursor
    raise AssertionError(f"{text!r} never came")


async def test_output_is_read_followed_and_ends(node, replica, shared):
    gate = shared / "gate"
    os.mkfifo(gate)
    await order(replica, shell(f"echo one; echo two >&2; cat {gate}; printf last"))
    await replica.until(lambda: replica.state(ALLOCATION, 50) == "running")
    cursor = await wait_for_line(replica, "one")
    with gate.open("w") as out:
        out.write("from outside\n")
    lines = []
    ended = False
    while not ended:
        reply = await replica.read_logs(ALLOCATION, cursor, wait_ms=2000)
        cursor, ended = reply.cursor, reply.ended
        lines += [line.text for line in reply.lines]
    assert lines[-2:] == ["from outside", "last"]


async def test_a_killed_agent_leaves_workloads_running_and_the_next_reports_the_right_exit(node, replica, shared):
    gate = shared / "gate"
    os.mkfifo(gate)
    replica.assignments = [
        shell(f"read line < {gate}; exit 23"),
        shell("sleep 60", epoch=51, allocation="default/web.1"),
    ]
    await replica.until(lambda: replica.state(ALLOCATION, 50) == "running")
    await replica.until(lambda: replica.state("default/web.1", 51) == "running")
    pids = {report.allocation: report.pid for report in replica.reports()}
    await node.end(signal.SIGKILL)
    assert all(alive(pid) for pid in pids.values())
    with gate.open("w") as out:
        out.write("go\n")
    first = replica.hellos[0]
    node.start()
    await replica.until(lambda: replica.state(ALLOCATION, 50) == "exited")
    report = replica.reports(ALLOCATION)[-1]
    assert (report.exit.code, report.exit.reason, report.exit.status_known) == (23, "exited", True)
    assert replica.hellos[-1].incarnation == first.incarnation, "the sandboxer's, which lived on"
    assert alive(pids["default/web.1"])
    assert len({report.pid for report in replica.reports("default/web.1")}) == 1, "never started twice"


async def test_a_terminated_agent_leaves_workloads_running_by_default(node, replica):
    await order(replica, shell("sleep 60"))
    await replica.until(lambda: replica.state(ALLOCATION, 50) == "running")
    pid = replica.reports(ALLOCATION)[-1].pid
    assert await node.end() == 0
    assert alive(pid)


async def test_with_stop_workloads_on_exit_exits_are_reported_and_no_cgroup_is_left(tmp_path, replica, other_cgroups):
    cluster = f"t{os.getpid()}x"
    node = AgentProcess(tmp_path / "a1", "a1", cluster, [replica.address], stop_workloads_on_exit=True)
    try:
        node.start()
        await order(replica, shell("sleep 60"), shell("sleep 60", epoch=51, allocation="default/web.1"))
        await replica.until(lambda: replica.state(ALLOCATION, 50) == "running")
        await replica.until(lambda: replica.state("default/web.1", 51) == "running")
        assert trees(cluster), "they ran in control groups"
        assert await node.end() == 0
        assert [replica.state(ALLOCATION, 50), replica.state("default/web.1", 51)] == ["exited", "exited"]
        assert not trees(cluster)
        assert not (tmp_path / "a1" / "sandboxer.sock").exists()
    finally:
        await node.clean_up()


async def test_a_second_agent_on_the_directory_is_refused_and_the_first_goes_on(node, replica, tmp_path):
    await replica.until(lambda: replica.beats)
    second = AgentProcess(tmp_path / "a1", "a1", node.cluster, [replica.address])
    second.start()
    assert await second.wait() == 1
    assert "agent-dir-in-use" in second.log
    heard = len(replica.beats)
    await replica.until(lambda: len(replica.beats) > heard + 2)


async def test_an_agent_without_its_settings_says_which_one_is_missing(tmp_path):
    agent = AgentProcess(tmp_path / "a1", "a1", "t1", [])
    agent.start()
    assert await agent.wait() == 2
    assert "agent.replicas" in agent.log


async def test_a_killed_sandboxer_is_replaced_and_its_workloads_are_adopted(node, replica, shared):
    gate = shared / "gate"
    os.mkfifo(gate)
    await order(replica, shell(f"read line < {gate}; exit 11"))
    await replica.until(lambda: replica.state(ALLOCATION, 50) == "running")
    pid = replica.reports(ALLOCATION)[-1].pid
    client = await SandboxClient.connect(node.directory, start_if_absent=False)
    os.kill(client.hello.pid, signal.SIGKILL)
    await client.close()
    await replica.until(lambda: len(replica.hellos) >= 2 and replica.connected)
    assert replica.hellos[1].incarnation != replica.hellos[0].incarnation
    assert alive(pid)
    with gate.open("w") as out:
        out.write("go\n")
    await replica.until(lambda: replica.state(ALLOCATION, 50) == "exited")
    how = replica.reports(ALLOCATION)[-1].exit
    assert (how.code, how.reason) in ((11, "exited"), (None, "lost")), "known, or said not to be"
    assert how.status_known == (how.code is not None)
    sequences = [report.sequence for status in replica.statuses for report in status.reports]
    assert sequences == sorted(sequences), "a new sandboxer does not go back"
