"""The replicated log in memory: entries, their rolling prefix hashes and cumulative sizes (§5.3).

Owns: what the log holds, and the Log Matching comparisons made on it.  Must not know:
terms of office, peers, or whether an entry is durable or committed.

Three lists run in parallel so that sending, bounding and hashing cost work per batch: `_ends`
turns "how many entries fit in a message" into one bisection, and a hash is computed once, when
its entry enters.  Everything is relative to a base (the position before the first entry held), so
that a prefix can be replaced by a snapshot without renumbering.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from zlib import crc32

from google_crc32c import extend as crc32c

from raft.messages import Base, Entry

ENTRY_OVERHEAD_BYTES = 24
"""What an entry is charged beyond its data: term, index, kind and framing."""

HASH_START = 0x5343_4552_5259_0001
"""The prefix hash of the empty log."""

WHOLE = Base(0, 0, HASH_START)
"""The base of a log that has all its entries."""

MARK_EVERY = 64
"""Long batches are marked in the trace at indexes divisible by this; short ones at every index."""

_MASK64 = (1 << 64) - 1
_MASK32 = (1 << 32) - 1
_ODD = 0x9E37_79B9_7F4A_7C15


def next_hash(previous: int, entry: Entry) -> int:
    """The 64-bit prefix hash at `entry`, given the hash just before it.

    Two CRCs of different polynomials give 64 independent bits of the data; the multiplication makes
    the chain depend on the order.  It finds divergence and bugs, not forgery.
    """
    data = entry.data
    mixed: int = (crc32c(previous >> 32, data) << 32) | crc32(data, previous & _MASK32)
    return ((mixed ^ (entry.term << 2 | entry.kind)) * _ODD + entry.index + len(data)) & _MASK64


def entry_bytes(data_bytes: int) -> int:
    """What an entry with `data_bytes` of data counts for in every bound, in bytes."""
    return data_bytes + ENTRY_OVERHEAD_BYTES


class Log:
    """A gapless run of entries from `first_index` to `last_index`."""

    def __init__(self, entries: Sequence[Entry] = (), base: Base = WHOLE) -> None:
        self._base_index = base.index
        self._base_term = base.term
        self._entries: list[Entry] = []
        self._hashes: list[int] = [base.prefix_hash]
        self._ends: list[int] = [0]
        self.extend(entries)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def base_index(self) -> int:
        """The position before the first entry held; whatever is at or before it is committed and in a snapshot."""
        return self._base_index

    @property
    def base(self) -> Base:
        """That position, its term and its prefix hash."""
        return Base(self._base_index, self._base_term, self._hashes[0])

    def base_at(self, index: int) -> Base:
        """What the base of the log would be, were it compacted up to `index`."""
        return Base(index, self.term_at(index), self.hash_at(index))

    @property
    def first_index(self) -> int:
        """Index of the oldest entry held (or of the next one, when the log is empty)."""
        return self._base_index + 1

    @property
    def last_index(self) -> int:
        """Index of the newest entry, 0 in a log that never had one."""
        return self._base_index + len(self._entries)

    @property
    def last_term(self) -> int:
        """Term of the newest entry, 0 in a log that never had one."""
        return self._entries[-1].term if self._entries else self._base_term

    @property
    def size_bytes(self) -> int:
        """Bytes of all entries held, as the bounds count them."""
        return self._ends[-1] - self._ends[0]

    def term_at(self, index: int) -> int:
        """Term of the entry at `index`; 0 for index 0 and for an index outside the log."""
        offset = index - self._base_index
        if 0 < offset <= len(self._entries):
            return self._entries[offset - 1].term
        return self._base_term if offset == 0 else 0

    def matches(self, index: int, term: int) -> bool:
        """Whether the log holds (term, index): by Log Matching, the whole prefix is then the same."""
        return self._base_index <= index <= self.last_index and self.term_at(index) == term

    def entry(self, index: int) -> Entry:
        """The entry at `index`, which must be held."""
        assert self._base_index < index <= self.last_index, "an entry outside the log was asked for"
        return self._entries[index - self._base_index - 1]

    def slice(self, first: int, last: int) -> tuple[Entry, ...]:
        """Entries `first`..`last`, both included."""
        assert self._base_index < first <= last + 1 <= self.last_index + 1, "a slice outside the log was asked for"
        return tuple(self._entries[first - self._base_index - 1 : last - self._base_index])

    def hash_at(self, index: int) -> int:
        """Rolling hash over all entries up to `index`, compacted ones included."""
        assert index >= self._base_index, "the hash of a compacted prefix was asked for"
        return self._hashes[index - self._base_index]

    def bytes_between(self, after: int, upto: int) -> int:
        """Bytes of the entries after `after` up to and including `upto`."""
        return self._ends[upto - self._base_index] - self._ends[after - self._base_index]

    def fitting(self, after: int, bytes_max: int) -> int:
        """Last index so that the entries behind `after` stay within `bytes_max`; at least one, if there is one."""
        offset = after - self._base_index
        fits = bisect_right(self._ends, self._ends[offset] + bytes_max) - 1
        return self._base_index + max(fits, min(offset + 1, len(self._entries)))

    def extend(self, entries: Sequence[Entry]) -> None:
        """Append entries that follow the last one."""
        assert not entries or entries[0].index == self.last_index + 1, "entries must follow the log's end"
        add_hash, add_end = self._hashes.append, self._ends.append
        rolling, end = self._hashes[-1], self._ends[-1]
        for entry in entries:  # `next_hash`, written out: this loop is the cost of one entry
            data = entry.data
            size = len(data)
            mixed = (crc32c(rolling >> 32, data) << 32) | crc32(data, rolling & _MASK32)
            rolling = ((mixed ^ (entry.term << 2 | entry.kind)) * _ODD + entry.index + size) & _MASK64
            end += size + ENTRY_OVERHEAD_BYTES
            add_hash(rolling)
            add_end(end)
        self._entries += entries

    def truncate(self, from_index: int) -> None:
        """Remove the entry at `from_index` and all behind it."""
        offset = from_index - self._base_index
        assert 0 < offset <= len(self._entries), "truncation outside the log"
        del self._entries[offset - 1 :]
        del self._hashes[offset:]
        del self._ends[offset:]

    def first_index_of_term(self, index: int) -> int:
        """First index of the run of equal terms that ends at or covers `index`."""
        term = self.term_at(index)
        low, high = self.first_index, index
        while low < high:  # terms never fall along the log, so the run's start can be bisected
            middle = (low + high) // 2
            if self.term_at(middle) < term:
                low = middle + 1
            else:
                high = middle
        return low

    def last_index_of_term(self, term: int, upto: int) -> int:
        """Last index ≤ `upto` whose term is `term`, or 0 when none is known."""
        low, high = self._base_index, min(upto, self.last_index)
        while low < high:
            middle = (low + high + 1) // 2
            if self.term_at(middle) <= term:
                low = middle
            else:
                high = middle - 1
        return low if 0 < low <= upto and self.term_at(low) == term else 0

    def compact(self, index: int) -> None:
        """Forget the entries up to `index`: a snapshot stands for them (§7)."""
        offset = index - self._base_index
        assert 0 <= offset <= len(self._entries), "compaction outside the log"
        self._base_index, self._base_term = index, self.term_at(index)
        del self._entries[:offset]
        del self._hashes[:offset]
        del self._ends[:offset]

    def reset(self, base: Base) -> None:
        """Forget everything: the log begins anew behind `base` (§7)."""
        self._base_index, self._base_term = base.index, base.term
        self._entries, self._hashes, self._ends = [], [base.prefix_hash], [0]

    def marks(self, first: int, last: int) -> tuple[tuple[int, int], ...]:
        """(index, prefix hash) pairs for the trace: all of a short range, every 64th of a long one, always `last`."""
        if last - first < 8:
            indexes = list(range(first, last + 1))
        else:
            indexes = list(range(first + (-first) % MARK_EVERY, last, MARK_EVERY))
            indexes.append(last)
        hashes, base = self._hashes, self._base_index
        return tuple([(index, hashes[index - base]) for index in indexes])
