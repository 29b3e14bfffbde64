"""Which nodes are reachable, as one replica knows it.

Owns: when a node without a session counts as absent for new placements.  Must not know:
leases, or placement.

This is volatile knowledge of each replica, never committed: an absent node gets no new work from
it, and what runs there is left alone.  A node has `ABSENT_S` to dial another replica after its
session broke, and as long after a replica's start before that replica judges it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from scheduler.roster import Roster

POLL_S = 1.0
ANSWER_S = 0.5
ABSENT_S = 6.0


class Presence:
    """One replica's view of the sessions of all.

    Args:
        roster: asks every replica which sessions it holds.
        registered: ids of the registered nodes, sorted.
        now_s: monotonic seconds.
        on_change: called when the absent nodes are others than before.
    """

    def __init__(
        self,
        *,
        roster: Roster,
        registered: Callable[[], Sequence[str]],
        now_s: Callable[[], float],
        on_change: Callable[[], None],
    ) -> None:
        self._roster = roster
        self._registered = registered
        self._now_s = now_s
        self._on_change = on_change
        self._seen_s: dict[str, float] = {}
        self._absent: tuple[str, ...] = ()

    @property
    def absent(self) -> tuple[str, ...]:
        """Registered nodes without a session, sorted."""
        return self._absent

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            await self.poll()
            await asyncio.sleep(POLL_S)

    async def poll(self) -> None:
        """Ask everyone once and judge."""
        rows = await self._roster.gather(timeout_s=ANSWER_S, digest=False)
        now_s = self._now_s()
        for row in rows:
            for node in row.sessions:
                self._seen_s[node] = now_s
        registered = self._registered()
        for node in registered:
            self._seen_s.setdefault(node, now_s)
        absent = tuple(node for node in registered if now_s - self._seen_s[node] >= ABSENT_S)
        if absent != self._absent:
            self._absent = absent
            self._on_change()
