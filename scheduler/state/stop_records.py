"""Stop records for work that no attempt of this state stands for.

Owns: (allocation, epoch) → index of the stop record, by node slot.  Must not know: nodes or jobs.
"""

from __future__ import annotations

from collections.abc import Iterable

from scheduler.state.paged import Objects

Key = tuple[str, int]
"""(allocation, epoch)."""


class StopRecords:
    """All of them; a node's own are one immutable value."""

    def __init__(self) -> None:
        self.pages: Objects[tuple[tuple[str, int, int], ...]] = Objects(tuple[tuple[str, int, int], ...])
        """By slot: (allocation, epoch, index)."""

    def of(self, slot: int) -> dict[Key, int]:
        """A node's records, oldest first."""
        return {(allocation, epoch): index for allocation, epoch, index in self.pages.get(slot, ())}

    def add(self, slot: int, keys: Iterable[Key], index: int) -> None:
        """Write records at `index`; one that is there already keeps its own."""
        records = self.of(slot)
        for key in keys:
            records.setdefault(key, index)
        self._put(slot, records)

    def drop(self, slot: int, key: Key) -> bool:
        """Remove a record; whether there was one."""
        records = self.of(slot)
        if records.pop(key, None) is None:
            return False
        self._put(slot, records)
        return True

    def clear(self, slot: int) -> None:
        """Remove all records of a node."""
        self.pages.discard(slot)

    def _put(self, slot: int, records: dict[Key, int]) -> None:
        if records:
            self.pages[slot] = tuple((*key, index) for key, index in records.items())
        else:
            self.pages.discard(slot)
