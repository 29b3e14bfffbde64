"""What waits for the disk: writes to come, and messages that promise what is not durable yet.

Owns: one write in flight, merging the rest, holding `after_persist` messages back, room on a full disk.
Must not know: threads, the event loop, or why the core wants anything.

Invariant: a message marked `after_persist` leaves only when every `Persist` before it is durable (Figure 2:
a server answers after updating its persistent state).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from raft.effects import Persist, Send
from raft.messages import Append
from raft.store.log_store import ENTRY_OVERHEAD_BYTES, FRAME_OVERHEAD_BYTES, LogStore
from raft.writer import Batch, merge

PROPOSAL_OVERHEAD_BYTES = ENTRY_OVERHEAD_BYTES + FRAME_OVERHEAD_BYTES
"""At most what one proposal takes on disk beyond its data, even alone in its frame."""


class Outflow:
    """Between the core's effects and the writer."""

    def __init__(self, store: LogStore) -> None:
        self._store = store
        self._persists: list[Persist] = []
        self._held: deque[tuple[int, Send]] = deque()
        self._issued = 0
        self._durable = 0
        self._writing = False
        self._waiting_bytes = 0
        self._writing_bytes = 0

    def persist(self, effect: Persist) -> None:
        """A write to come."""
        assert effect.write > self._issued, "writes are numbered upwards"
        self._issued = effect.write
        self._waiting_bytes += FRAME_OVERHEAD_BYTES
        for entry in effect.entries:
            self._waiting_bytes += len(entry.data) + ENTRY_OVERHEAD_BYTES
        self._persists.append(effect)

    def hold(self, effect: Send) -> bool:
        """Whether `effect` has to wait; it is kept then, in order."""
        if not effect.after_persist or self._durable == self._issued:
            return False
        self._held.append((self._issued, effect))
        return True

    def begin(self) -> Batch | None:
        """The next write, if there is one and none is in flight."""
        if self._writing or not self._persists:
            return None
        batch = merge(self._persists)
        self._persists = []
        self._writing = True
        self._writing_bytes, self._waiting_bytes = self._waiting_bytes, 0
        return batch

    def written(self, write: int) -> None:
        """The write in flight is durable: everything up to number `write`."""
        self._writing, self._writing_bytes = False, 0
        self._durable = write

    def released(self) -> Iterator[Send]:
        """Messages whose writes are durable, in order; each is given once."""
        while self._held and self._held[0][0] <= self._durable:
            yield self._held.popleft()[1]

    # -- a full disk -----------------------------------------------------------------------------

    def has_room(self, size_bytes: int) -> bool:
        """Whether so much more fits, beside all writes to come, into what is allocated or can be."""
        if not self._store.full:
            return True
        return self._waiting_bytes + self._writing_bytes + size_bytes <= self._store.headroom_bytes

    def without_room(self, message: Append) -> Append:
        """The same Append, without entries if they do not fit: a heartbeat that the leader could have sent.

        A follower with a full disk so keeps its leader, its vote and its promises, and falls behind.
        """
        if not message.entries or self.has_room(
            sum(len(entry.data) + PROPOSAL_OVERHEAD_BYTES for entry in message.entries)
        ):
            return message
        return Append(message.term, message.prev_index, message.prev_term, message.commit_index, message.sequence, ())
