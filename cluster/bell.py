"""Waiting for something to happen, or for a while.

Owns: one waiter's wait.  Must not know: what rings.
"""

from __future__ import annotations

import asyncio


class Bell:
    """Wakes one task when it is rung; what rang while nobody waited counts for the next wait.

    ``asyncio.timeout`` around an ``asyncio.Event`` says the same and costs four times as much, as each time-out
    cancels a task.
    """

    __slots__ = ("_rung", "_waiter")

    def __init__(self) -> None:
        self._rung = False
        self._waiter: asyncio.Future[None] | None = None

    def ring(self) -> None:
        """Wake who waits."""
        self._rung = True
        _wake(self._waiter)

    async def wait(self, timeout_s: float) -> bool:
        """Whether it was rung within `timeout_s`, or since the last wait; one task at a time."""
        assert self._waiter is None, "two wait for one bell"
        if not self._rung:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            timer = loop.call_later(timeout_s, _wake, self._waiter)
            try:
                await self._waiter
            finally:
                timer.cancel()
                self._waiter = None
        rung, self._rung = self._rung, False
        return rung


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
