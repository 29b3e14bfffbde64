"""Sending agents to the replica that owns their node.

Owns: when a session held elsewhere is ended in favour of the owner, and how many at a time.
Must not know: what is said in a session, or how an agent finds the owner.

Preference only: any replica serves any node.  A session is sent on once it has lasted `SETTLED_S`, while the
owner is linked with this replica both ways.  An agent that comes back here all the same cannot reach its owner; it
is asked again after twice the time, so a one-way cut costs it little.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from scheduler.session import OWNER_IS

LOOK_S = 1.0
SETTLED_S = 10.0
SETTLED_S_MAX = 640.0
MOVES_MAX = 50
"""Agents sent on at one look: an arc of thousands moves within minutes, not at once."""


class Held(Protocol):
    """A session that this replica holds."""

    async def end(self, why: str) -> None:
        """Say goodbye and close."""
        ...


class Patience:
    """Which sessions to send on now (pure)."""

    def __init__(self) -> None:
        self._since: dict[str, tuple[object, float]] = {}
        """Node to (session, seconds when first seen)."""
        self._told: dict[str, tuple[str, int]] = {}
        """Node to (owner it was sent to, how often)."""

    def due(
        self, held: Mapping[str, object], owner_of: Callable[[str], str | None], targets: Sequence[str], now_s: float
    ) -> list[tuple[str, str]]:
        """(node, owner) of sessions that have waited long enough, at most `MOVES_MAX`.

        Args:
            held: sessions held here, by node.
            owner_of: a node's owner.
            targets: the other replicas that can be recommended now.
        """
        self._forget(held)
        found: list[tuple[str, str]] = []
        for node, session in held.items():
            known = self._since.get(node)
            if known is None or known[0] is not session:
                self._since[node] = known = (session, now_s)
            owner = owner_of(node)
            if owner is None or owner not in targets:
                continue
            before, times = self._told.get(node, ("", 0))
            times = times if before == owner else 0
            if now_s - known[1] >= min(SETTLED_S * 2.0 ** min(times, 16), SETTLED_S_MAX):
                self._told[node] = (owner, times + 1)
                found.append((node, owner))
                if len(found) >= MOVES_MAX:
                    break
        return found

    def _forget(self, held: Mapping[str, object]) -> None:
        self._since = {node: since for node, since in self._since.items() if node in held}


class Homing:
    """The loop of one replica.

    Args:
        held: sessions held here, by node.
        owner_of: a node's owner, as committed.
        targets: the other replicas that are linked both ways.
        now_s: monotonic seconds.
    """

    def __init__(
        self,
        *,
        held: Callable[[], Mapping[str, Held]],
        owner_of: Callable[[str], str | None],
        targets: Callable[[], Sequence[str]],
        now_s: Callable[[], float],
    ) -> None:
        self._held = held
        self._owner_of = owner_of
        self._targets = targets
        self._now_s = now_s
        self._patience = Patience()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            held = dict(self._held())
            due = self._patience.due(held, self._owner_of, self._targets(), self._now_s())
            await asyncio.gather(*(held[node].end(OWNER_IS + owner) for node, owner in due))
