"""Read barriers, many callers to one quorum round.

Owns: which callers share which round.  Must not know: what a round is.

A caller may only share a round that began after it asked (dissertation §6.4): so a caller
joins the next round, never the one under way.  Rounds are started one after another, or
`ROUND_GAP_S` apart while one hangs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from raft.errors import NoQuorum, Overloaded, SkerryError

WAITING_MAX = 16_384
"""Callers that may wait at once."""
ROUND_S = 1.5
"""How long one round may take; callers of a failed round get its error."""
ROUND_GAP_S = 0.05
ROUNDS_MAX = 32


class Barriers:
    """Batches barriers.

    Args:
        confirm: does one quorum round within so many seconds and returns the index that is
            confirmed and applied here; raises SkerryError.
    """

    def __init__(self, confirm: Callable[[float], Awaitable[int]]) -> None:
        self._confirm = confirm
        self._waiting: list[asyncio.Future[int]] = []
        self._asked = asyncio.Event()
        self._rounds: set[asyncio.Task[None]] = set()

    async def wait(self, *, timeout_s: float) -> int:
        """An index confirmed by a round that began after this call, and applied here.

        Raises:
            NoQuorum: nobody confirmed within `timeout_s`.
            SkerryError: as the round failed.
        """
        if len(self._waiting) >= WAITING_MAX:
            raise Overloaded("too many reads wait for a quorum round", hint="slow down and ask again")
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self._asked.set()
        try:
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            raise NoQuorum(
                f"no majority confirmed the read within {timeout_s:g} s",
                hint="a majority of replicas must run and reach each other; `?stale=true` reads unconfirmed state",
            ) from None

    async def run(self) -> None:
        """Start rounds for whoever asks, until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._asked.wait()
                self._asked.clear()
                waiting, self._waiting = self._waiting, []
                live = [future for future in waiting if not future.done()]
                if not live:
                    continue
                task = group.create_task(self._round(live), name="read-round")
                self._rounds.add(task)
                task.add_done_callback(self._rounds.discard)
                await asyncio.wait({task}, timeout=ROUND_GAP_S)
                if len(self._rounds) >= ROUNDS_MAX:
                    await asyncio.wait(self._rounds, return_when=asyncio.FIRST_COMPLETED)

    async def _round(self, waiting: list[asyncio.Future[int]]) -> None:
        try:
            index = await self._confirm(ROUND_S)
        except SkerryError as error:
            for future in waiting:
                if not future.done():
                    future.set_exception(error)
            return
        for future in waiting:
            if not future.done():
                future.set_result(index)
