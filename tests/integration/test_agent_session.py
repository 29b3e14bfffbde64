"""The agent against replicas over real sockets; the sandboxer is one in memory."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from agent_replica import TOKEN, ReplicaHalf
from memory_sandbox import MemorySandboxer

from agents import inventory
from agents.agent import Agent
from agents.errors import DirectoryInUse, ForeignDirectory, NotAdmitted
from agents.home import Home
from agents.reconcile import ENDED_KEPT
from agents.sandbox_client import SandboxerRefused, SandboxerUnavailable
from agents.settings import AgentSettings
from cluster.clock import SystemClock
from cluster.trace_writer import file_tracer
from scheduler.model import Exit, Limits, Workload
from scheduler.session import AgentHello, Assignment, SessionRefused, StopOrder

# aiohttp warns of a connection that a refused dial leaves to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Unclosed connection:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

ALLOCATION = "default/web.0"


def settings_for(directory: Path, *replicas: ReplicaHalf, **changes) -> AgentSettings:
    given = {
        "node": "a1",
        "directory": directory,
        "cluster": "test",
        "replicas": tuple(replica.address for replica in replicas),
        "token": TOKEN,
        "cpu_millicores": 1000,
        "memory_bytes": 1 << 30,
        "pids": 100,
        "heartbeat_s": 0.05,
        "confirm_timeout_s": 0.5,
        "usage_s": 0.05,
    }
    return AgentSettings(**(given | changes))


class Running:
    """An agent at work in this process."""

    def __init__(self, task: asyncio.Task[None], stop: asyncio.Event) -> None:
        self.task = task
        self.stop = stop

    async def end(self) -> None:
        self.stop.set()
        await asyncio.wait_for(self.task, 10)


@asynccontextmanager
async def agent(settings: AgentSettings, sandboxer: MemorySandboxer) -> AsyncIterator[Running]:
    home = Home.open(settings.directory, node=settings.node, cluster_name=settings.cluster)
    tracer = file_tracer(settings.node, settings.trace_directory, SystemClock(), incarnation="0badcafe")
    stop = asyncio.Event()

    async def connect():
        return sandboxer.connect()

    task = asyncio.create_task(Agent(settings, home, tracer, connect).run(stop))
    try:
        yield Running(task, stop)
    finally:
        task.cancel()
        await asyncio.wait([task])
        tracer.close()
        home.close()


@pytest.fixture
async def replica() -> AsyncIterator[ReplicaHalf]:
    one = await ReplicaHalf().open()
    yield one
    await one.close()


@pytest.fixture
async def other() -> AsyncIterator[ReplicaHalf]:
    one = await ReplicaHalf("n2").open()
    yield one
    await one.close()


class FirstReplicaFirst:
    """Dice that dial the replicas in the order of the settings."""

    def below(self, bound: int) -> int:
        return 0


@pytest.fixture
def in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.host.SystemDice", FirstReplicaFirst)


def assignment(allocation: str = ALLOCATION, epoch: int = 50, grace_s: int = 7) -> Assignment:
    work = Workload("web", "default", "service", ("sleep", "9"), {}, Limits(0, 0, 0), (), grace_s, "keep")
    return Assignment(allocation, epoch, 1, work)


async def test_an_agent_says_who_it_is_starts_what_is_assigned_and_reports_it(tmp_path, replica):
    replica.assignments = [assignment()]
    box = MemorySandboxer()
    async with agent(settings_for(tmp_path, replica), box):
        await replica.until(lambda: replica.state(ALLOCATION, 50) == "running")
        await replica.until(lambda: any(ALLOCATION in beat.usage for beat in replica.beats))
    [hello] = replica.hellos
    assert (hello.node, hello.incarnation, hello.cluster_id, hello.capacity.cpu_millicores) == ("a1", "s1", "", 1000)
    assert hello.boot_id == inventory.boot_id()
    assert box.starts == [(ALLOCATION, 50)]
    assert [beat.number for beat in replica.beats] == list(range(1, len(replica.beats) + 1))
    assert json.loads((tmp_path / "agent.json").read_text())["cluster_id"] == "cluster-1"


async def test_an_exit_is_repeated_over_sessions_until_it_is_committed(tmp_path, replica):
    replica.assignments = [assignment()]
    box = MemorySandboxer()
    async with agent(settings_for(tmp_path, replica), box):
        await replica.until(lambda: replica.state(ALLOCATION, 50) == "running")
        replica.commits = False
        box.exit(ALLOCATION, 50, code=3)
        await replica.until(lambda: replica.state(ALLOCATION, 50) == "exited")
        first = replica.statuses[-1]
        heard = len(replica.statuses)
        await replica.close()
        await replica.open()
        await replica.until(lambda: len(replica.statuses) > heard)
        assert replica.statuses[-1] == first, "same number, same contents"
        replica.commits = True
        await replica.close()
        await replica.open()
        await replica.until(lambda: len(replica.statuses) > heard + 1)
        assert replica.statuses[-1].reports[0].exit.code == 3


async def test_a_stop_order_stops_with_the_workloads_own_grace_and_absence_does_not(tmp_path, replica):
    replica.assignments = [assignment()]
    box = MemorySandboxer()
    async with agent(settings_for(tmp_path, replica), box):
        await replica.until(lambda: replica.state(ALLOCATION, 50) == "running")
        replica.assignments = []
        await replica.push()
        await replica.until(lambda: replica.statuses[-1].unknown == ((ALLOCATION, 50),))
        assert box.stops == []
        replica.stops = [StopOrder(ALLOCATION, 50, replica.index)]
        await replica.push()
        await replica.until(lambda: replica.state(ALLOCATION, 50) == "exited")
    assert box.stops == [(ALLOCATION, 50, 7)]


async def test_a_stop_order_for_what_never_started_is_answered_with_an_exit(tmp_path, replica):
    replica.stops = [StopOrder(ALLOCATION, 50, 99)]
    box = MemorySandboxer()
    async with agent(settings_for(tmp_path, replica), box):
        await replica.until(lambda: replica.state(ALLOCATION, 50) == "exited")
    [report] = replica.reports(ALLOCATION)
    assert (report.exit.reason, report.exit.status_known, report.exit.code) == ("stopped", False, None)
    assert box.fenced == {ALLOCATION: 50}


async def test_a_start_that_the_sandboxer_refuses_for_good_is_reported_as_failed(tmp_path, replica):
    replica.assignments = [assignment()]
    box = MemorySandboxer()
    box.refuse = SandboxerRefused("bad-request", "no such field")
    async with agent(settings_for(tmp_path, replica), box):
        await replica.until(lambda: replica.state(ALLOCATION, 50) == "exited")
    [report] = replica.reports(ALLOCATION)
    assert (report.exit.reason, report.exit.detail) == ("start-failed", "bad-request: no such field")


async def test_a_start_refused_for_now_is_tried_again(tmp_path, replica):
    replica.assignments = [assignment()]
    box = MemorySandboxer()
    box.refuse = SandboxerRefused("journal-failed", "no space", retryable=True)
    async with agent(settings_for(tmp_path, replica), box):
        await replica.until(lambda: len(replica.beats) >= 3)
        box.refuse = None
        await replica.until(lambda: replica.state(ALLOCATION, 50) == "running")
    assert box.starts == [(ALLOCATION, 50)]


async def test_a_replica_that_confirms_nothing_is_left_for_the_next(tmp_path, replica, other, in_order):
    replica.confirms = other.confirms = False
    async with agent(settings_for(tmp_path, replica, other), MemorySandboxer()):
        await replica.until(lambda: len(replica.hellos) >= 1)
        await other.until(lambda: len(other.hellos) >= 1)
        other.confirms = True
        await other.until(lambda: len(other.beats) >= 20)
        assert other.connected


async def test_a_replica_that_goes_away_is_replaced_and_workloads_are_not_touched(tmp_path, replica, other):
    replica.assignments = other.assignments = [assignment()]
    box = MemorySandboxer()
    async with agent(settings_for(tmp_path, replica, other), box):
        first = asyncio.ensure_future(replica.until(lambda: replica.beats))
        second = asyncio.ensure_future(other.until(lambda: other.beats))
        await asyncio.wait((first, second), return_when=asyncio.FIRST_COMPLETED)
        holder, spare = (replica, other) if first.done() else (other, replica)
        await holder.until(lambda: holder.state(ALLOCATION, 50) == "running")
        await holder.close()
        await spare.until(lambda: spare.connected and spare.beats)
        await asyncio.gather(first, second)
    assert (box.starts, box.stops) == ([(ALLOCATION, 50)], [])


@pytest.mark.parametrize(
    "garbage",
    [b"", b"\xff" * 100, b"\x93" + b"\x00" * 50, b"\x94\xa0\x00\x00\x92\x63\x01", bytes(range(256)) * 100],
    ids=["empty", "ones", "short", "unknown-tag", "noise"],
)
async def test_garbage_from_a_replica_closes_the_link_and_nothing_else(tmp_path, replica, garbage):
    replica.assignments = [assignment()]
    box = MemorySandboxer()
    async with agent(settings_for(tmp_path, replica), box) as running:
        await replica.until(lambda: replica.state(ALLOCATION, 50) == "running")
        await replica.say_bytes(garbage)
        await replica.until(lambda: replica.closed >= 1 and len(replica.hellos) >= 2 and replica.connected)
        assert not running.task.done()
    assert (box.starts, box.stops) == ([(ALLOCATION, 50)], [])


async def test_a_frame_that_only_agents_send_closes_the_link(tmp_path, replica):
    async with agent(settings_for(tmp_path, replica), MemorySandboxer()):
        await replica.until(lambda: replica.beats)
        await replica.say(replica.hellos[0])
        await replica.until(lambda: len(replica.hellos) >= 2)
        assert isinstance(replica.hellos[1], AgentHello)


async def test_a_frame_above_the_limit_closes_the_link(tmp_path, replica):
    async with agent(settings_for(tmp_path, replica), MemorySandboxer()):
        await replica.until(lambda: replica.beats)
        with contextlib.suppress(ConnectionError):
            await replica.say_bytes(bytes(64 << 20))
        await replica.until(lambda: len(replica.hellos) >= 2)


async def test_a_wrong_token_everywhere_ends_the_agent_with_the_reason(tmp_path, replica, monkeypatch):
    monkeypatch.setattr("agents.dialer.PAUSE_MAX_S", 0.05)
    async with agent(settings_for(tmp_path, replica, token="wrong-token"), MemorySandboxer()) as running:
        with pytest.raises(NotAdmitted, match="bad-token"):
            await asyncio.wait_for(running.task, 10)
    assert replica.hellos == []


async def test_a_refusal_that_time_cures_is_waited_for(tmp_path, replica):
    replica.refusal = SessionRefused("no-quorum", "no leader yet", "wait")
    async with agent(settings_for(tmp_path, replica), MemorySandboxer()):
        await replica.until(lambda: len(replica.hellos) >= 4)
        replica.refusal = None
        await replica.until(lambda: replica.beats)


async def test_a_node_that_was_accepted_once_is_not_ended_by_a_later_refusal(tmp_path, replica, monkeypatch):
    monkeypatch.setattr("agents.dialer.PAUSE_MAX_S", 0.05)
    async with agent(settings_for(tmp_path, replica), MemorySandboxer()) as running:
        await replica.until(lambda: replica.beats)
        replica.refusal = SessionRefused("wrong-cluster", "not ours", "")
        await replica.close()
        await replica.open()
        await replica.until(lambda: len(replica.hellos) >= 6)
        assert not running.task.done()


async def test_a_node_of_one_cluster_does_not_work_for_another(tmp_path, replica, monkeypatch):
    monkeypatch.setattr("agents.dialer.PAUSE_MAX_S", 0.05)
    box = MemorySandboxer()
    async with agent(settings_for(tmp_path, replica), box) as running:
        await replica.until(lambda: replica.beats)
        await running.end()
    replica.cluster_id = "cluster-2"
    replica.assignments = [assignment()]
    async with agent(settings_for(tmp_path, replica), box) as running:
        with pytest.raises(NotAdmitted, match="wrong-cluster"):
            await asyncio.wait_for(running.task, 10)
    assert replica.hellos[-1].cluster_id == "cluster-1"
    assert box.starts == []


async def test_the_next_agent_adopts_and_reports_an_exit_that_nobody_saw(tmp_path, replica):
    replica.assignments = [assignment()]
    box = MemorySandboxer()
    async with agent(settings_for(tmp_path, replica), box):
        await replica.until(lambda: replica.state(ALLOCATION, 50) == "running")
    box.exit(ALLOCATION, 50, code=7)
    async with agent(settings_for(tmp_path, replica), box):
        await replica.until(lambda: replica.state(ALLOCATION, 50) == "exited")
    assert replica.reports(ALLOCATION)[-1].exit.code == 7
    assert box.starts == [(ALLOCATION, 50)]


async def test_a_new_sandboxer_means_a_new_hello_and_what_it_cannot_find_is_lost(tmp_path, replica):
    replica.assignments = [assignment()]
    box = MemorySandboxer()
    async with agent(settings_for(tmp_path, replica), box):
        await replica.until(lambda: replica.state(ALLOCATION, 50) == "running")
        box.incarnation = "s2"
        box.records.clear()
        box.crash()
        await replica.until(lambda: len(replica.hellos) >= 2 and replica.state(ALLOCATION, 50) == "exited")
    assert replica.hellos[1].incarnation == "s2"
    assert replica.reports(ALLOCATION)[-1].exit.reason == "lost"


async def test_what_one_sandboxer_told_is_never_reported_under_the_next(tmp_path, replica):
    replica.assignments = [assignment()]
    box = MemorySandboxer()
    async with agent(settings_for(tmp_path, replica), box):
        await replica.until(lambda: replica.state(ALLOCATION, 50) == "running")
        replica.commits = False
        box.sequence = 90
        box.change("default/other.0", 7, "running", "started")
        await replica.until(lambda: replica.reports("default/other.0"))
        box.incarnation, box.sequence = "s2", 0
        box.records = {}
        box.change("default/other.0", 7, "exited", "exited", Exit(None, None, "lost", False))
        box.crash()
        told = len(replica.statuses)
        replica.commits = True
        await replica.until(lambda: replica.state("default/other.0", 7) == "exited")
    said = [each for status in replica.statuses[told:] for each in status.reports if each.epoch == 7]
    assert {(each.sequence, each.state) for each in said} == {(1, "exited")}


async def test_an_ordered_end_leaves_workloads_running_and_says_goodbye(tmp_path, replica):
    replica.assignments = [assignment()]
    box = MemorySandboxer()
    async with agent(settings_for(tmp_path, replica), box) as running:
        await replica.until(lambda: replica.state(ALLOCATION, 50) == "running")
        await running.end()
    await replica.until(lambda: replica.goodbyes)
    assert (box.stops, box.shut_down) == ([], False)


async def test_with_stop_workloads_on_exit_all_exits_are_committed_before_the_agent_ends(tmp_path, replica):
    replica.assignments = [assignment(), assignment("default/web.1", 51)]
    box = MemorySandboxer()
    async with agent(settings_for(tmp_path, replica, stop_workloads_on_exit=True), box) as running:
        await replica.until(lambda: replica.state("default/web.1", 51) == "running")
        await replica.until(lambda: replica.state(ALLOCATION, 50) == "running")
        await running.end()
    assert box.shut_down
    assert [replica.state(ALLOCATION, 50), replica.state("default/web.1", 51)] == ["exited", "exited"]


async def test_with_stop_workloads_on_exit_an_absent_cluster_delays_the_end_by_seconds_only(tmp_path, replica):
    replica.assignments = [assignment()]
    box = MemorySandboxer()
    async with agent(settings_for(tmp_path, replica, stop_workloads_on_exit=True), box) as running:
        await replica.until(lambda: replica.state(ALLOCATION, 50) == "running")
        replica.commits = False
        await running.end()
    assert box.shut_down


async def test_a_directory_in_use_or_of_another_node_or_cluster_is_refused(tmp_path):
    home = Home.open(tmp_path, node="a1", cluster_name="test")
    with pytest.raises(DirectoryInUse, match="another agent"):
        Home.open(tmp_path, node="a1", cluster_name="test")
    home.close()
    with pytest.raises(ForeignDirectory, match="node 'a1'"):
        Home.open(tmp_path, node="a2", cluster_name="test")
    with pytest.raises(ForeignDirectory, match="cluster 'test'"):
        Home.open(tmp_path, node="a1", cluster_name="other")
    (tmp_path / "agent.json").write_text('{"format":2,"node":"a1","cluster_name":"test","cluster_id":""}')
    with pytest.raises(ForeignDirectory, match="newer version"):
        Home.open(tmp_path, node="a1", cluster_name="test")
    (tmp_path / "agent.json").write_text("{")
    with pytest.raises(ForeignDirectory, match="damaged"):
        Home.open(tmp_path, node="a1", cluster_name="test")


async def test_the_trace_pairs_sends_with_receives_and_tells_of_adoption(tmp_path, replica):
    replica.assignments = [assignment()]
    box = MemorySandboxer()
    box.change("default/old.0", 3, "running", "started")
    traces = tmp_path / "trace"
    async with agent(settings_for(tmp_path / "a1", replica, trace_directory=traces), box):
        await replica.until(lambda: replica.state(ALLOCATION, 50) == "running")
    events = [json.loads(line) for path in sorted(traces.glob("*.jsonl")) for line in path.read_text().splitlines()]
    assert any(e["k"] == "run" and (e["do"], e["allocation"]) == ("adopt", "default/old.0") for e in events)
    assert any(e["k"] == "send" and e["type"] == "Status" and e["to"] == "n1" and e["m"] for e in events)
    assert any(e["k"] == "conn" and e["what"] == "opened" for e in events)


async def test_a_port_that_takes_connections_and_never_answers_is_left_for_the_next(
    tmp_path, replica, monkeypatch, in_order
):
    monkeypatch.setattr("agents.session.DIAL_TIMEOUT_S", 0.2)

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    hole = await asyncio.start_server(hold, "127.0.0.1", 0)
    port = hole.sockets[0].getsockname()[1]
    settings = settings_for(tmp_path, replica, replicas=(f"127.0.0.1:{port}", replica.address))
    async with agent(settings, MemorySandboxer()):
        await replica.until(lambda: len(replica.beats) >= 3)
    hole.close()


async def test_a_replica_that_never_answers_the_hello_is_left_for_the_next(
    tmp_path, replica, other, monkeypatch, in_order
):
    monkeypatch.setattr("agents.session.HELLO_TIMEOUT_S", 0.2)
    replica.mute = True
    async with agent(settings_for(tmp_path, replica, other), MemorySandboxer()):
        await replica.until(lambda: replica.hellos)
        await other.until(lambda: len(other.beats) >= 3)


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", b"\x00" * 4096, b"SSH-2.0-x\r\n"]
)
async def test_a_port_that_speaks_something_else_does_no_harm(tmp_path, replica, answer, in_order):
    async def other_protocol(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(other_protocol, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    settings = settings_for(tmp_path, replica, replicas=(f"127.0.0.1:{port}", replica.address))
    async with agent(settings, MemorySandboxer()):
        await replica.until(lambda: len(replica.beats) >= 3)
    server.close()


async def test_a_sandboxer_that_cannot_be_started_ends_the_agent_with_its_reason(tmp_path, replica, monkeypatch):
    monkeypatch.setattr("agents.agent.SANDBOXER_PAUSE_S", 0.01)

    async def connect():
        raise SandboxerUnavailable("no cgroups here", hint="mount them")

    settings = settings_for(tmp_path, replica)
    home = Home.open(settings.directory, node="a1", cluster_name="test")
    tracer = file_tracer("a1", None, SystemClock(), incarnation="0badcafe")
    with pytest.raises(SandboxerUnavailable, match="no cgroups"):
        await asyncio.wait_for(Agent(settings, home, tracer, connect).run(asyncio.Event()), 10)
    home.close()
    assert replica.hellos == []


async def test_a_thousand_exits_are_all_committed_in_their_order(tmp_path, replica):
    replica.assignments = [assignment(f"default/many.{n}", 50 + n) for n in range(1000)]
    box = MemorySandboxer()
    async with agent(settings_for(tmp_path, replica), box):
        await replica.until(lambda: len(box.starts) == 1000)
        for n in range(1000):
            box.exit(f"default/many.{n}", 50 + n)
        await replica.until(lambda: sum(report.state == "exited" for report in replica.reports()) == 1000)
        await replica.until(lambda: len(box.forgotten) == 1000 - ENDED_KEPT)
    heard = [report.sequence for status in replica.statuses for report in status.reports]
    for n in (0, 999):
        states = [r.state for s in replica.statuses for r in s.reports if r.allocation == f"default/many.{n}"]
        assert states == ["running", "exited"]
    assert len(heard) == 2000


async def test_a_lease_lasts_from_the_send_of_its_renewal_and_goes_to_the_sandboxer(tmp_path, replica):
    replica.lease_ms, replica.registration = 60_000, 31
    box = MemorySandboxer()
    async with agent(settings_for(tmp_path, replica), box):
        await replica.until(lambda: len(replica.beats) > 3)
    assert box.leases
    assert {registration for _, registration in box.leases} == {31}
    arrivals = [at + replica.lease_ms * 1_000_000 for at in replica.beaten_ns]
    for deadline, _ in box.leases:
        assert any(deadline <= arrival for arrival in arrivals), "the deadline is later than its receipt allows"
    assert min(deadline for deadline, _ in box.leases) <= arrivals[0]


async def test_a_confirmation_without_a_lease_gives_none(tmp_path, replica):
    box = MemorySandboxer()
    async with agent(settings_for(tmp_path, replica), box):
        await replica.until(lambda: len(replica.beats) > 3)
    assert box.leases == []


async def test_after_a_third_of_a_lease_without_confirmation_another_replica_is_dialled(
    tmp_path, replica, other, in_order
):
    replica.lease_ms = other.lease_ms = 900
    replica.confirms = False
    began = asyncio.get_running_loop().time()
    async with agent(settings_for(tmp_path, replica, other, confirm_timeout_s=0.0, heartbeat_s=5.0), MemorySandboxer()):
        await other.until(lambda: other.hellos)
    assert asyncio.get_running_loop().time() - began >= 0.3
    assert len(replica.beats) >= 2, "it renews several times a lease, whatever its own pace"


async def test_starts_name_the_generation_and_registration_of_their_set(tmp_path, replica):
    replica.assignments, replica.registration = [assignment()], 44
    box = MemorySandboxer()
    async with agent(settings_for(tmp_path, replica), box):
        await replica.until(lambda: replica.state(ALLOCATION, 50) == "running")
    assert box.started_under == {(ALLOCATION, 50): (0, 44)}


async def test_an_old_or_empty_set_stops_nothing_not_even_of_a_returned_node(tmp_path, replica):
    replica.assignments, replica.registration = [assignment()], 44
    box = MemorySandboxer()
    async with agent(settings_for(tmp_path, replica), box):
        await replica.until(lambda: replica.state(ALLOCATION, 50) == "running")
        replica.assignments, replica.registration = [], 45
        for index in (replica.index + 5, 3):  # a newer empty set, then an old one
            replica.index = index
            await replica.push()
        beats = len(replica.beats)
        await replica.until(lambda: len(replica.beats) > beats + 3)
        assert box.stops == []
        assert box.records[(ALLOCATION, 50)].state == "running"


async def test_what_the_cluster_is_unsure_of_is_told_again_with_its_old_sequence(tmp_path, replica):
    replica.assignments = [assignment()]
    async with agent(settings_for(tmp_path, replica), MemorySandboxer()):
        await replica.until(lambda: replica.state(ALLOCATION, 50) == "running")
        told = len(replica.statuses)
        replica.unsure = ((ALLOCATION, 50), ("default/other.0", 3))
        replica.index += 1
        await replica.push()
        await replica.until(lambda: len(replica.statuses) > told)
    again = replica.statuses[-1].reports
    assert [(report.allocation, report.state) for report in again] == [(ALLOCATION, "running")]
    assert again[0].sequence == replica.statuses[0].reports[0].sequence
