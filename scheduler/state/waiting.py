"""Which allocations of one job wait to be placed.

Owns: the two queues, ready and backing off, in an order that is the same everywhere.
Must not know: why something waits, or what time it is except when told.
It is derived: a state that was read back can rebuild it from its rows.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Final

_STALE_MAX: Final = 64
"""Outdated heap entries tolerated: replicas that never ask what is due must not hoard them."""


class Waiting:
    """Ordinals of one job that need a placement.

    `ready` may be placed now.  Those in back-off become ready by `promote`, whose clock is
    the caller's; so what is ready differs between replicas, what waits at all does not.
    """

    def __init__(self) -> None:
        self._ready: dict[int, None] = {}
        self._due: dict[int, int] = {}
        self._heap: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self._ready) + len(self._due)

    def __contains__(self, ordinal: int) -> bool:
        return ordinal in self._ready or ordinal in self._due

    def add(self, ordinal: int, not_before_ms: int) -> None:
        """`ordinal` waits, until `not_before_ms` if that is not 0."""
        self.discard(ordinal)
        if not_before_ms <= 0:
            self._ready[ordinal] = None
        else:
            self._due[ordinal] = not_before_ms
            heapq.heappush(self._heap, (not_before_ms, ordinal))
            if len(self._heap) > 2 * len(self._due) + _STALE_MAX:
                self._heap = [(due_ms, waiting) for waiting, due_ms in self._due.items()]
                heapq.heapify(self._heap)

    def add_range(self, first: int, end: int) -> None:
        """All ordinals in ``[first, end)`` are ready; none of them waits yet."""
        if self._ready:
            self._ready.update(dict.fromkeys(range(first, end)))
        else:
            self._ready = dict.fromkeys(range(first, end))

    def discard(self, ordinal: int) -> None:
        """`ordinal` waits no more."""
        self._ready.pop(ordinal, None)
        self._due.pop(ordinal, None)

    def clear(self) -> None:
        """Nothing waits any more."""
        self._ready.clear()
        self._due.clear()
        self._heap.clear()

    def promote(self, now_ms: int) -> None:
        """Make those ready whose back-off ends at or before `now_ms`."""
        while self._heap and self._heap[0][0] <= now_ms:
            due_ms, ordinal = heapq.heappop(self._heap)
            if self._due.get(ordinal) == due_ms:
                del self._due[ordinal]
                self._ready[ordinal] = None

    def ready(self) -> Iterator[int]:
        """Ready ordinals, longest ready first."""
        return iter(self._ready)

    def later(self) -> Iterator[int]:
        """Ordinals in back-off, longest in it first."""
        return iter(self._due)

    def ready_count(self) -> int:
        """How many are ready."""
        return len(self._ready)

    def backing_off(self) -> int:
        """How many wait for the end of a back-off."""
        return len(self._due)

    def next_due_ms(self) -> int | None:
        """When the next back-off ends, Unix milliseconds."""
        while self._heap and self._due.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None
