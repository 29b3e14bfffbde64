"""The leader decides owners: who counts as live, how long the first ones are waited for, what is orphaned meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import structlog

from raft.errors import NotLeader
from scheduler import commands
from scheduler.placing import Placing
from scheduler.proposals import Applied
from scheduler.shards import DEAD_S, FIRST_S, Liveness, OwnerKeeper
from tests.support.scheduler_world import World, job
from tests.support.virtual_loop import run_virtually

ALL = ("n1", "n2", "n3")


class Bench:
    """A keeper over one state, whose following replicas the test sets."""

    def __init__(self) -> None:
        self.world = World("a1")
        self.following: list[str] = []
        self.live: list[tuple[str, ...] | None] = []
        self.refuse = False
        self.leader: str | None = "n1"
        self.keeper = OwnerKeeper(
            node="n1", consensus=self, state=self.world.state, members=lambda: ALL,  # type: ignore[arg-type]
            following=lambda: self.following, count_live=self.live.append, now_s=self.now_s,
            wall_ms=lambda: int(self.now_s() * 1000), log=structlog.get_logger(),
        )  # fmt: skip

    def now_s(self) -> float:
        return asyncio.get_running_loop().time()

    async def propose(self, data: bytes, *, timeout_s: float) -> Applied:
        if self.refuse:
            raise NotLeader("not any more")
        command = commands.decode(data)
        return Applied(self.world.state.index + 1, 1, self.world.apply(command))

    @property
    def owners(self) -> tuple[str, ...]:
        return self.world.state.books.shards.owners


def test_an_owner_is_given_up_after_a_second_unseen_and_not_before() -> None:
    liveness = Liveness("n1", ["n1", "n2"], 10.0)
    assert liveness.live(["n3"], 10.1) == ("n1", "n2", "n3")
    assert liveness.live([], 10.0 + DEAD_S) == ("n1", "n3")
    assert liveness.live(["n2"], 11.5) == ("n1", "n2")


def test_the_first_owners_wait_for_replicas_that_still_start() -> None:
    async def main() -> None:
        bench = Bench()
        task = asyncio.create_task(bench.keeper.run())
        await asyncio.sleep(FIRST_S / 2)
        assert bench.owners == ()
        bench.following = ["n2", "n3"]
        await asyncio.sleep(0.2)
        assert bench.owners == ALL
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert bench.live[-1] is None, "whoever leads no more counts nobody"

    run_virtually(main())


def test_the_first_owners_are_named_without_those_that_do_not_come() -> None:
    async def main() -> None:
        bench = Bench()
        bench.following = ["n3"]
        task = asyncio.create_task(bench.keeper.run())
        await asyncio.sleep(FIRST_S + 0.2)
        assert bench.owners == ("n1", "n3")
        bench.following = ["n2", "n3"]
        await asyncio.sleep(0.2)
        assert bench.owners == ALL, "what nobody owned before may move at once"
        task.cancel()

    run_virtually(main())


def test_owners_that_cannot_be_committed_are_decided_again() -> None:
    async def main() -> None:
        bench = Bench()
        bench.following = ["n2", "n3"]
        bench.refuse = True
        task = asyncio.create_task(bench.keeper.run())
        await asyncio.sleep(1.0)
        assert bench.owners == ()
        bench.refuse = False
        await asyncio.sleep(0.2)
        assert bench.owners == ALL
        task.cancel()

    run_virtually(main())


def test_what_a_dead_owner_left_is_the_leaders_until_its_arcs_move() -> None:
    async def main() -> None:
        bench = Bench()
        stub: Any = bench
        placing = Placing(
            node="n1", consensus=stub, door=stub, state=bench.world.state, roster=stub, now_s=bench.now_s,
            wall_ms=lambda: 0, log=structlog.get_logger(),
        )  # fmt: skip
        jobs = [f"default/j{number}" for number in range(60)]
        for name in jobs:
            bench.world.submit(job(name.partition("/")[2]))
        placing.count_live(("n1",))
        assert all(placing.takes(name) for name in jobs), "nobody owns them yet"
        bench.world.apply(commands.SetOwners(1, ALL, "n1", "", 0))
        shards = bench.world.state.books.shards
        by_owner = {owner: {name for name in jobs if shards.owner(name) == owner} for owner in ALL}
        assert all(by_owner.values())
        for live, wanted in (
            (None, by_owner["n1"]),
            (ALL, by_owner["n1"]),
            (("n1", "n3"), by_owner["n1"] | by_owner["n2"]),
        ):
            placing.count_live(live)
            assert {name for name in jobs if placing.takes(name)} == wanted

    run_virtually(main())
