"""The placer: what is in flight, refusals and back-off, several plans at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import structlog

from raft.errors import NotLeader, OutcomeUnknown
from scheduler.commands import Placement, Plan
from scheduler.placer import Backoffs, Key, Placer
from scheduler.proposals import Applied
from scheduler.state.results import PlanResult, Refusal


class Draft:
    ring_epoch = 7

    def __init__(self, placements: Sequence[Placement]) -> None:
        self.placements = tuple(placements)


class Engine:
    """Places whatever waits on node a1."""

    def __init__(self, *waiting: str) -> None:
        self.waiting = {(name, 1) for name in waiting}
        self.placed: set[Key] = set()
        self.limit_max = 256

    def draft(self, *, limit: int, in_flight: Sequence[Placement], skip: frozenset[Key]) -> Draft:
        busy = {(p.allocation, p.attempt) for p in in_flight}
        keys = sorted(self.waiting - busy - skip)[: min(limit, self.limit_max)]
        return Draft([Placement(name, attempt, 1, "a1", 1) for name, attempt in keys])

    def next_due_s(self) -> float | None:
        return None

    def is_placed(self, key: Key) -> bool:
        return key in self.placed


class Log:
    """What the placer proposed, and the test's answers."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.plans: asyncio.Queue[tuple[Plan, asyncio.Future[Applied]]] = asyncio.Queue()
        self.index = 0

    async def propose(self, plan: Plan, timeout_s: float) -> Applied:
        future: asyncio.Future[Applied] = asyncio.get_running_loop().create_future()
        self.plans.put_nowait((plan, future))
        return await future

    async def next(self) -> tuple[Plan, asyncio.Future[Applied]]:
        async with asyncio.timeout(5):
            return await self.plans.get()

    def commit(self, plan: Plan, future: asyncio.Future[Applied], refuse: Sequence[str] = ()) -> None:
        self.index += 1
        refused = []
        for p in plan.placements:
            if p.allocation in refuse:
                refused.append(Refusal(p.allocation, p.attempt, p.node, "cpu", "taken"))
            else:
                self.engine.waiting.discard((p.allocation, p.attempt))
                self.engine.placed.add((p.allocation, p.attempt))
        future.set_result(Applied(self.index, 1, PlanResult(index=self.index, refused=tuple(refused))))


class Clock:
    def __init__(self) -> None:
        self.s = 0.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


def placer_for(engine: Engine, log: Log, clock: Clock) -> Placer:
    return Placer(
        node="n1",
        engine=engine,
        propose=log.propose,
        now_s=lambda: clock.s,
        wall_ms=lambda: 1,
        log=structlog.get_logger(),
    )


class Running:
    def __init__(self, placer: Placer) -> None:
        self.placer = placer
        self.task = asyncio.create_task(placer.run())


@pytest.fixture
async def start() -> AsyncIterator[Any]:
    started: list[Running] = []

    def begin(placer: Placer) -> Running:
        started.append(Running(placer))
        return started[-1]

    yield begin
    for running in started:
        running.task.cancel()
    await asyncio.gather(*(running.task for running in started), return_exceptions=True)


def names(plan: Plan) -> list[str]:
    return [placement.allocation for placement in plan.placements]


async def test_what_waits_is_proposed_once_in_one_plan(start: Any, clock: Clock) -> None:
    engine = Engine("d/a.0", "d/a.1")
    log = Log(engine)
    placer = start(placer_for(engine, log, clock)).placer
    plan, future = await log.next()
    assert names(plan) == ["d/a.0", "d/a.1"]
    assert (plan.decided_by, plan.ring_epoch) == ("n1", 7)
    placer.wake()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert log.plans.empty(), "nothing in flight is proposed again"
    log.commit(plan, future)


async def test_several_plans_are_in_flight_and_no_attempt_is_in_two(start: Any, clock: Clock) -> None:
    engine = Engine(*(f"d/a.{i}" for i in range(10)))
    engine.limit_max = 2
    log = Log(engine)
    start(placer_for(engine, log, clock))
    plans = [await log.next() for _ in range(4)]
    proposed = [name for plan, _ in plans for name in names(plan)]
    assert len(proposed) == len(set(proposed)) == 8
    await asyncio.sleep(0)
    assert log.plans.empty(), "four plans at most"
    log.commit(*plans[0])
    plan, _ = await log.next()
    assert names(plan) == ["d/a.8", "d/a.9"]


async def test_a_refused_placement_is_drafted_again_and_backs_off_after_three(start: Any, clock: Clock) -> None:
    engine = Engine("d/a.0")
    log = Log(engine)
    placer = start(placer_for(engine, log, clock)).placer
    for _ in range(3):
        plan, future = await log.next()
        log.commit(plan, future, refuse=["d/a.0"])
    for _ in range(10):
        await asyncio.sleep(0)
    assert log.plans.empty(), "left alone during its back-off"
    clock.s += 1.1
    placer.wake()
    plan, future = await log.next()
    assert names(plan) == ["d/a.0"]
    log.commit(plan, future)


async def test_a_plan_that_was_certainly_not_done_is_drafted_again(start: Any, clock: Clock) -> None:
    engine = Engine("d/a.0")
    log = Log(engine)
    start(placer_for(engine, log, clock))
    plan, future = await log.next()
    future.set_exception(NotLeader("not any more"))
    again, future = await log.next()
    assert names(again) == names(plan)
    log.commit(again, future)


async def test_a_plan_of_unknown_fate_is_not_proposed_again_while_it_may_be_applied(start: Any, clock: Clock) -> None:
    engine = Engine("d/a.0")
    log = Log(engine)
    placer = start(placer_for(engine, log, clock)).placer
    _, future = await log.next()
    future.set_exception(OutcomeUnknown("no answer"))
    placer.wake()
    for _ in range(10):
        await asyncio.sleep(0)
    assert log.plans.empty()
    assert placer.in_flight == 1


async def test_a_plan_is_as_large_as_can_be_drafted_quickly(start: Any, clock: Clock) -> None:
    engine = Engine(*(f"d/a.{i:04}" for i in range(2000)))
    log = Log(engine)
    took_s = 0.0001
    drafted = engine.draft

    def slow(**options: Any) -> Draft:
        clock.s += took_s
        return drafted(**options)

    engine.draft = slow  # type: ignore[assignment]
    start(placer_for(engine, log, clock))
    sizes = []
    for number in range(10):
        took_s = 0.0001 if number < 4 else 0.05
        plan, future = await log.next()
        sizes.append(len(plan.placements))
        log.commit(plan, future)
    assert sizes[:3] == [64, 128, 256]
    assert sizes[-1] < 256
    assert max(sizes) == 256


def test_backoffs_double_up_to_thirty_seconds() -> None:
    backoffs = Backoffs()
    key = ("d/a.0", 1)
    pauses = [backoffs.refused(key, 0.0) for _ in range(10)]
    assert pauses == [0, 0, 1, 2, 4, 8, 16, 30, 30, 30]
    assert backoffs.waiting(29.0) == {key}
    assert backoffs.waiting(31.0) == frozenset()
    backoffs.placed(key)
    assert backoffs.next_s(0.0) is None
