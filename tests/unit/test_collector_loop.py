"""The leader proposes a collection when there is garbage, as often as it takes, and only then."""

from __future__ import annotations

import asyncio
from typing import Any

from raft.calls import Outcome
from raft.errors import Overloaded
from scheduler import commands
from scheduler.collector import Collector
from tests.support.scheduler_world import World, job


class Log:
    def __init__(self) -> None:
        self.said: list[str] = []

    def info(self, event: str, **fields: Any) -> None:
        self.said.append(event)

    def warning(self, event: str, **fields: Any) -> None:
        self.said.append(event)


class Direct:
    """Consensus of one, which refuses the first `refusals` proposals."""

    def __init__(self, world: World, refusals: int = 0) -> None:
        self.world = world
        self.refusals = refusals
        self.proposed = 0
        self.emptied = asyncio.Event()

    async def propose(self, data: bytes, *, timeout_s: float) -> Outcome:
        self.proposed += 1
        if self.refusals:
            self.refusals -= 1
            raise Overloaded("busy")
        done = Outcome(self.world.state.index + 1, 1, self.world.apply(commands.decode(data)))
        if not self.world.state.jobs():
            self.emptied.set()
        return done


async def run_until_empty(collector: Collector, direct: Direct) -> None:
    task = asyncio.ensure_future(collector.run())
    async with asyncio.timeout(5):
        await direct.emptied.wait()
    task.cancel()


def finished(count: int) -> World:
    world = World("a1")
    for number in range(count):
        world.submit(job(f"j{number}", kind="batch", replicas=2))
        world.schedule()
        for ordinal in range(2):
            world.ends(f"default/j{number}.{ordinal}")
    return world


async def test_it_goes_on_until_nothing_is_due_and_then_rests() -> None:
    world, log = finished(5), Log()
    world.now_ms += 4_000_000
    direct = Direct(world)
    collector = Collector(consensus=direct, state=world.state, wall_ms=lambda: world.now_ms, log=log, look_s=3600)  # type: ignore[arg-type]
    await run_until_empty(collector, direct)
    for _ in range(10):
        await asyncio.sleep(0)
    assert (direct.proposed, len(log.said)) == (1, 1)


async def test_what_is_young_is_left_alone() -> None:
    world = finished(2)
    direct = Direct(world)
    collector = Collector(consensus=direct, state=world.state, wall_ms=lambda: world.now_ms, log=Log(), look_s=0.001)  # type: ignore[arg-type]
    task = asyncio.ensure_future(collector.run())
    for _ in range(20):
        await asyncio.sleep(0.001)
    task.cancel()
    assert (direct.proposed, len(world.state.jobs())) == (0, 2)


async def test_a_refused_proposal_is_made_again_at_the_next_look() -> None:
    world, log = finished(1), Log()
    world.now_ms += 4_000_000
    direct = Direct(world, refusals=2)
    collector = Collector(consensus=direct, state=world.state, wall_ms=lambda: world.now_ms, log=log, look_s=0.001)  # type: ignore[arg-type]
    await run_until_empty(collector, direct)
    assert (direct.proposed, log.said[:2]) == (3, ["finished jobs were not collected"] * 2)
