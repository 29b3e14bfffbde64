"""Agents' sessions against real replicas: placement → running → exit → restart, and refusals."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.agents import FakeAgent, Refused
from tests.support.replicas import Answered, ReplicaCluster


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[ReplicaCluster]:
    async with ReplicaCluster(tmp_path) as made:
        await made.start()
        await made.whole()
        yield made


@pytest.fixture
async def agents() -> AsyncIterator[dict[str, FakeAgent]]:
    made = {name: FakeAgent(name) for name in ("a1", "a2", "a3")}
    yield made
    for agent in made.values():
        await agent.close()


async def allocations(cluster: ReplicaCluster, job: str, via: str = "n1") -> list[dict[str, Any]]:
    found = await cluster.call("GET", f"/v1/jobs/default/{job}", via=via)
    return list(found["allocations"])


async def join(cluster: ReplicaCluster, agent: FakeAgent, replica: str) -> None:
    await agent.connect(cluster.link_ports[replica], cluster.link_token)
    await agent.wait(lambda a: a.index > 0)


def only(agent: FakeAgent) -> tuple[str, int]:
    assert len(agent.desired) == 1
    return next(iter(agent.desired))


async def test_placed_running_exited_and_started_again(cluster: ReplicaCluster, agents: dict[str, FakeAgent]) -> None:
    agent = agents["a1"]
    await join(cluster, agent, "n2")
    await cluster.submit("web", via="n3", command=["/bin/sleep", "60"])
    await agent.wait(lambda a: a.desired)
    first = only(agent)
    assert first[0] == "default/web.0"
    assert agent.desired[first].workload.command == ("/bin/sleep", "60")
    assert [(one["state"], one["node"], one["epoch"]) for one in await allocations(cluster, "web")] == [
        ("placed", "a1", first[1])
    ]
    await agent.report(first, "running")
    assert [(one["state"], one["pid"]) for one in await allocations(cluster, "web", "n3")] == [("running", 4242)]
    await agent.report(first, "exited", 3)
    await agent.wait(lambda a: a.desired and only(a) != first, 10)
    second = only(agent)
    assert second[1] > first[1], "a later attempt has a higher epoch"
    [now] = await allocations(cluster, "web")
    assert (now["attempt"], now["previous"][0]["exit"]["code"]) == (2, 3)


async def test_a_stopped_job_gives_a_committed_stop_order(
    cluster: ReplicaCluster, agents: dict[str, FakeAgent]
) -> None:
    agent = agents["a1"]
    await join(cluster, agent, "n1")
    await cluster.submit("web", via="n1")
    await agent.wait(lambda a: a.desired)
    key = only(agent)
    await agent.report(key, "running")
    await cluster.call("POST", "/v1/jobs/default/web/stop", {"request_id": "s-1"}, via="n2")
    await agent.wait(lambda a: key in a.stops and not a.desired)
    await agent.report(key, "exited", 0)
    await agent.wait(lambda a: not a.stops)
    assert (await cluster.call("GET", "/v1/nodes/a1", via="n3"))["allocated"]["cpu_millicores"] == 0


async def test_what_runs_unknown_is_answered_with_a_committed_stop(
    cluster: ReplicaCluster, agents: dict[str, FakeAgent]
) -> None:
    agent = agents["a1"]
    await join(cluster, agent, "n1")
    await agent.status((), (("default/ghost.0", 1),))
    await agent.wait(lambda a: ("default/ghost.0", 1) in a.stops)


async def test_heartbeats_are_confirmed_by_a_quorum_and_by_silence_without_one(
    cluster: ReplicaCluster, agents: dict[str, FakeAgent]
) -> None:
    leader = await cluster.whole()
    agent = agents["a1"]
    await join(cluster, agent, leader)
    await agent.beat(1)
    await agent.wait(lambda a: a.confirmed == 1)
    for name in cluster.followers(leader):
        await cluster.replicas[name].kill()
    await agent.beat(2)
    with pytest.raises(TimeoutError):
        await agent.wait(lambda a: a.confirmed == 2, 1.5)


async def test_a_session_survives_the_loss_of_the_leader_that_does_not_hold_it(
    cluster: ReplicaCluster, agents: dict[str, FakeAgent]
) -> None:
    leader = await cluster.whole()
    holder = next(cluster.followers(leader))
    agent = agents["a1"]
    await join(cluster, agent, holder)
    await cluster.replicas[leader].kill()
    await cluster.submit("web", via=holder)
    await agent.wait(lambda a: a.desired)
    await agent.report(only(agent), "running")
    assert [one["state"] for one in await allocations(cluster, "web", holder)] == ["running"]


async def test_a_newer_session_of_a_node_replaces_the_older(
    cluster: ReplicaCluster, agents: dict[str, FakeAgent]
) -> None:
    agent = agents["a1"]
    await join(cluster, agent, "n1")
    newer = FakeAgent("a1")
    newer.incarnation = agent.incarnation
    await join(cluster, newer, "n1")
    await agent.wait(lambda a: a.goodbye == "replaced")
    await newer.beat(1)
    await newer.wait(lambda a: a.confirmed == 1)
    await newer.close()


async def test_a_reconnect_writes_nothing_to_the_log(cluster: ReplicaCluster, agents: dict[str, FakeAgent]) -> None:
    agent = agents["a1"]
    await join(cluster, agent, "n1")

    async def last_index() -> int:
        rows = (await cluster.call("GET", "/v1/status", via="n1"))["replicas"]
        return max(int(row["commit_index"]) for row in rows)

    before = await last_index()
    await agent.close()
    agent.index = 0
    await join(cluster, agent, "n2")
    assert await last_index() == before


async def test_status_names_the_replica_that_holds_a_nodes_session(
    cluster: ReplicaCluster, agents: dict[str, FakeAgent]
) -> None:
    await join(cluster, agents["a1"], "n2")
    await agents["a1"].beat(1)
    await agents["a1"].wait(lambda a: a.confirmed == 1)
    [node] = (await cluster.call("GET", "/v1/status", via="n3"))["nodes"]
    assert (node["id"], node["state"], node["session"], node["isolation"]["level"]) == ("a1", "ready", "n2", "none")
    [node] = (await cluster.call("GET", "/v1/nodes", via="n1"))["nodes"]
    assert node["used"] == {"cpu_ns": 5000, "memory_bytes": 6000}
    await agents["a1"].close()

    async def gone() -> bool:
        [row] = (await cluster.call("GET", "/v1/status", via="n3"))["nodes"]
        return row["session"] is None

    assert await cluster.until(gone)


async def test_a_hello_that_does_not_fit_is_refused_with_a_code(
    cluster: ReplicaCluster, agents: dict[str, FakeAgent]
) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"protocol": 99}, "protocol-version"),
        ({"cluster_id": "0" * 32}, "wrong-cluster"),
        ({"node": "Not A Label"}, "bad-hello"),
    ]
    for changes, code in wrong:
        with pytest.raises(Refused) as caught:
            await agents["a1"].connect(cluster.link_ports["n1"], cluster.link_token, **changes)
        assert caught.value.refusal.code == code
        await agents["a1"].close()


async def test_an_agent_without_the_token_is_refused_before_the_upgrade(
    cluster: ReplicaCluster, agents: dict[str, FakeAgent]
) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await agents["a1"].connect(cluster.link_ports["n1"], "wrong-token-wrong-token")
    assert caught.value.status == 401


async def test_garbage_from_an_agent_ends_its_session_alone(
    cluster: ReplicaCluster, agents: dict[str, FakeAgent]
) -> None:
    await join(cluster, agents["a1"], "n1")
    await join(cluster, agents["a2"], "n1")
    await agents["a1"].send_raw(b"\xc1\xff garbage")
    await agents["a1"].wait(lambda a: a.goodbye)
    await agents["a2"].beat(1)
    await agents["a2"].wait(lambda a: a.confirmed == 1)


async def test_a_job_that_no_node_could_hold_is_refused_with_the_nearest_miss(
    cluster: ReplicaCluster, agents: dict[str, FakeAgent]
) -> None:
    accepted = await cluster.submit("early", via="n1", resources={"requests": {"memory": "64Gi"}})
    assert accepted["state"] == "pending", "accepted while no node is registered"
    await join(cluster, agents["a1"], "n1")
    with pytest.raises(Answered) as caught:
        await cluster.submit("huge", via="n2", resources={"requests": {"memory": "64Gi"}})
    assert (caught.value.status, caught.value.code, caught.value.outcome) == (422, "never-fits", "not-done")
    assert caught.value.problem["details"]["nearest"]["node"] == "a1"
    explained = await cluster.call("GET", "/v1/explain/default/early", via="n3")
    assert explained["placed"] is False
    assert explained["nearest"]["node"] == "a1"


async def test_many_allocations_are_placed_within_capacity(
    cluster: ReplicaCluster, agents: dict[str, FakeAgent]
) -> None:
    for number, agent in enumerate(agents.values()):
        await join(cluster, agent, cluster.names[number])
    await cluster.submit("wide", via="n1", replicas=50, resources={"requests": {"cpu": "50m", "memory": "1Mi"}})
    for agent in agents.values():
        await agent.wait(lambda a: len(a.desired) >= 16)
    assert sum(len(agent.desired) for agent in agents.values()) == 50
    assert all(len(agent.desired) <= 20 for agent in agents.values())


async def test_logs_come_through_any_replica_and_go_on_at_the_cursor(
    cluster: ReplicaCluster, agents: dict[str, FakeAgent]
) -> None:
    agent = agents["a1"]
    await join(cluster, agent, "n2")
    await cluster.submit("talk", via="n1")
    await agent.wait(lambda a: a.desired)
    agent.lines["default/talk.0"] = ["one", "two"]
    for via in cluster.names:
        for target in ("default/talk", "default/talk.0"):
            answer = await cluster.call("GET", f"/v1/logs/{target}", via=via)
            assert [line["text"] for line in answer["lines"]] == ["one", "two"]
            assert answer["lines"][0]["allocation"] == "default/talk.0"
    agent.lines["default/talk.0"].append("three")
    more = await cluster.call("GET", f"/v1/logs/default/talk?cursor={answer['cursor']}", via="n3")
    assert [line["text"] for line in more["lines"]] == ["three"]
    await agent.close()
    with pytest.raises(Answered) as caught:
        await cluster.call("GET", "/v1/logs/default/talk.0", via="n1")
    assert (caught.value.code, caught.value.problem["retryable"]) == ("node-unreachable", True)


async def test_cordoned_nodes_get_no_new_work_and_may_come_back(
    cluster: ReplicaCluster, agents: dict[str, FakeAgent]
) -> None:
    await join(cluster, agents["a1"], "n1")
    answer = await cluster.call("POST", "/v1/nodes/a1/cordon", via="n2")
    assert answer["state"] == "cordoned"
    await cluster.submit("waits", via="n1")
    explained = await cluster.call("GET", "/v1/explain/default/waits", via="n1")
    assert explained["nodes"][0]["filter"] == "node-ready"
    await cluster.call("POST", "/v1/nodes/a1/uncordon", via="n3")
    await agents["a1"].wait(lambda a: a.desired)
    with pytest.raises(Answered) as caught:
        await cluster.call("POST", "/v1/nodes/nobody/cordon", via="n1")
    assert (caught.value.status, caught.value.code) == (404, "no-such-node")
