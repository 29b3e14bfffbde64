"""Who votes, as each replica's own trace tells it: stores, configurations, majorities.

Owns: which store a life runs on, the configuration it goes by, and what is a majority of that.
Must not know: any invariant.

Traces that tell no configuration (of older programs) fall back to "all replicas seen": then what must hold of
memberships is not checked, and majorities are those of all.
"""

from __future__ import annotations

from collections.abc import Collection

from msgspec import Struct

from chaos.trace.events import Event, Life

Stores = dict[str, str]
"""Replica → store."""


class Roster(Struct, frozen=True):
    """One configuration, and the event that told it.  `outgoing`: the old voters of a joint one (§6)."""

    index: int
    voters: Stores
    outgoing: Stores
    learners: Stores
    told: Event

    def majority_of(self, nodes: Collection[str]) -> bool:
        """Whether these replicas are a majority of every half."""
        return all(_majority(half, nodes) for half in (self.voters, self.outgoing) if half)

    def may_vote(self, node: str, store: str) -> bool:
        """Whether that store of that replica is a voter."""
        return store in (self.voters.get(node), self.outgoing.get(node))

    @property
    def electorate(self) -> list[str]:
        """Everybody who votes, old and new, sorted."""
        return sorted({*self.voters, *self.outgoing})


def _majority(half: Stores, nodes: Collection[str]) -> bool:
    return 2 * sum(node in nodes for node in half) > len(half)


def roster_of(event: Event) -> Roster | None:
    """The configuration that a note tells, if it tells one."""
    voters = event.f.get("voters")
    if not isinstance(voters, dict) or not voters:
        return None
    return Roster(event.number("index"), voters, event.part("outgoing"), event.part("learners"), event)


class Rosters:
    """Follows `store` and `note` events of all lives."""

    def __init__(self) -> None:
        self.stores: dict[Life, str] = {}
        self._of: dict[Life, Roster] = {}
        self._before: dict[Life, Roster] = {}

    def store(self, event: Event) -> None:
        """A life began on a store."""
        self.stores[event.n, event.inc] = event.text("id")

    def note(self, event: Event) -> Roster | None:
        """The configuration that is told, if one is."""
        roster = roster_of(event)
        if roster is not None:
            life = (event.n, event.inc)
            if life in self._of:
                self._before[life] = self._of[life]
            self._of[life] = roster
        return roster

    def of(self, event: Event) -> Roster | None:
        """The configuration that the event's life goes by."""
        return self._of.get((event.n, event.inc))

    def recent(self, event: Event) -> list[Roster]:
        """That one, and the one before: a deed is told a moment after it was decided."""
        life = (event.n, event.inc)
        return [roster for roster in (self._of.get(life), self._before.get(life)) if roster is not None]

    def holder(self, event: Event) -> tuple[str, str]:
        """(replica, store): what keeps votes and entries; the store is "" where the trace tells none."""
        return event.n, self.stores.get((event.n, event.inc), "")
