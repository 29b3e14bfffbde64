"""Rolling hashes of logs: equal hashes at an index mean equal logs up to it.

Owns: what each store held durably over time, by the marks of its `append` events.
Must not know: any invariant.
"""

from __future__ import annotations

from collections.abc import Iterator

from chaos.trace.checkers.members import Rosters
from chaos.trace.events import Event


class HeldLogs:
    """The durable log of every store, as its `append` events tell it: the marks that stand now."""

    def __init__(self) -> None:
        self._rosters = Rosters()
        self._held: dict[tuple[str, str], list[tuple[int, str, Event]]] = {}

    def store(self, event: Event) -> list[tuple[int, str, Event]]:
        """A life begins on a store; the marks beyond what it holds, if it is one that was seen before."""
        self._rosters.store(event)
        return self._cut(self._of(event), event.number("index") + 1)

    def append(self, event: Event) -> list[tuple[int, str, Event]]:
        """Entries are durable; the marks at and behind the first of them, which stood until now."""
        mine = self._of(event)
        replaced = self._cut(mine, event.number("first"))
        mine += [(index, ph, event) for index, ph in sorted(event.marks)]
        return replaced

    def last(self, event: Event) -> int:
        """The last index that the store of the event's life holds."""
        mine = self._of(event)
        return mine[-1][0] if mine else 0

    def down_from(self, event: Event, index: int) -> Iterator[tuple[int, str]]:
        """The store's marks at or below `index`, from the highest down."""
        for at, ph, _ in reversed(self._of(event)):
            if at <= index:
                yield at, ph

    def all(self) -> Iterator[tuple[int, str, Event]]:
        """Every mark that stands."""
        for mine in self._held.values():
            yield from mine

    def _of(self, event: Event) -> list[tuple[int, str, Event]]:
        return self._held.setdefault(self._rosters.holder(event), [])

    @staticmethod
    def _cut(mine: list[tuple[int, str, Event]], first: int) -> list[tuple[int, str, Event]]:
        """Take off and return what stands at `first` and behind it."""
        if not mine or mine[-1][0] < first:
            return []
        at = len(mine)
        while at and mine[at - 1][0] >= first:
            at -= 1
        cut = mine[at:]
        del mine[at:]
        return cut
