"""Placing what waits: the loop that every replica runs for the work that is its own.

Owns: when to draft placements, what is in flight, and when to try a refused one again.
Must not know: how a node is chosen (`scheduler.engine`), consensus, or time but the clock given.

Level-triggered: each turn drafts from the whole committed state, so a wake-up that is lost or
doubled costs nothing.  Up to `PLANS_MAX` plans are in flight; what they place is booked on top
of the state while the next is drafted and never proposed twice at once.  Safety rests on apply,
which re-checks every placement; a refused one is drafted anew, and from the third refusal on it
backs off 1 s · 2ⁿ, at most 30 s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from cluster.bell import Bell
from raft.errors import SkerryError
from scheduler.commands import Placement, Plan
from scheduler.proposals import Applied
from scheduler.state.results import PlanResult, Refusal

PLACEMENTS_MIN, PLACEMENTS_FIRST, PLACEMENTS_MAX = 16, 64, 256
"""Placements in one plan: as many as are drafted within `DRAFT_S`, within these bounds."""
DRAFT_S = 0.003
"""A draft holds the event loop for about this long; applying its plan costs as much again."""
PLANS_MAX = 4
"""Plans in flight."""
PROPOSE_S = 10.0
DOUBT_S = 30.0
"""How long a plan of unknown fate stays booked."""
IDLE_S = 5.0
"""Look again after this long even when nothing woke us."""
REFUSALS_FREE = 3
BACKOFF_FIRST_S = 1.0
BACKOFF_MAX_S = 30.0
BACKOFFS_MAX = 65_536

Key = tuple[str, int]
"""(allocation, attempt)."""


class Drafted(Protocol):
    """What the engine hands back."""

    @property
    def placements(self) -> tuple[Placement, ...]:
        """Placements to propose, in order."""
        ...

    @property
    def ring_epoch(self) -> int:
        """Epoch of the owners they were drafted under."""
        ...


class Engine(Protocol):
    """What the placer asks of state and engine."""

    def draft(self, *, limit: int, in_flight: Sequence[Placement], skip: frozenset[Key]) -> Drafted:
        """Place what is due, with `in_flight` booked on top, leaving out `in_flight` and `skip`."""
        ...

    def next_due_s(self) -> float | None:
        """Seconds until the earliest restart back-off ends; None without one."""
        ...

    def is_placed(self, key: Key) -> bool:
        """Whether the committed state has this attempt already."""
        ...


class Log(Protocol):
    """The part of a logger that is used."""

    def warning(self, event: str, **fields: Any) -> Any:
        """Say that something is odd."""
        ...


class Backoffs:
    """Refusals by attempt, and until when an attempt that was refused often is left alone."""

    def __init__(self) -> None:
        self._refused: dict[Key, tuple[int, float]] = {}

    def refused(self, key: Key, now_s: float) -> float:
        """Count one more refusal; returns the pause in seconds (0 for the first two)."""
        count = self._refused.pop(key, (0, 0.0))[0] + 1
        pause_s = 0.0
        if count >= REFUSALS_FREE:
            pause_s = min(BACKOFF_FIRST_S * 2.0 ** min(count - REFUSALS_FREE, 16), BACKOFF_MAX_S)
        self._refused[key] = (count, now_s + pause_s)
        if len(self._refused) > BACKOFFS_MAX:
            del self._refused[next(iter(self._refused))]
        return pause_s

    def placed(self, key: Key) -> None:
        """Forget an attempt."""
        self._refused.pop(key, None)

    def waiting(self, now_s: float) -> frozenset[Key]:
        """Attempts to leave alone now."""
        return frozenset(key for key, (_, until_s) in self._refused.items() if until_s > now_s)

    def next_s(self, now_s: float) -> float | None:
        """Seconds until the next back-off ends."""
        return min((until_s - now_s for _, until_s in self._refused.values() if until_s > now_s), default=None)


class Placer:
    """A replica's placement loop.

    Args:
        node: this replica's id, named in every plan as who decided it.
        engine: drafts placements from the committed state.
        propose: commits a plan and returns once it is applied here; raises SkerryError.
        now_s: monotonic seconds.
        wall_ms: Unix milliseconds, for people.
    """

    def __init__(
        self,
        *,
        node: str,
        engine: Engine,
        propose: Callable[[Plan, float], Awaitable[Applied]],
        now_s: Callable[[], float],
        wall_ms: Callable[[], int],
        log: Log,
    ) -> None:
        self._node = node
        self._engine = engine
        self._propose = propose
        self._now_s = now_s
        self._wall_ms = wall_ms
        self._log = log
        self._woken = Bell()
        self._backoffs = Backoffs()
        self._in_flight: dict[Key, Placement] = {}
        self._plans = 0
        self._limit = PLACEMENTS_FIRST

    @property
    def in_flight(self) -> int:
        """Placements proposed and not yet decided."""
        return len(self._in_flight)

    def wake(self) -> None:
        """Something changed: look again."""
        self._woken.ring()

    async def run(self) -> None:
        """Place until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                drafted = self._turn(group)
                if drafted and self._plans < PLANS_MAX:
                    await asyncio.sleep(0)  # let applies and messages through between plans
                    continue
                await self._idle()

    def _turn(self, group: asyncio.TaskGroup) -> bool:
        """Draft and send off one plan; False when there was nothing to place or no room in flight."""
        if self._plans >= PLANS_MAX:
            return False
        started_s = self._now_s()
        draft = self._engine.draft(
            limit=self._limit, in_flight=tuple(self._in_flight.values()), skip=self._backoffs.waiting(started_s)
        )
        self._adapt(len(draft.placements), self._now_s() - started_s)
        if not draft.placements:
            return False
        for placement in draft.placements:
            key = (placement.allocation, placement.attempt)
            assert key not in self._in_flight, f"{key} is in flight already"
            self._in_flight[key] = placement
        self._plans += 1
        plan = Plan(draft.placements, self._node, "filter-score", self._wall_ms(), draft.ring_epoch)
        group.create_task(self._carry(plan), name="plan")
        return True

    def _adapt(self, count: int, took_s: float) -> None:
        """Halve the plan when drafting it took too long, double a full one that was quick."""
        if took_s > DRAFT_S:
            self._limit = max(PLACEMENTS_MIN, self._limit // 2)
        elif count == self._limit and took_s < DRAFT_S / 3:
            self._limit = min(PLACEMENTS_MAX, self._limit * 2)

    async def _idle(self) -> None:
        now_s = self._now_s()
        due = [wait_s for wait_s in (self._engine.next_due_s(), self._backoffs.next_s(now_s)) if wait_s is not None]
        timeout_s = min([IDLE_S, *(max(wait_s, 0.005) for wait_s in due)])
        await self._woken.wait(timeout_s)

    async def _carry(self, plan: Plan) -> None:
        """Propose `plan` and take note of what became of it."""
        try:
            applied = await self._propose(plan, PROPOSE_S)
        except SkerryError as error:
            self._log.warning("a plan was not committed", code=error.code, why=error.message, outcome=error.outcome)
            if error.outcome == "unknown":  # it may still be applied: keep it booked for a while
                await self._until_placed(plan)
            self._settle(plan, ())
            await asyncio.sleep(BACKOFF_FIRST_S / 10)  # not a tight loop while overloaded or without a quorum
        else:
            result = applied.result
            self._settle(plan, result.refused if isinstance(result, PlanResult) else ())
        finally:
            self._plans -= 1
            self.wake()

    async def _until_placed(self, plan: Plan) -> None:
        """Wait until the state has all of `plan`; after `DOUBT_S` its entry is as good as lost.

        Proposing the same attempt again is safe even then: apply refuses the later one.
        """
        ends_s = self._now_s() + DOUBT_S
        while self._now_s() < ends_s:
            if all(self._engine.is_placed((p.allocation, p.attempt)) for p in plan.placements):
                return
            await asyncio.sleep(BACKOFF_FIRST_S)

    def _settle(self, plan: Plan, refused: Sequence[Refusal]) -> None:
        refusals = {(refusal.allocation, refusal.attempt): refusal for refusal in refused}
        now_s = self._now_s()
        for placement in plan.placements:
            key = (placement.allocation, placement.attempt)
            self._in_flight.pop(key, None)
            refusal = refusals.get(key)
            if refusal is None:
                self._backoffs.placed(key)
                continue
            pause_s = self._backoffs.refused(key, now_s)
            if pause_s:
                self._log.warning(
                    "a placement was refused again", allocation=key[0], node=refusal.node, code=refusal.code,
                    why=refusal.reason, pause_s=pause_s,
                )  # fmt: skip
