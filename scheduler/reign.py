"""What a replica does only while it leads: placing, and watching which nodes are present.

Owns: starting that work when leadership is won and ending it at once when it is lost.
Must not know: how placement or presence work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from raft.effects import Role, RoleChanged
from raft.errors import SkerryError
from scheduler import evaluations
from scheduler.commands import Placement, Plan, encode
from scheduler.engine import Draft, draft
from scheduler.placer import Key, Log, Placer
from scheduler.presence import Presence
from scheduler.proposals import Applied, Consensus
from scheduler.roster import Roster
from scheduler.state import State

READY_S = 5.0
RETRY_S = 0.1


class StateEngine:
    """Drafts against the committed state, with absent nodes left out."""

    def __init__(self, state: State, absent: Callable[[], Sequence[str]], wall_ms: Callable[[], int]) -> None:
        self._state = state
        self._absent = absent
        self._wall_ms = wall_ms

    def draft(self, *, limit: int, in_flight: Sequence[Placement], skip: frozenset[Key]) -> Draft:
        """See `scheduler.engine.drafts`."""
        return draft(self._state, self._wall_ms(), limit=limit, absent=self._absent(), in_flight=in_flight, skip=skip)

    def next_due_s(self) -> float | None:
        """Seconds until the earliest restart back-off ends."""
        due_ms = evaluations.next_due_ms(self._state)
        return None if due_ms is None else (due_ms - self._wall_ms()) / 1000

    def is_placed(self, key: Key) -> bool:
        """Whether attempt `key` is committed."""
        allocation = self._state.allocation(key[0])
        return allocation is None or int(allocation["attempt"]) >= key[1]


class Reigns:
    """One reign after another.

    Args:
        node: this replica's id.
        consensus: this replica's driver.
        now_s: monotonic seconds.
        wall_ms: Unix milliseconds.
    """

    def __init__(
        self,
        *,
        node: str,
        consensus: Consensus,
        state: State,
        roster: Roster,
        now_s: Callable[[], float],
        wall_ms: Callable[[], int],
        log: Log,
    ) -> None:
        self._node = node
        self._consensus = consensus
        self._state = state
        self._roster = roster
        self._now_s = now_s
        self._wall_ms = wall_ms
        self._log = log
        self._won = asyncio.Event()
        self._lost = asyncio.Event()
        self._placer: Placer | None = None

    @property
    def in_flight(self) -> int:
        """Placements proposed and not yet decided; 0 unless leading."""
        return 0 if self._placer is None else self._placer.in_flight

    def role_changed(self, change: RoleChanged) -> None:
        """To be called with every change of role, term or leader."""
        if change.role is Role.LEADER:
            self._won.set()
        elif self._won.is_set():
            self._won.clear()
            self._lost.set()

    def applied(self, index: int) -> None:
        """The state moved on: there may be something to place."""
        if self._placer is not None:
            self._placer.wake()

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
                self._placer = None
                reign.cancel()
                lost.cancel()
                await asyncio.gather(reign, lost, return_exceptions=True)

    async def _reign(self) -> None:
        await self._caught_up()
        presence: Presence | None = None
        engine = StateEngine(self._state, lambda: presence.absent if presence else (), self._wall_ms)
        placer = Placer(
            node=self._node,
            engine=engine,
            propose=self._propose,
            now_s=self._now_s,
            wall_ms=self._wall_ms,
            log=self._log,
        )
        presence = Presence(
            roster=self._roster,
            registered=lambda: sorted(self._state.books.nodes.slot_of),
            now_s=self._now_s,
            on_change=placer.wake,
        )
        self._placer = placer
        async with asyncio.TaskGroup() as group:
            group.create_task(presence.run(), name="presence")
            group.create_task(placer.run(), name="placer")

    async def _caught_up(self) -> None:
        """Wait until everything committed before this reign is applied here."""
        while True:
            try:
                await self._consensus.read_index(timeout_s=READY_S)
            except SkerryError:
                await asyncio.sleep(RETRY_S)
            else:
                return

    async def _propose(self, plan: Plan, timeout_s: float) -> Applied:
        done = await self._consensus.propose(encode(plan), timeout_s=timeout_s)
        return Applied(done.index, done.term, done.result)
