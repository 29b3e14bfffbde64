"""What the segments say after a crash, and whether to believe them.

Owns: reading the log back, the torn-tail rule, its repair.
Must not know: identity, writing new frames, or consensus.

The rule (DESIGN.md §3, Log store): frame n+1 is only ever written after frame n's sync
returned, so at most the last frame can be incomplete.  A damaged frame with nothing valid
of a higher sequence after it is torn and was never acknowledged: it is cut.  Any other
damage touches promises already given: the store is retired with `StoreCorrupt`.

The last intact frame is written again and synced: after a failed sync it may have been
read from the page cache alone.

Segments at the front may be gone, because snapshots stand for their entries; whether they really do is judged
where the log is put together with the snapshots (`compaction`).
"""

from __future__ import annotations

from msgspec import Struct

from raft.messages import Base, Entry, HardState
from raft.protocols import Disk
from raft.store.frames import ALIGNMENT_BYTES, MAGIC, Body, Header, decode_body, decode_header
from raft.store.segments import HEADER_BYTES, Segment, corrupt, open_segment, segment_name, segment_number

_CHUNK_BYTES = 1 << 20
_ZEROS = bytes(_CHUNK_BYTES)


class Replay:
    """The log while it is read back.

    Attributes:
        hard_state, entries: as after the last intact frame.
        first: index of the first of `entries`; 0 while none was found in a log whose front is gone.
        base: the snapshot's position behind which the log began anew, if it did.
        sequence, checksum: of the last intact frame; 0 before the first.
        live: where writing goes on.
        leftovers, numbers: of segments that were being removed, and of those that make the log.
        highest: number of each segment before `live` → no entry in it that still counts has a higher index.
        spares: empty segments after it, in order.
        torn_bytes: how much of a torn frame was cut, 0 after a clean stop.
    """

    def __init__(self) -> None:
        self.hard_state = HardState(0, None)
        self.entries: list[Entry] = []
        self.sequence = 0
        self.checksum = 0
        self.segments: list[Segment] = []
        self.live: Segment | None = None
        self.spares: list[Segment] = []
        self.torn_bytes = 0
        self.last: _Place | None = None
        self.whole = True
        self.first = 1
        self.base: Base | None = None
        self.highest: dict[int, int] = {}
        self.leftovers: list[int] = []
        self.numbers: list[int] = []

    def front_is_gone(self) -> None:
        """The first segment is not there: its entries, and where the chain of frames begins, are not known."""
        self.whole, self.first = False, 0

    def take(self, header: Header, body: Body, segment: int, where: str) -> None:
        """Replay one intact frame; raises StoreCorrupt when it cannot follow what came before."""
        begins = not self.whole and self.sequence == 0
        if not begins and (header.sequence != self.sequence + 1 or header.previous != self.checksum):
            raise corrupt(f"{where} does not continue the chain (sequence {header.sequence} after {self.sequence})")
        before, after = self.hard_state, body.hard_state
        changed_vote = after.term == before.term and before.voted_for not in (None, after.voted_for)
        if after.term < before.term or changed_vote:
            raise corrupt(f"{where} takes back term {before.term} or its vote")
        if body.base is not None:
            self.entries, self.base, self.first = [], body.base, body.base.index + 1
            self.highest = {}
        if body.entries:
            self._take_entries(header, body, where)
        counted = max(header.last_index, body.base.index if body.base else 0)
        self.highest[segment] = max(self.highest.get(segment, 0), counted)
        self.hard_state = after
        self.sequence, self.checksum = header.sequence, header.checksum

    def _take_entries(self, header: Header, body: Body, where: str) -> None:
        if header.first_index < self.first or not self.first:
            if self.whole or self.base is not None:
                raise corrupt(f"{where} takes back what a snapshot stands for")
            self.entries, self.first = [], header.first_index
        keep = header.first_index - self.first
        if keep > len(self.entries):
            raise corrupt(f"{where} leaves a gap before index {header.first_index}")
        if header.last_term > body.hard_state.term or (keep and self.entries[keep - 1].term > header.first_term):
            raise corrupt(f"{where} has entries of a wrong term")
        del self.entries[keep:]
        self.entries.extend(body.entries)

    def close(self) -> None:
        """Release all segments."""
        for segment in self.segments:
            segment.close()


class _Place(Struct):
    """The last intact frame: its segment, offset and bytes."""

    segment: Segment
    offset: int
    data: bytes


class _Stop(Struct):
    """Reading of one segment ended at `offset`; `dirty` when what follows is not all zeros."""

    segment: Segment
    offset: int
    dirty: bool


def replay(disk: Disk, store_id: str) -> Replay:
    """Read, judge and repair the log.

    Raises:
        StoreCorrupt, StoreTooNew: it must not be used.
        OSError: the disk failed.
    """
    result = Replay()
    try:
        dirty: _Stop | None = None
        for segment in _open_all(disk, store_id, result):
            stop = _read_segment(result, segment, after_damage=dirty is not None)
            if dirty is not None and (stop.dirty or stop.offset > HEADER_BYTES):
                raise corrupt(f"{_place(dirty)} is damaged, and segment {segment.number} was written after it")
            dirty = dirty or (stop if stop.dirty else None)
        _settle(result, dirty)
    except BaseException:
        result.close()
        raise
    return result


def has_frames(disk: Disk) -> bool:
    """Whether any segment holds anything but its header: promises that need an identity."""
    for name in disk.names():
        if segment_number(name) is None:
            continue
        file = disk.open(name)
        try:
            size = file.size()
            for offset in range(HEADER_BYTES, size, _CHUNK_BYTES):
                if not _all_zero(file.read_at(offset, _CHUNK_BYTES)):
                    return True
        finally:
            file.close()
    return False


def _open_all(disk: Disk, store_id: str, result: Replay) -> list[Segment]:
    """Open the segments: an unbroken run up to the highest number; what lies before it was being removed."""
    numbers = sorted(number for name in disk.names() if (number := segment_number(name)) is not None)
    if not numbers:
        raise corrupt(f"{segment_name(1)} is missing")
    run = [number for place, number in enumerate(numbers) if numbers[-1] - number == len(numbers) - 1 - place]
    if run[0] > 1:
        result.front_is_gone()
    for number in run:
        result.segments.append(open_segment(disk, segment_name(number), store_id))
    result.leftovers = [number for number in numbers if number < run[0]]
    result.numbers = run
    return result.segments


def _read_segment(result: Replay, segment: Segment, *, after_damage: bool) -> _Stop:
    """Replay the intact frames of one segment; judge what stands where the next one should."""
    data = segment.file.read_at(0, segment.capacity)
    offset = HEADER_BYTES
    while not after_damage and (header := decode_header(data, offset)) is not None:
        where = f"segment {segment.number} at byte {offset}"
        if header.segment_id != segment.id:
            raise corrupt(f"{where} holds a frame of another segment")
        body = decode_body(data, offset, header)
        if body is None:
            break
        result.take(header, body, segment.number, where)
        result.last = _Place(segment, offset, data[offset : offset + header.size])
        offset += header.size
    segment.end = offset
    dirty = not _all_zero(data[offset:])
    if dirty:
        _refuse_unless_torn(data, offset, segment, result.sequence + 1)
    return _Stop(segment, offset, dirty)


def _refuse_unless_torn(data: bytes, offset: int, segment: Segment, sequence: int) -> None:
    """The damaged frame `sequence` stands at `offset`: raise StoreCorrupt if anything was written after it."""
    where = f"segment {segment.number} at byte {offset}"
    header = decode_header(data, offset)
    if header is not None and not _all_zero(data[offset + header.size :]):
        raise corrupt(f"{where} is damaged, and something was written after it")
    found = data.find(MAGIC, offset + ALIGNMENT_BYTES)
    while found >= 0:
        later = decode_header(data, found)
        if later is not None and later.segment_id == segment.id and later.sequence > sequence:
            raise corrupt(f"{where} is damaged, and frame {later.sequence} follows at byte {found}")
        found = data.find(MAGIC, found + 1)


def _settle(result: Replay, dirty: _Stop | None) -> None:
    """Choose the live segment, cut the torn frame, make the last intact one durable again."""
    written = [segment for segment in result.segments if segment.end > HEADER_BYTES]
    live = dirty.segment if dirty is not None else (written[-1] if written else result.segments[0])
    result.live = live
    result.spares = [segment for segment in result.segments if segment.number > live.number]
    for segment in result.segments:
        if segment.number < live.number and (result.last is None or segment is not result.last.segment):
            segment.close()
    if dirty is not None:
        result.torn_bytes = _zero_from(dirty.segment, dirty.offset)
    if result.last is not None:
        result.last.segment.file.write_at(result.last.offset, result.last.data)
        result.last.segment.file.sync()
        if result.last.segment is not live:
            result.last.segment.close()
    result.segments = [live, *result.spares]


def _zero_from(segment: Segment, offset: int) -> int:
    """Zero and sync everything from `offset` on; returns how many bytes had to be."""
    cut = 0
    for start in range(offset, segment.capacity, _CHUNK_BYTES):
        length = min(_CHUNK_BYTES, segment.capacity - start)
        if not _all_zero(segment.file.read_at(start, length)):
            segment.file.write_at(start, _ZEROS[:length])
            cut += length
    segment.file.sync()
    return cut


def _all_zero(data: bytes) -> bool:
    """Whether every byte is zero, by comparing blocks."""
    return all(
        data[start : start + _CHUNK_BYTES] == _ZEROS[: min(_CHUNK_BYTES, len(data) - start)]
        for start in range(0, len(data), _CHUNK_BYTES)
    )


def _place(stop: _Stop) -> str:
    return f"segment {stop.segment.number} at byte {stop.offset}"
