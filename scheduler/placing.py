"""Placing on every replica: the work that is its own, on its own arcs first.

Owns: which jobs this replica places, when its state is fresh enough to draft from, and the parts
that live as long as the replica does: placer and presence.
Must not know: how a node is chosen, who owns what (`scheduler.state.shards`), or who decides that.

A job belongs to the owner of its id on the ring.  What belongs to nobody, or to a replica that
the leader does not count as live, is the leader's until the arcs have moved.  Two replicas that take
the same attempt are no danger: apply refuses the second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from raft.errors import OutcomeUnknown, SkerryError
from scheduler import evaluations
from scheduler.commands import Command, Placement, Plan
from scheduler.engine import Draft, draft
from scheduler.placer import Key, Log, Placer
from scheduler.presence import Presence
from scheduler.proposals import Applied, Consensus
from scheduler.roster import Roster
from scheduler.state import State

READY_S = 5.0
RETRY_S = 0.1
APPLIED_S = 10.0
"""How long a committed plan may take to be applied here as well."""


class Door(Protocol):
    """What placing needs of `scheduler.proposals.Proposals`."""

    async def propose(self, command: Command, *, timeout_s: float) -> Applied:
        """Commit and apply, wherever the leader is."""
        ...

    async def barrier(self, *, timeout_s: float) -> int:
        """A linearizable read point, applied here."""
        ...


class StateEngine:
    """Drafts against the committed state what `takes` says is ours; nothing while not `fresh`."""

    def __init__(
        self,
        node: str,
        state: State,
        *,
        absent: Callable[[], Sequence[str]],
        takes: Callable[[str], bool],
        fresh: Callable[[], bool],
        wall_ms: Callable[[], int],
    ) -> None:
        self._node = node
        self._state = state
        self._absent = absent
        self._takes = takes
        self._fresh = fresh
        self._wall_ms = wall_ms

    def draft(self, *, limit: int, in_flight: Sequence[Placement], skip: frozenset[Key]) -> Draft:
        """See `scheduler.engine.drafts`."""
        if not self._fresh():
            return Draft((), {}, more=False)
        return draft(
            self._state, self._wall_ms(), limit=limit, absent=self._absent(), in_flight=in_flight, skip=skip,
            owner=self._node, takes=self._takes,
        )  # fmt: skip

    def next_due_s(self) -> float | None:
        """Seconds until the earliest restart back-off ends."""
        due_ms = evaluations.next_due_ms(self._state)
        return None if due_ms is None else (due_ms - self._wall_ms()) / 1000

    def is_placed(self, key: Key) -> bool:
        """Whether attempt `key` is committed."""
        allocation = self._state.allocation(key[0])
        return allocation is None or int(allocation["attempt"]) >= key[1]


class Placing:
    """The placing side of one replica.

    Args:
        node: this replica's id.
        consensus: this replica's driver.
        door: commits plans wherever the leader is.
        now_s: monotonic seconds.
        wall_ms: Unix milliseconds.
    """

    def __init__(
        self,
        *,
        node: str,
        consensus: Consensus,
        door: Door,
        state: State,
        roster: Roster,
        now_s: Callable[[], float],
        wall_ms: Callable[[], int],
        log: Log,
    ) -> None:
        self._node = node
        self._consensus = consensus
        self._door = door
        self._state = state
        self._live: tuple[str, ...] | None = None
        self._fresh = False
        self._turned = asyncio.Event()
        self._presence = Presence(
            roster=roster,
            registered=lambda: sorted(state.books.nodes.slot_of),
            now_s=now_s,
            on_change=self.wake,
        )
        engine = StateEngine(
            node, state, absent=lambda: self._presence.absent, takes=self.takes, fresh=lambda: self._fresh,
            wall_ms=wall_ms,
        )  # fmt: skip
        self._placer = Placer(node=node, engine=engine, propose=self._propose, now_s=now_s, wall_ms=wall_ms, log=log)

    @property
    def in_flight(self) -> int:
        """Placements proposed and not yet decided."""
        return self._placer.in_flight

    def takes(self, job: str) -> bool:
        """Whether the job (``namespace/name``) is this replica's to place."""
        owner = self._state.books.shards.owner(job)
        return owner == self._node or (self._live is not None and owner not in self._live)

    def count_live(self, live: tuple[str, ...] | None) -> None:
        """The leader counts these replicas as live; None: this replica does not lead."""
        if live != self._live:
            self._live = live
            self.wake()

    def wake(self) -> None:
        """There may be something to place."""
        self._placer.wake()

    def applied(self, index: int) -> None:
        """The state moved on: there may be something to place, unless nothing waits that is this replica's to place."""
        waiting = self._state.books.jobs.waiting
        if waiting and any(map(self.takes, waiting)):
            self.wake()

    def leader_changed(self) -> None:
        """To be called with every change of role, term or leader: what is committed must be asked anew."""
        self._fresh = False
        self._turned.set()

    async def run(self) -> None:
        """Place until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._presence.run(), name="presence")
            group.create_task(self._freshen(), name="freshen")
            group.create_task(self._placer.run(), name="placer")

    async def _freshen(self) -> None:
        """After each change of leader, apply everything committed until then before drafting again."""
        while True:
            self._turned.clear()
            if self._consensus.leader is not None:
                try:
                    await self._door.barrier(timeout_s=READY_S)
                except SkerryError:
                    await asyncio.sleep(RETRY_S)
                    continue
                if self._turned.is_set():
                    continue
                self._fresh = True
                self.wake()
            await self._turned.wait()

    async def _propose(self, plan: Plan, timeout_s: float) -> Applied:
        """Commit a plan and apply it here too: before that, its allocations would seem to wait still."""
        applied = await self._door.propose(plan, timeout_s=timeout_s)
        try:
            await self._consensus.wait_applied(applied.index, timeout_s=APPLIED_S)
        except SkerryError as error:
            raise OutcomeUnknown(f"committed at {applied.index}, but not applied here: {error.message}") from error
        return applied
