"""Deciding who owns the arcs: what only the leader does about shards.

Owns: which replicas count as live, and when a new owner set is proposed.
Must not know: how links are watched, what an owner does, or the rule how often arcs move
(`cluster.shards`).

A replica is live while the leader has links with it both ways and it follows the log; it is given up
after `DEAD_S` without.  A new leader gives everybody that long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from cluster.shards import next_owners
from raft.errors import SkerryError
from scheduler.commands import SetOwners, encode
from scheduler.placer import Log
from scheduler.proposals import Consensus
from scheduler.state import State

LOOK_S = 0.1
DEAD_S = 1.0
FIRST_S = 2.0
"""How long the first owners wait for replicas that still start."""
PROPOSE_S = 5.0


class Liveness:
    """Who counts as live, from who is seen to be (pure; one reign).

    Args:
        node: this replica, always live.
        owners: owners at the reign's start, who have `DEAD_S` to show themselves.
    """

    def __init__(self, node: str, owners: Sequence[str], now_s: float) -> None:
        self._node = node
        self._seen_s = dict.fromkeys(owners, now_s)

    def live(self, following: Sequence[str], now_s: float) -> tuple[str, ...]:
        """Take in who follows now; returns the live replicas, sorted."""
        for replica in (*following, self._node):
            self._seen_s[replica] = now_s
        self._seen_s = {replica: at for replica, at in self._seen_s.items() if now_s - at < DEAD_S}
        return tuple(sorted(self._seen_s))


class OwnerKeeper:
    """Keeps the owner set in agreement with who is live, during one reign.

    Args:
        node: this replica's id; it leads and has applied what was committed before its reign.
        consensus: its driver.
        members: ids of all replicas.
        following: ids of the other replicas that are linked both ways and follow the log.
        count_live: told who is live, at every look; None at the end of the reign.
    """

    def __init__(
        self,
        *,
        node: str,
        consensus: Consensus,
        state: State,
        members: Callable[[], Sequence[str]],
        following: Callable[[], Sequence[str]],
        count_live: Callable[[tuple[str, ...] | None], None],
        now_s: Callable[[], float],
        wall_ms: Callable[[], int],
        log: Log,
    ) -> None:
        self._node = node
        self._consensus = consensus
        self._state = state
        self._members = members
        self._following = following
        self._count_live = count_live
        self._now_s = now_s
        self._wall_ms = wall_ms
        self._log = log

    async def run(self) -> None:
        """Look and decide until cancelled."""
        started_s = self._now_s()
        liveness = Liveness(self._node, self._state.books.shards.owners, started_s)
        try:
            while True:
                now_s = self._now_s()
                live = liveness.live(self._following(), now_s)
                complete = all(member in live for member in self._members())
                if complete or self._state.books.shards.epoch or now_s - started_s >= FIRST_S:
                    await self._settle(live)
                self._count_live(live)  # after settling: what has a new owner needs no guardian
                await asyncio.sleep(LOOK_S)
        finally:
            self._count_live(None)

    async def _settle(self, live: tuple[str, ...]) -> None:
        """Propose the owner set that `live` calls for, if it may change now."""
        shards = self._state.books.shards
        owners = next_owners(shards.history, live, self._wall_ms())
        if owners is None:
            return
        command = SetOwners(shards.epoch + 1, owners, self._node, _why(shards.owners, owners), self._wall_ms())
        try:
            await self._consensus.propose(encode(command), timeout_s=PROPOSE_S)
        except SkerryError as error:  # the next look decides again, from the state of then
            self._log.warning("new owners were not committed", code=error.code, why=error.message)


def _why(before: Sequence[str], after: Sequence[str]) -> str:
    gone = [owner for owner in before if owner not in after]
    come = [owner for owner in after if owner not in before]
    said = [f"{', '.join(names)} {verb}" for names, verb in ((gone, "not live"), (come, "live")) if names]
    return "; ".join(said)
