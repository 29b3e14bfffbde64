"""A leader cut off from the majority: it never answers success, and nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.agents import FakeAgent
from tests.support.relay import Relay
from tests.support.replicas import Answered, ReplicaCluster, free_ports


class Partitioned(ReplicaCluster):
    """Every directed link goes through a relay of its own."""

    def __init__(self, directory: Path) -> None:
        self.relays: dict[tuple[str, str], Relay] = {}
        names = ["n1", "n2", "n3"]
        pairs = [(a, b) for a in names for b in names if a != b]
        self.relay_ports = dict(zip(pairs, free_ports(len(pairs)), strict=True))
        super().__init__(directory, 3, route=lambda fr, to, port: self.relay_ports[fr, to])

    async def __aenter__(self) -> Partitioned:
        await super().__aenter__()
        for (fr, to), port in self.relay_ports.items():
            self.relays[fr, to] = Relay(self.link_ports[to])
            await self.relays[fr, to].start(port)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await super().__aexit__(*exc)
        for relay in self.relays.values():
            await relay.close()

    def isolate(self, node: str) -> None:
        for pair, relay in self.relays.items():
            if node in pair:
                relay.cut()

    def heal(self) -> None:
        for relay in self.relays.values():
            relay.heal()


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Partitioned]:
    async with Partitioned(tmp_path) as made:
        await made.start()
        await made.whole()
        yield made


async def test_a_cut_off_leader_never_answers_success_for_what_later_vanishes(cluster: Partitioned) -> None:
    leader = await cluster.whole()
    await cluster.submit("before", via=leader)
    cluster.isolate(leader)
    outcomes: dict[str, str] = {}

    async def write(number: int) -> None:
        name = f"minority-{number}"
        try:
            await cluster.submit(name, via=leader)
            outcomes[name] = "ok"
        except Answered as answered:
            outcomes[name] = str(answered.outcome)

    started = time.monotonic()
    minority = asyncio.gather(*(write(number) for number in range(20)))
    other = next(cluster.followers(leader))
    await cluster.submit("majority", via=other)
    assert time.monotonic() - started < 2.0, "the majority goes on"
    await minority
    assert "ok" not in outcomes.values()
    status = await cluster.call("GET", "/v1/status", via=leader)
    assert status["healthy"] is False
    cluster.heal()
    await cluster.whole()
    for via in cluster.names:
        jobs = await cluster.jobs(via)
        assert {"default/before", "default/majority"} <= set(jobs)
        for name, outcome in outcomes.items():
            if outcome == "not-done":
                assert f"default/{name}" not in jobs


async def test_a_cut_off_leader_serves_no_stale_read_and_confirms_no_heartbeat(cluster: Partitioned) -> None:
    leader = await cluster.whole()
    agent = FakeAgent("a1")
    await agent.connect(cluster.link_ports[leader], cluster.link_token)
    await agent.wait(lambda a: a.index > 0)
    await agent.beat(1)
    await agent.wait(lambda a: a.confirmed == 1)
    cluster.isolate(leader)
    other = next(cluster.followers(leader))
    await cluster.submit("newer", via=other)
    with pytest.raises(Answered) as caught:
        await cluster.jobs(leader)
    assert caught.value.code in ("no-quorum", "not-leader")
    assert "default/newer" not in await cluster.jobs(leader, stale=True)
    await agent.beat(2)
    with pytest.raises(TimeoutError):
        await agent.wait(lambda a: a.confirmed == 2 or a.desired, 1.5)
    cluster.heal()
    await agent.wait(lambda a: a.desired, 10)
    await agent.close()


async def test_a_follower_that_cannot_reach_the_leader_says_what_it_does_not_know(cluster: Partitioned) -> None:
    leader = await cluster.whole()
    follower = next(cluster.followers(leader))
    cluster.relays[follower, leader].cut()
    with pytest.raises(Answered) as caught:
        await cluster.submit("deaf", via=follower)
    assert caught.value.code in ("outcome-unknown", "peer-unreachable", "not-leader", "no-quorum")
    assert caught.value.problem["retryable"]
    cluster.heal()
    await cluster.whole()
    answer = await cluster.submit("deaf", via=follower)
    assert answer["version"] == 1, "the same request id resolves it"


async def test_repeated_cuts_lose_nothing_that_was_acknowledged(cluster: Partitioned) -> None:
    acked: set[str] = set()
    for round_number in range(3):
        leader = await cluster.whole()
        cluster.isolate(leader)
        other = next(cluster.followers(leader))
        for number in range(5):
            name = f"r{round_number}-{number}"
            await cluster.submit(name, via=other)
            acked.add(f"default/{name}")
        cluster.heal()
    await cluster.whole()
    for via in cluster.names:
        assert set(await cluster.jobs(via)) == acked
