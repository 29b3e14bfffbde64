"""What a replica does only while it leads: deciding who owns the arcs.

Owns: starting that work when leadership is won and ending it at once when it is lost.
Must not know: how owners are decided (`scheduler.shards`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from raft.effects import Role, RoleChanged
from raft.errors import SkerryError
from scheduler.proposals import Consensus

READY_S = 5.0
RETRY_S = 0.1

Work = Callable[[], Awaitable[None]]
"""Makes one reign's part; it runs until it is cancelled."""


class Reigns:
    """One reign after another.

    Args:
        consensus: this replica's driver.
        work: the parts of a reign, started together once everything committed before it is applied here.
    """

    def __init__(self, *, consensus: Consensus, work: Sequence[Work]) -> None:
        self._consensus = consensus
        self._work = work
        self._won = asyncio.Event()
        self._lost = asyncio.Event()

    def role_changed(self, change: RoleChanged) -> None:
        """To be called with every change of role, term or leader."""
        if change.role is Role.LEADER:
            self._won.set()
        elif self._won.is_set():
            self._won.clear()
            self._lost.set()

    async def run(self) -> None:
        """Reign whenever leadership is won, until cancelled."""
        while True:
            await self._won.wait()
            self._lost.clear()
            reign = asyncio.ensure_future(self._reign())
            lost = asyncio.ensure_future(self._lost.wait())
            try:
                await asyncio.wait({reign, lost}, return_when=asyncio.FIRST_COMPLETED)
                if reign.done():
                    reign.result()  # a reign ends by cancellation or by a bug: let it be seen
            finally:
                reign.cancel()
                lost.cancel()
                await asyncio.gather(reign, lost, return_exceptions=True)

    async def _reign(self) -> None:
        await self._caught_up()
        async with asyncio.TaskGroup() as group:
            for part in self._work:
                group.create_task(_run(part))

    async def _caught_up(self) -> None:
        """Wait until everything committed before this reign is applied here."""
        while True:
            try:
                await self._consensus.read_index(timeout_s=READY_S)
            except SkerryError:
                await asyncio.sleep(RETRY_S)
            else:
                return


async def _run(part: Work) -> None:
    await part()
