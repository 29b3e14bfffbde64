"""What a leader knows of one follower, and how much it may send it unanswered (§5.3).

Owns: the probe/replicate/snapshot states and the inflight window.  Must not know: the log or other followers.

Invariants: `match < next`; entries up to `match` are durable on the follower and equal to ours;
the window is counted by log index and bytes, never by messages alone: one acknowledgement
covers everything up to its index, and lost ones are covered by any later one.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum

from raft.messages import SnapshotId


class Pace(StrEnum):
    """PROBE: where the logs agree is unknown, one message at a time.  REPLICATE: pipelined.

    SNAPSHOT: what it needs next is compacted; it gets a snapshot, and no entries until it has it.
    """

    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


class Progress:
    """One follower, as its leader sees it.  Times in nanoseconds, sizes in bytes.

    Attributes:
        store: the store that the configuration names; what another one says under the same name does not count.
        match: highest index known durable there and equal to the leader's.
        next: index of the next entry to send.
        commit_sent: highest commit index a message sent there carried.
        sequence_acked: last quorum round it answered.
        heard_ns: when its last answer in this term came (leadership's start before the first).
        probe_waits: PROBE only: a probe is unanswered; the next waits for an answer or a heartbeat.
        snapshot: which one it gets; None outside of SNAPSHOT, unless it asked for one.
        chunk_offset: the piece that is unanswered; None while a question is.
        chunk_bytes: how large pieces may be; adapts, 0 before the first.
        refetch_ns: when it last asked for a state to replace its own by; a snapshot then goes beside the entries.
        chunk_sent_ns, patience_ns: when the last piece or question left, and how long its answer is awaited.
    """

    def __init__(self, next_index: int, now_ns: int, store: str) -> None:
        self.store = store
        self.pace = Pace.PROBE
        self.match = 0
        self.next = next_index
        self.commit_sent = 0
        self.sequence_acked = 0
        self.heard_ns = now_ns
        self.probe_waits = False
        self.inflight_bytes = 0
        self._inflight: deque[tuple[int, int]] = deque()
        self.snapshot: SnapshotId | None = None
        self.chunk_offset: int | None = None
        self.chunk_bytes = 0
        self.refetch_ns = 0
        self.chunk_sent_ns = 0
        self.patience_ns = 0

    @property
    def inflight_messages(self) -> int:
        """Messages with entries that are not acknowledged yet."""
        return len(self._inflight)

    def may_send(self, messages_max: int, bytes_max: int) -> bool:
        """Whether another message with entries may leave now."""
        if self.pace is Pace.SNAPSHOT:
            return False
        if self.pace is Pace.PROBE:
            return not self.probe_waits
        return len(self._inflight) < messages_max and self.inflight_bytes < bytes_max

    def sent(self, last: int, size_bytes: int) -> None:
        """A message with entries up to `last` left."""
        if self.pace is Pace.PROBE:
            self.probe_waits = True
            return
        self.next = last + 1
        self._inflight.append((last, size_bytes))
        self.inflight_bytes += size_bytes

    def acknowledged(self, match: int) -> bool:
        """The follower holds everything up to `match`; returns whether that is news."""
        inflight = self._inflight
        while inflight and inflight[0][0] <= match:
            self.inflight_bytes -= inflight.popleft()[1]
        if self.pace is Pace.SNAPSHOT:
            self.snapshot, self.next = None, match + 1
        if self.pace is not Pace.REPLICATE:
            self.pace, self.probe_waits = Pace.REPLICATE, False
        if match >= self.next:
            self.next = match + 1
        if match <= self.match:
            return False
        self.match = match
        return True

    def is_stale_refusal(self, prev_index: int) -> bool:
        """Whether a refusal of `prev_index` answers a question that was settled since."""
        if self.pace is Pace.SNAPSHOT:
            return True
        return prev_index <= self.match or (self.pace is Pace.PROBE and prev_index != self.next - 1)

    def back_up(self, next_index: int, refused_index: int) -> None:
        """Probe from `next_index`, below the refused index and above what is known to match."""
        self._inflight.clear()
        self.inflight_bytes = 0
        self.pace, self.probe_waits = Pace.PROBE, False
        self.next = max(self.match + 1, min(next_index, refused_index))

    def begin_snapshot(self, snapshot: SnapshotId, patience_ns: int) -> None:
        """Send `snapshot`, and entries behind it once it is acknowledged."""
        self._inflight.clear()
        self.inflight_bytes = 0
        self.pace, self.probe_waits = Pace.SNAPSHOT, False
        self.snapshot, self.next = snapshot, max(self.match, snapshot.index) + 1
        self.patience_ns = patience_ns
