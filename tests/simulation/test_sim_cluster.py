"""Production replicas in virtual time: elections, acknowledged writes, crashes, lost power, partitions, lost disks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import msgspec
import pytest
from sim_cluster import quiet

from chaos.scenario.backend import NotSent, Unanswered
from chaos.sim.api import SimApi
from chaos.sim.cluster import SimCluster
from chaos.sim.host import ProcessHost
from chaos.sim.links import CUT
from chaos.sim.swarm.configs import API_TOKEN, api_address
from chaos.sim.swarm.oracle import leaderless, unlike
from chaos.sim.swarm.profile import Profile, Transport, draw_profile
from chaos.sim.world import World

NAMES = ("n1", "n2", "n3")
DEADLINE_S = 60


@pytest.fixture(autouse=True)
def silence() -> Iterator[None]:
    with quiet():
        yield


def three_replicas(seed: int) -> Profile:
    """A drawn profile cut down to three replicas and no agent."""
    profile = next(found for found in map(draw_profile, range(seed, seed + 50)) if found.replica_names == NAMES)
    return msgspec.structs.replace(profile, agents=(), nodes=())


class Bed:
    """One cluster, and somebody outside who calls it and breaks it."""

    def __init__(self, world: World, cluster: SimCluster, api: SimApi) -> None:
        self.world = world
        self.cluster = cluster
        self.api = api

    async def submit(self, name: str, at: str, *, timeout_s: float = 2.0) -> int:
        """Index of an acknowledged job; 0 when it was not acknowledged."""
        job = {"name": name, "kind": "batch", "replicas": 0, "command": ["/bin/true"]}
        try:
            answer = await self.api.ask(
                at, "/v1/jobs", body={"job": job, "request_id": f"r-{name}"}, timeout_s=timeout_s
            )
        except (NotSent, Unanswered):
            return 0
        return answer.document["index"] if answer.status == 200 else 0

    async def until(self, holds: Callable[[], Any]) -> Any:
        for _ in range(DEADLINE_S * 20):
            if found := holds():
                return found
            await asyncio.sleep(0.05)
        raise AssertionError("it never held")

    async def leader(self, among: tuple[str, ...] = NAMES) -> str:
        """Whom all of these follow."""
        await self.until(lambda: not leaderless(self.cluster.views(among), len(among)))
        return str(self.cluster.views(among)[0].leader)

    async def alike(self) -> None:
        """All three have applied the same, to the same effect."""
        await self.until(lambda: len(self.cluster.views(NAMES)) == 3 and not unlike(self.cluster.views(NAMES)))

    def knows(self, at: str, job: str) -> bool:
        [view] = self.cluster.views([at])
        return view.state.books.jobs.get(f"default/{job}") is not None

    def cut_off(self, name: str) -> None:
        pairs = [pair for other in NAMES if other != name for pair in ((name, other), (other, name))]
        self.cluster.impair("cut", pairs, CUT)


def run(
    seed: int, story: Callable[[Bed], Awaitable[Any]], transport: Transport = "direct", policy: Any = "random"
) -> Any:
    """What `story` returns, in a world of its own; nothing may have gone wrong unheard."""
    profile = three_replicas(seed)
    with World(seed, policy=policy, transport=transport) as world:

        async def main(machine: ProcessHost) -> Any:
            trace = machine.tracer("client", "trace", roll_bytes=1 << 30, heartbeat_sample=0, meta={})
            cluster = SimCluster(world, profile, trace)
            async with machine.network.client() as client:
                cluster.start()
                told = await story(Bed(world, cluster, SimApi(client, {n: api_address(n) for n in NAMES}, API_TOKEN)))
            assert [str(each) for each in cluster.ended] == []
            return told

        async def ended() -> Any:
            return await world.host("desk").spawn("desk", main).exited

        told = world.run(ended())
        assert world.loop.failures == []
        return told


@pytest.mark.parametrize("transport", ["direct", "http"])
@pytest.mark.parametrize("policy", ["fifo", "random", "pct"])
def test_three_replicas_elect_and_commit_what_any_of_them_is_asked(transport: Transport, policy: Any) -> None:
    async def story(bed: Bed) -> None:
        await bed.leader()
        for name in NAMES:
            assert await bed.submit(f"at-{name}", name)
        await bed.alike()
        assert all(bed.knows(name, f"at-{other}") for name in NAMES for other in NAMES)

    run(1, story, transport, policy)


@pytest.mark.parametrize("transport", ["direct", "http"])
def test_a_killed_leader_is_followed_by_another_and_what_was_acknowledged_stays(transport: Transport) -> None:
    async def story(bed: Bed) -> None:
        first = await bed.leader()
        assert await bed.submit("before", first)
        bed.cluster.crash(first)
        rest = tuple(name for name in NAMES if name != first)
        second = await bed.leader(rest)
        assert second != first
        assert bed.knows(second, "before")
        assert await bed.submit("between", rest[0])
        bed.cluster.boot(first)
        await bed.alike()
        assert bed.knows(first, "between")

    run(2, story, transport)


def test_when_all_lose_power_at_once_no_acknowledged_write_is_lost() -> None:
    async def story(bed: Bed) -> int:
        await bed.leader()
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(bed.submit(f"j{number}", NAMES[number % 3])) for number in range(30)]
            await asyncio.sleep(0.005)
            for name in NAMES:
                bed.cluster.power_off(name)
        acknowledged = [number for number, task in enumerate(asked) if task.result()]
        for name in NAMES:
            bed.cluster.boot(name)
        await bed.leader()
        assert await bed.submit("after", "n1")
        await bed.alike()
        for number in acknowledged:
            assert all(bed.knows(name, f"j{number}") for name in NAMES), f"j{number} was acknowledged"
        return len(acknowledged)

    counts = [run(seed, story) for seed in range(10, 16)]
    assert any(0 < count < 30 for count in counts), "the power went in the middle of it"


@pytest.mark.parametrize("transport", ["direct", "http"])
def test_a_cut_off_leader_acknowledges_nothing_and_returns_without_a_fuss(transport: Transport) -> None:
    async def story(bed: Bed) -> None:
        lonely = await bed.leader()
        rest = tuple(name for name in NAMES if name != lonely)
        bed.cut_off(lonely)
        assert not await bed.submit("alone", lonely, timeout_s=8)
        second = await bed.leader(rest)
        assert await bed.submit("together", rest[1])
        term = bed.cluster.views(rest)[0].term
        bed.cluster.heal("cut")
        await bed.until(lambda: not leaderless(bed.cluster.views(NAMES), 3))
        await bed.alike()
        assert bed.knows(lonely, "together")
        views = bed.cluster.views(NAMES)
        assert {(view.leader, view.term) for view in views} == {(second, term)}, "the healthy leader stays"

    run(3, story, transport)


def test_a_leader_with_a_hung_disk_gives_way_and_follows_once_the_disk_answers() -> None:
    async def story(bed: Bed) -> None:
        hung = await bed.leader()
        rest = tuple(name for name in NAMES if name != hung)
        bed.cluster.disk_fault(hung, "hung-disk", 0)
        await bed.submit("wakes-the-disk", hung)
        assert await bed.leader(rest) != hung
        assert await bed.submit("meanwhile", rest[0])
        bed.cluster.disk_heal(hung, "hung-disk")
        await bed.alike()
        assert bed.knows(hung, "meanwhile")

    run(4, story)


def test_a_replica_whose_disk_was_exchanged_learns_everything_and_votes_again() -> None:
    async def story(bed: Bed) -> None:
        await bed.leader()
        assert await bed.submit("first", "n1")
        bed.cluster.power_off("n3")
        bed.cluster.wipe("n3")
        bed.cluster.boot("n3")
        await bed.alike()
        assert bed.knows("n3", "first")
        await bed.until(lambda: bed.cluster._live["n3"].driver.core.votes)
        bed.cluster.crash("n1")
        await bed.leader(("n2", "n3"))
        assert await bed.submit("with-its-vote", "n2")

    run(5, story)


def test_a_paused_leader_wakes_up_deposed() -> None:
    async def story(bed: Bed) -> None:
        paused = await bed.leader()
        rest = tuple(name for name in NAMES if name != paused)
        bed.cluster.pause(paused)
        await bed.leader(rest)
        assert await bed.submit("while-it-slept", rest[0])
        bed.cluster.resume(paused)
        assert not await bed.submit("late", paused, timeout_s=0.001)
        await bed.alike()
        assert await bed.leader() in rest

    run(6, story)


def test_both_transports_come_to_the_same_state() -> None:
    async def story(bed: Bed) -> dict[str, int]:
        await bed.leader()
        for number in range(5):
            assert await bed.submit(f"j{number}", NAMES[number % 3])
        await bed.alike()
        jobs = bed.cluster.views(["n1"])[0].state.books.jobs
        return {f"j{number}": jobs.get(f"default/j{number}").version for number in range(5)}  # type: ignore[union-attr]

    assert run(7, story, "direct") == run(7, story, "http") == dict.fromkeys((f"j{n}" for n in range(5)), 1)


def test_an_idle_cluster_costs_little() -> None:
    """Seeds of a campaign last half a minute, and most of that is waiting."""

    def steps(seconds: float) -> int:
        async def story(bed: Bed) -> World:
            await bed.leader()
            await asyncio.sleep(seconds)
            return bed.world

        return int(run(8, story).loop.steps)

    assert (steps(25) - steps(5)) / 20 < 400
