"""A cancellation is never lost in work that fails at the same moment."""

from __future__ import annotations

import asyncio

import pytest

from agents.alone import alone


class Lost(Exception):
    pass


async def round_that_fails_when_cancelled() -> None:
    async def worker() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            raise Lost

    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(worker())
    except BaseExceptionGroup:
        raise Lost from None


async def test_a_loop_that_goes_on_after_failures_ends_when_it_is_cancelled() -> None:
    rounds = 0

    async def loop() -> None:
        nonlocal rounds
        while rounds < 3:
            rounds += 1
            try:
                await alone(round_that_fails_when_cancelled())
            except Lost:
                continue

    task = asyncio.create_task(loop())
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait_for(asyncio.wait({task}), 5)
    assert (task.cancelled(), rounds) == (True, 1)


async def test_results_and_failures_come_through() -> None:
    async def answer(value: int) -> int:
        if value < 0:
            raise Lost
        return value

    assert await alone(answer(4)) == 4
    with pytest.raises(Lost):
        await alone(answer(-1))


async def test_a_cancellation_in_the_moment_of_the_end_counts() -> None:
    async def quick() -> int:
        return 1

    async def waiter() -> None:
        await alone(quick())
        await asyncio.sleep(60)

    task = asyncio.create_task(waiter())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait_for(asyncio.wait({task}), 5)
    assert task.cancelled()
