"""Where a replica took a snapshot instead of applying: what its trace then need not tell.

Owns: the installs of each life, and which indexes a life applied entry by entry.  Must not know: any invariant.
"""

from __future__ import annotations

from bisect import bisect_right

from chaos.trace.events import Event, Life, Trace

INSTALL, WRITE = "snapshot-install", "snapshot-write"
REFETCH = "state-refetch"
"""A state that differed from a majority's is replaced by a snapshot, and entries are applied again from there; the
log and what is committed stay."""
REPLACED = (INSTALL, REFETCH)


def snapshot_events(trace: Trace, *operations: str) -> list[Event]:
    """The `disk` events that tell of snapshots, in order."""
    return [event for event in trace.kind("disk") if event.f.get("op") in operations]


def installs(trace: Trace) -> dict[Life, list[Event]]:
    """Where each life's state was replaced, at its start or by a leader's snapshot, in its own order."""
    found: dict[Life, list[Event]] = {}
    for event in sorted(snapshot_events(trace, *REPLACED), key=lambda e: e.i):
        found.setdefault((event.n, event.inc), []).append(event)
    return found


class AppliedRanges:
    """Which indexes each life (without gaps in its trace) applied one by one."""

    def __init__(self, trace: Trace) -> None:
        self._ranges: dict[Life, list[tuple[int, int]]] = {}
        for event in trace.kind("apply"):
            life = (event.n, event.inc)
            if not trace.lives[life].gap:
                self._ranges.setdefault(life, []).append((event.number("first"), event.number("index")))
        for ranges in self._ranges.values():
            ranges.sort()

    def by(self, life: Life, index: int) -> bool:
        """Whether that life did."""
        ranges = self._ranges.get(life, [])
        place = bisect_right(ranges, (index, 1 << 62)) - 1
        return place >= 0 and ranges[place][1] >= index

    def by_any(self, index: int) -> bool:
        """Whether any life did."""
        return any(self.by(life, index) for life in self._ranges)
