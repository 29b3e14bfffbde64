"""The digest of the state, worked out beside the event loop.

Owns: that freezing happens on the loop, hashing in a thread, and both once an index.
Must not know: what is in the state, or who asks.
"""

from __future__ import annotations

import asyncio

from scheduler.state import State
from scheduler.state.snapshot import FrozenState


class Fingerprint:
    """Digests of one state, on request."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._last: tuple[int, str] = (-1, "")
        self._books: object = None
        self._turn = asyncio.Lock()

    async def now(self) -> tuple[int, str]:
        """(index, digest): of the index applied now, or of a later one if others are served first."""
        async with self._turn:
            if self._last[0] != self._state.index or self._books is not self._state.books:
                frozen, self._books = self._state.freeze(), self._state.books  # restoring makes others
                self._last = (frozen.index, await asyncio.to_thread(_digest, frozen))
            return self._last


def _digest(frozen: FrozenState) -> str:
    return frozen.digest()
