"""Waiting for a bell: rung, rung before, not rung, cancelled."""

from __future__ import annotations

import asyncio

import pytest

from cluster.bell import Bell
from tests.support.virtual_loop import run_virtually


def test_a_ring_wakes_the_waiter_at_once():
    async def main() -> tuple[bool, float]:
        bell, loop = Bell(), asyncio.get_running_loop()
        loop.call_later(0.5, bell.ring)
        return await bell.wait(10), loop.time()

    rung, at_s = run_virtually(main())
    assert rung
    assert at_s == pytest.approx(0.5, abs=0.001)


def test_a_wait_without_a_ring_ends_after_its_time():
    async def main() -> tuple[bool, float]:
        return await Bell().wait(3), asyncio.get_running_loop().time()

    rung, at_s = run_virtually(main())
    assert not rung
    assert at_s == pytest.approx(3, abs=0.01)


def test_a_ring_that_nobody_heard_counts_for_the_next_wait_and_only_for_that():
    async def main() -> list[bool]:
        bell = Bell()
        bell.ring()
        bell.ring()
        return [await bell.wait(1), await bell.wait(1)]

    assert run_virtually(main()) == [True, False]


def test_a_cancelled_wait_leaves_the_bell_usable():
    async def main() -> bool:
        bell = Bell()
        waiting = asyncio.ensure_future(bell.wait(10))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        bell.ring()
        return await bell.wait(1)

    assert run_virtually(main())
