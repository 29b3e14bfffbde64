"""The last state changes, for those who follow them.

Owns: a bounded ring of changes by log index and waking its followers.  Must not know: HTTP, or
what a change means.

A follower keeps its own position (the last index it has seen).  Changes of one index are kept
or dropped together, so a position is never in the middle of one.  Who fell behind the ring, or
comes from before this process began, is told of the gap, never served silently with a hole.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

CHANGES_MAX = 65_536

Change = tuple[str, dict[str, Any]]


class Changelog:
    """Ring of changes.

    Args:
        changes_max: changes kept; older indexes are forgotten whole.
    """

    def __init__(self, *, changes_max: int = CHANGES_MAX) -> None:
        self._ring: deque[tuple[int, tuple[Change, ...]]] = deque()
        self._count = 0
        self._changes_max = changes_max
        self._forgotten = 0
        self._last = 0
        self._woken = asyncio.Event()

    @property
    def last_index(self) -> int:
        """The highest index added or advanced to."""
        return self._last

    @property
    def forgotten_index(self) -> int:
        """Changes up to here are no longer known."""
        return self._forgotten

    def add(self, index: int, changes: Sequence[Change]) -> None:
        """Append what the entry at `index` changed; indexes must grow."""
        assert index > self._last, "changes arrive in log order"
        self._last = index
        if changes:
            self._ring.append((index, tuple(changes)))
            self._count += len(changes)
        while self._count > self._changes_max and len(self._ring) > 1:
            forgotten, dropped = self._ring.popleft()
            self._count -= len(dropped)
            self._forgotten = forgotten

    def skip(self, index: int) -> None:
        """The state jumped to `index`: what changed up to there is not known."""
        assert index >= self._last, "the state never goes back"
        self._ring.clear()
        self._count = 0
        self._last = self._forgotten = index

    def wake(self) -> None:
        """Tell the followers that something was added; once a batch."""
        self._woken.set()
        self._woken = asyncio.Event()

    def after(self, index: int, limit: int) -> list[tuple[int, Change]]:
        """Changes with an index above `index`, whole indexes, at most about `limit` of them."""
        found: list[tuple[int, Change]] = []
        for at in range(self._position(index), len(self._ring)):
            changed_index, changes = self._ring[at]
            found.extend((changed_index, change) for change in changes)
            if len(found) >= limit:
                break
        return found

    async def wait(self, index: int, timeout_s: float) -> bool:
        """Wait for anything above `index`; False if nothing came within `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                while self._last <= index:
                    await self._woken.wait()
        except TimeoutError:
            return False
        return True

    def _position(self, index: int) -> int:
        """First place in the ring with a higher index; a deque indexes from its ends in O(n/64)."""
        low, high = 0, len(self._ring)
        while low < high:
            middle = (low + high) // 2
            if self._ring[middle][0] <= index:
                low = middle + 1
            else:
                high = middle
        return low
