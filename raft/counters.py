"""What a driver counts, for metrics to read when they are scraped.

Owns: plain numbers, written by the event loop alone.  Must not know: metric names or exporters.
"""

from __future__ import annotations

from bisect import bisect_left

_FIRST_BOUND_NS = 31_250

BOUNDS_NS = tuple(_FIRST_BOUND_NS << power for power in range(16))
"""Upper bounds of the histograms' buckets: 31 µs to 1 s, each twice the one before."""


class Histogram:
    """Durations by bucket; the last bucket holds what exceeds all bounds.

    Attributes:
        counts: per bucket, one more than there are bounds; not cumulative.
        total_ns, count, last_ns, max_ns: of all observations.
    """

    __slots__ = ("count", "counts", "last_ns", "max_ns", "total_ns")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_NS) + 1)
        self.total_ns = 0
        self.count = 0
        self.last_ns = 0
        self.max_ns = 0

    def observe(self, duration_ns: int) -> None:
        """Count one duration."""
        self.counts[bisect_left(BOUNDS_NS, duration_ns)] += 1
        self.total_ns += duration_ns
        self.count += 1
        self.last_ns = duration_ns
        if duration_ns > self.max_ns:
            self.max_ns = duration_ns

    def quantile_ns(self, share: float) -> int:
        """Upper bound of the bucket in which the `share` quantile lies; 0 without observations."""
        wanted, seen = share * self.count, 0
        for bucket, counted in enumerate(self.counts):
            seen += counted
            if counted and seen >= wanted:
                return BOUNDS_NS[bucket] if bucket < len(BOUNDS_NS) else self.max_ns
        return 0


class Counters:
    """Counted since the driver was made.

    Attributes:
        writes: durable batches, with time, and `written_bytes`.
        turns: how long one turn of the driver held the event loop.
        steps: events given to the core.
        received, received_dropped: messages taken, and lost to a full inbox or refused as impossible.
        proposed, refused: proposals taken, and refused by core or driver.
        freezes: how long freezing the state held the event loop; `snapshots` written, `installed` from a leader.
        chunks_sent, chunks_taken: pieces of snapshots; `segments_removed`: log files that snapshots replaced.
        applied: entries applied; `elections`: times this replica became leader.
    """

    def __init__(self) -> None:
        self.writes = Histogram()
        self.turns = Histogram()
        self.freezes = Histogram()
        self.snapshots = 0
        self.installed = 0
        self.chunks_sent = 0
        self.chunks_taken = 0
        self.segments_removed = 0
        self.written_bytes = 0
        self.steps = 0
        self.received = 0
        self.received_dropped = 0
        self.proposed = 0
        self.refused = 0
        self.applied = 0
        self.elections = 0
