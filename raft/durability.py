"""Which part of the log and of the hard state has reached this replica's own disk.

Owns: the writes in flight and what their completion proves.  Must not know: files or peers.

Invariant: `index` never counts an entry whose bytes on disk may differ from those in memory.  An
overwritten suffix is taken out of every write in flight at the moment of overwriting: a late
completion cannot bring it back, not even when the same (term, index) returns later by another
write (the ABA race: 5@2, then 5@3, then 5@2 again).
"""

from __future__ import annotations

from collections import deque

from raft.log import Log


class _Write:
    """One `Persist` in flight; `last` shrinks when part of what it wrote is overwritten."""

    __slots__ = ("last", "number", "started_ns", "with_hard_state")

    def __init__(self, number: int, last: int, with_hard_state: bool, started_ns: int) -> None:
        self.number = number
        self.last = last
        self.with_hard_state = with_hard_state
        self.started_ns = started_ns


class Durability:
    """Own durability.  `index`: the log up to here is on disk exactly as it is in memory."""

    def __init__(self, index: int) -> None:
        self.index = index
        self._number = 0
        self._inflight: deque[_Write] = deque()
        self._hard_state_writes = 0

    @property
    def hard_state_durable(self) -> bool:
        """Whether no change of term or vote is still in flight."""
        return self._hard_state_writes == 0

    @property
    def oldest_write_ns(self) -> int | None:
        """When the oldest write in flight began, or None when none is."""
        return self._inflight[0].started_ns if self._inflight else None

    def begin(self, last_index: int, with_hard_state: bool, now_ns: int) -> int:
        """A write leaves that makes the log durable up to `last_index`; returns its number."""
        self._number += 1
        self._inflight.append(_Write(self._number, last_index, with_hard_state, now_ns))
        self._hard_state_writes += with_hard_state
        return self._number

    def overwritten(self, from_index: int) -> None:
        """Entries from `from_index` on were replaced in memory: no earlier write vouches for them."""
        self.index = min(self.index, from_index - 1)
        for write in self._inflight:
            write.last = min(write.last, from_index - 1)

    def completed(self, number: int, last_term: int, last_index: int, log: Log) -> None:
        """All writes up to `number` are on disk; the log's end on disk is (last_term, last_index)."""
        assert number <= self._number, "a write completed that was never asked for"
        proven = 0
        while self._inflight and self._inflight[0].number <= number:
            write = self._inflight.popleft()
            self._hard_state_writes -= write.with_hard_state
            proven = write.last
        if log.matches(last_index, last_term):
            self.index = max(self.index, min(proven, last_index))
