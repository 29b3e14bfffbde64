"""The order of what is ready: what each policy may and may not reorder."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextvars import copy_context
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaos.sim.handles import SimHandle, SimTask
from chaos.sim.lives import ROOT
from chaos.sim.ready import Policy, ready_queue
from chaos.sim.report import Livelock
from chaos.sim.world import World

POLICIES: tuple[Policy, ...] = ("fifo", "random", "pct")


class Stepped:
    """A callback that is bound to a task, as asyncio's steps of tasks are."""

    def __init__(self, task: int | None) -> None:
        if task is not None:
            self.__self__ = SimTask.__new__(SimTask)
            self.__self__.number = task


def handle(number: int, task: int | None) -> Any:
    """A step of task `task`, or a plain callback."""
    return SimHandle(Stepped(task), (number,), copy_context(), ROOT)


def number_of(made: Any) -> int:
    number: int = made._args[0]
    return number


@pytest.mark.parametrize("policy", POLICIES)
@given(seed=st.integers(0, 10**6), kinds=st.lists(st.one_of(st.none(), st.integers(0, 5)), max_size=40))
def test_nothing_is_lost_and_plain_callbacks_keep_their_order(
    policy: Policy, seed: int, kinds: list[int | None]
) -> None:
    dice, queue = Random(seed), ready_queue(policy, Random(seed))
    waiting = [handle(number, kind) for number, kind in enumerate(kinds)]
    taken: list[Any] = []
    while waiting or len(queue):
        if waiting and dice.random() < 0.6:
            queue.append(waiting.pop(0))
        elif len(queue):
            taken.append(queue.popleft())
    assert sorted(map(number_of, taken)) == list(range(len(kinds)))
    plain = [number_of(each) for each in taken if not each.steps_task()]
    assert plain == sorted(plain)
    with pytest.raises(IndexError):
        queue.popleft()


def test_random_gives_everyone_who_waits_the_same_chance() -> None:
    first: Counter[int] = Counter()
    dice = Random(1)
    for _ in range(6000):
        queue = ready_queue("random", dice)
        for number in range(6):
            queue.append(handle(number, number if number < 5 else None))
        first[number_of(queue.popleft())] += 1
    assert all(850 < count < 1150 for count in first.values())


def orders(policy: Policy, seeds: range) -> set[tuple[int, ...]]:
    """In which orders five tasks of a world run that wake at the same moment."""
    found = set()
    for seed in seeds:
        ran: list[int] = []

        async def one(number: int, ran: list[int] = ran) -> None:
            await asyncio.sleep(1)
            ran.append(number)

        async def main() -> None:
            async with asyncio.TaskGroup() as group:
                for number in range(4):
                    group.create_task(one(number))

        with World(seed, policy=policy) as world:
            world.run(main())
        found.add(tuple(ran))
    return found


def test_fifo_is_asyncios_order_and_the_others_find_all_orders() -> None:
    assert orders("fifo", range(5)) == {(0, 1, 2, 3)}
    assert len(orders("random", range(300))) == 24
    assert len(orders("pct", range(300))) == 24


@pytest.mark.parametrize("policy", POLICIES)
def test_a_task_that_waits_actively_does_not_starve_whom_it_waits_for(policy: Policy) -> None:
    async def main() -> None:
        done: list[int] = []

        async def worker() -> None:
            for _ in range(20):
                await asyncio.sleep(0)
            done.append(1)

        async def poller() -> None:
            while len(done) < 3:  # noqa: ASYNC110  on purpose
                await asyncio.sleep(0)

        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(poller())
                group.create_task(worker())

    for seed in range(5):
        with World(seed, policy=policy) as world:
            world.run(main())


def test_steps_without_end_at_one_moment_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chaos.sim.loop.LIVELOCK_STEPS", 1000)

    async def spins_here() -> None:
        while True:  # noqa: ASYNC110  on purpose
            await asyncio.sleep(0)

    with World(1) as world, pytest.raises(Livelock, match="spins_here"):
        world.run(spins_here())


def test_pct_puts_the_task_that_would_run_next_below_all_others_at_its_change_points() -> None:
    queue: Any = ready_queue("pct", Random(3))
    queue._changes = [1]
    for number in range(4):
        queue.append(handle(number, number))
    before = [number_of(each) for _, _, each in sorted(queue._heap, key=lambda entry: entry[:2])]
    taken = [number_of(queue.popleft()) for _ in range(4)]
    assert taken == [before[1], before[2], before[3], before[0]]
