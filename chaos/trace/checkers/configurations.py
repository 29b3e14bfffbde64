"""Everybody goes by the configurations that are committed, also whoever began with a snapshot.

Owns: what a configuration owes to the log (Raft §6, §7).  Must not know: majorities.
"""

from __future__ import annotations

from chaos.trace.checkers.base import Rule
from chaos.trace.checkers.members import Roster, Rosters
from chaos.trace.checkers.snapshots import INSTALL
from chaos.trace.events import Event, Life, Trace


class ConfigurationKept(Rule):
    """A committed configuration is the same everywhere, and a snapshot brings the one in force at its index (§7)."""

    name = "configuration-kept"
    nothing = "no configuration was told by two replicas"

    def __init__(self) -> None:
        super().__init__()
        self._rosters = Rosters()
        self._committed: dict[int, tuple[Roster, set[Life]]] = {}
        self._pending: dict[Life, Event] = {}
        self._installed: list[tuple[Event, Roster | None]] = []

    def on_note(self, event: Event) -> None:
        """Perhaps a configuration."""
        self._rosters.note(event)

    def on_commit(self, event: Event) -> None:
        """What a replica goes by, and has committed, is committed."""
        roster, life = self._rosters.of(event), (event.n, event.inc)
        if life in self._pending:
            self._installed.append((self._pending.pop(life), roster))
        if roster is None or roster.index > event.number("index"):
            return
        known, lives = self._committed.setdefault(roster.index, (roster, set()))
        if life in lives:
            return
        lives.add(life)
        self.verdict.checked += len(lives) > 1
        if not _alike(known, roster):
            self.verdict.violated(
                f"{known.told.n} and {event.n} committed different configurations at {roster.index}",
                known.told,
                roster.told,
            )

    def on_disk(self, event: Event) -> None:
        """Perhaps a snapshot is taken in; its configuration is told around it, before anything else is committed."""
        if event.f.get("op") == INSTALL:
            self._pending[event.n, event.inc] = event

    def finish(self, trace: Trace) -> None:
        """Which configuration was in force at a snapshot's index is known when everything is."""
        left = [(event, self._rosters.of(event)) for event in self._pending.values()]
        left = [(event, roster) for event, roster in left if roster is not None]
        for event, roster in self._installed + left:
            index = event.number("index")
            before = [at for at in self._committed if at <= index]
            if not before or trace.lives[event.n, event.inc].gap or (roster is not None and roster.index > index):
                continue
            wanted, _ = self._committed[max(before)]
            self.verdict.checked += 1
            if roster is None or not _alike(roster, wanted):
                has = "none" if roster is None else f"that of {roster.index}"
                told = [wanted.told] if roster is None else [wanted.told, roster.told]
                self.verdict.violated(
                    f"{event.n} began with a snapshot of {index} and goes by {has}, where configuration {wanted.index} "
                    "is in force",
                    event,
                    *told,
                )


def _alike(one: Roster, other: Roster) -> bool:
    return (one.index, one.voters, one.outgoing, one.learners) == (
        other.index,
        other.voters,
        other.outgoing,
        other.learners,
    )
