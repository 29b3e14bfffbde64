"""Committed entries on their way into the state machine, a slice at a time.

Owns: order, and how much is applied before the event loop gets its turn.  Must not know: what applying does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from raft.effects import Apply
from raft.messages import Entry
from raft.protocols import Clock, StateMachine

SLICE_NS = 1_000_000
"""A slice aims to stay below this."""
_ENTRIES_MAX = 1024
_ENTRIES_FIRST = 32


class Applier:
    """Feeds one state machine.  `index`: last entry applied.  `held`: nothing is applied until a state is restored."""

    def __init__(self, machine: StateMachine, clock: Clock, stop_every: int) -> None:
        """At multiples of `stop_every` a slice ends, so that the state can be looked at there."""
        self.index = 0
        self.held = False
        self._stop_every = stop_every
        self._machine = machine
        self._clock = clock
        self._queue: deque[tuple[Entry, ...]] = deque()
        self._offset = 0
        self._size = _ENTRIES_FIRST

    @property
    def waiting(self) -> bool:
        """Whether anything committed is to be applied now."""
        return bool(self._queue) and not self.held

    def add(self, effect: Apply) -> None:
        """Take entries that were committed; entries of every kind go to the machine, which answers each."""
        if effect.entries:
            self._queue.append(effect.entries)

    def hold(self) -> None:
        """Apply nothing more to this state."""
        self.held = True

    def restored(self, index: int) -> None:
        """The state machine was given the state at `index`: what waits is void."""
        self._queue.clear()
        self._offset = 0
        self.index = index
        self.held = False

    def slice(self) -> tuple[Sequence[Entry], Sequence[Any]]:
        """Apply the next slice; the entries and one result each."""
        head = self._queue[0]
        size = min(self._size, self._stop_every - self.index % self._stop_every)
        entries: Sequence[Entry] = head[self._offset : self._offset + size]
        assert entries[0].index == self.index + 1, "entries are applied in order, once"
        started = self._clock.now_ns()
        results = self._machine.apply(entries)
        took = self._clock.now_ns() - started
        assert len(results) == len(entries), "the state machine answers every entry"
        self.index = entries[-1].index
        self._offset += len(entries)
        if self._offset == len(head):
            self._queue.popleft()
            self._offset = 0
        self._adapt(len(entries), took)
        return entries, results

    def _adapt(self, count: int, took_ns: int) -> None:
        """Halve the slice when it took too long, double a full one that was quick."""
        if took_ns > SLICE_NS:
            self._size = max(1, count // 2)
        elif count == self._size and took_ns < SLICE_NS // 4:
            self._size = min(_ENTRIES_MAX, self._size * 2)
