"""The log store: appends frames durably and hands back, after a crash, what was promised.

Owns: opening a data directory, one durable frame after another, segments to come, the
reserve for a full disk.  Must not know: asyncio, elections, or what entries mean.

`append` blocks and belongs to one writer thread; `prepare_spare` blocks too and may run in
another.  Nothing here is retried: after a failed write or sync the store is broken, and only a
restart with its recovery may find out what the disk kept.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence

from msgspec import Struct

from raft.errors import DiskFull, StoreCorrupt, StoreError
from raft.log import WHOLE
from raft.messages import Base, Entry, HardState, Snapshot, SnapshotId
from raft.protocols import Dice, Disk
from raft.store.compaction import Joined, horizon, join, kept
from raft.store.frames import HEADER_BYTES as FRAME_HEADER_BYTES
from raft.store.frames import encode_body, encode_frame, frame_size
from raft.store.identity import Identity, check_identity, new_identity, read_identity, write_identity
from raft.store.recovery import Replay, has_frames, replay
from raft.store.retirement import Retirement, retire
from raft.store.segments import (
    HEADER_BYTES,
    SEGMENT_BYTES,
    FillInterrupted,
    Segment,
    create_segment,
    planned_bytes,
    segment_name,
    segment_number,
)
from raft.store.snapshots import SnapshotStore, is_snapshot_file

FRAME_BODY_BYTES = 8 << 20
"""A batch with more bytes of entries than this becomes several frames."""
ENTRY_OVERHEAD_BYTES = 32
"""At most what an entry's encoding adds to its data."""
FRAME_OVERHEAD_BYTES = FRAME_HEADER_BYTES + 128
"""At most what a frame adds to its entries: header, hard state, padding."""
_RESERVE_SHARE = 64
_RESERVE_BYTES_MIN = 4096
_DIVERGED_NAME = "state-diverged"


class RecoveredLog(Struct, frozen=True):
    """What the store held when it was opened; what `raft.core.Recovered` is made of."""

    hard_state: HardState
    entries: tuple[Entry, ...]
    base: Base = WHOLE
    snapshot: Snapshot | None = None


class LogStore:
    """An open data directory.  Make it with `LogStore.open`.

    Attributes:
        store_id: 32 hex digits; the identity that votes.
        replaces: the damaged store whose place this one took, at whatever start; "" for one that took nobody's.
        retired: what was taken out of service at this very opening, if anything was.
        recovered: hard state, snapshot and entries found at opening.
        snapshots: the snapshot files.
        hard_state, last_index, last_term: as of the last durable frame.
        diverged: the state in the snapshots is not to be used, only log and vote are (see `mark_diverged`).
        full: the last attempt to make room failed for lack of space.
        torn_bytes: how much of a torn frame was cut at opening.
        frames, bytes_written: counters since opening.
    """

    def __init__(
        self,
        disk: Disk,
        identity: Identity,
        found: Replay,
        joined: Joined,
        snapshots: SnapshotStore,
        *,
        dice: Dice,
        segment_bytes: int,
    ) -> None:
        assert found.live is not None, "recovery chose a segment to go on in"
        self.store_id = identity.store
        self.replaces = identity.replaces
        self.retired: Retirement | None = None
        self.recovered = RecoveredLog(joined.hard_state, joined.entries, joined.base, joined.snapshot)
        self.snapshots = snapshots
        self.hard_state = found.hard_state
        self.last_index, self.last_term = _end(joined)
        self.torn_bytes = found.torn_bytes
        self.diverged = _DIVERGED_NAME in disk.names()
        self.full = False
        self.frames = 0
        self.bytes_written = 0
        self._disk = disk
        self._dice = dice
        self._segment_bytes = segment_bytes
        self._sequence = found.sequence
        self._checksum = found.checksum
        self._live = found.live
        self._spares = found.spares
        self._numbered = max(segment.number for segment in found.segments)
        self._making = threading.Lock()
        self._moving = threading.Lock()
        self._closing = False
        self._broken: StoreError | None = None
        highest, live = found.highest, found.live.number
        before = [*found.leftovers, *(number for number in found.numbers if number < live)]
        self._past = [(number, highest.get(number, 0)) for number in before]
        self._highest = highest.get(live, 0)
        self._began_index = found.base.index if found.base else 0

    @classmethod
    def open(
        cls,
        disk: Disk,
        *,
        node_id: str,
        cluster_name: str,
        dice: Dice,
        segment_bytes: int = SEGMENT_BYTES,
        retire_damaged: bool = False,
    ) -> LogStore:
        """Lock the directory, check whose it is, recover the log; a directory without a store gets a new one.

        Args:
            segment_bytes: capacity of a full-grown segment; small ones suit tests.
            retire_damaged: put an empty store with an id of its own in a damaged one's place (see `retired`).

        Raises:
            StoreLocked, StoreTooNew, StoreForeign, StoreCloned, DiskFull: as they say.
            StoreCorrupt: it is damaged, and not to be replaced.
            StoreError: the disk failed.
        """
        disk.lock()
        try:
            try:
                store = cls._recover(disk, node_id, cluster_name, dice, segment_bytes)
            except StoreCorrupt as damage:
                if not retire_damaged:
                    raise
                retired = retire(
                    disk, damage, node_id=node_id, cluster_name=cluster_name, dice=dice, segment_bytes=segment_bytes
                )
                store = cls._recover(disk, node_id, cluster_name, dice, segment_bytes)
                store.retired = retired
        except BaseException as error:
            disk.close()
            if isinstance(error, OSError):
                raise _disk_failed("the data directory could not be read", error) from error
            raise
        return store

    @classmethod
    def _recover(cls, disk: Disk, node_id: str, cluster_name: str, dice: Dice, segment_bytes: int) -> LogStore:
        identity = read_identity(disk)
        if identity is None:
            identity = _found_store(disk, node_id, cluster_name, dice, segment_bytes)
        check_identity(identity, node=node_id, cluster=cluster_name, inode=disk.inode())
        disk.sync_directory()  # names seen here may have been visible only
        found = replay(disk, identity.store)
        snapshots = SnapshotStore.open(disk)
        joined = join(found, snapshots.held)
        store = cls(disk, identity, found, joined, snapshots, dice=dice, segment_bytes=segment_bytes)
        if joined.superseded:  # it was complete, and the power went before the log could say so
            store.append(joined.hard_state, (), joined.base)
        return store

    # -- room --------------------------------------------------------------------------------

    @property
    def needs_spare(self) -> bool:
        """Whether `prepare_spare` should be called, from another thread than the event loop's."""
        return not self._spares and self._broken is None

    @property
    def headroom_bytes(self) -> int:
        """Allocated bytes that proposals may use; the reserve for terms and votes is not among them."""
        spares = self._spares
        segment = spares[-1] if spares else self._live
        return max(0, segment.room_bytes - self._reserve_bytes(segment))

    def prepare_spare(self) -> None:
        """Make the next segment, unless there is one; sets or clears `full`.

        Raises:
            StoreError: the disk failed in another way than by being full.
        """
        with self._making:
            if self._spares or self._closing:
                return
            try:
                self._make_spare(0, wanted=lambda: not self._closing)
            except DiskFull:
                self.full = True
            except FillInterrupted:
                return

    def interrupt(self) -> None:
        """Have a running `prepare_spare` end soon and later ones do nothing: the store will be closed."""
        self._closing = True

    # -- writing -----------------------------------------------------------------------------

    def append(self, hard_state: HardState | None, entries: Sequence[Entry], base: Base | None = None) -> int:
        """Make `hard_state` (None: unchanged) and `entries` durable; returns the bytes written.

        The entries replace the log from the first one's index on.  With `base`, a durable snapshot's position, the
        whole log is given up and begins anew behind it.

        Raises:
            StoreError: the disk failed; the store cannot be used any more.
            DiskFull: no segment could be made; nothing of this frame was written.
        """
        if self._broken is not None:
            raise self._broken
        if base is not None:
            self.last_index, self.last_term = base.index, base.term
        self._check(hard_state, entries)
        written = 0
        for part in _parts(entries):
            written += self._append_frame(hard_state or self.hard_state, part, base)
            base = None
        self.bytes_written += written
        return written

    def tidy(self, needed: Iterable[SnapshotId] = ()) -> int:
        """Remove what the snapshots made unnecessary, but for those `needed`; returns how many segments went.

        Blocks; belongs into a thread.  Raises OSError.
        """
        keep = kept(self.snapshots.held, self._began_index)
        self.snapshots.remove([*[snapshot.id for snapshot in keep], *needed])
        upto, removed = horizon(keep), 0
        while (number := self._unneeded(upto)) is not None:
            self._disk.remove(segment_name(number))
            removed += 1
        self._disk.sync_directory()
        return removed

    def mark_diverged(self, diverged: bool) -> None:
        """Note durably that the snapshots' state is wrong, or that it has been replaced.  Blocks; raises OSError."""
        if diverged:
            file = self._disk.open(_DIVERGED_NAME, create=True)
            file.sync()
            file.close()
        elif _DIVERGED_NAME in self._disk.names():
            self._disk.remove(_DIVERGED_NAME)
        self._disk.sync_directory()
        self.diverged = diverged

    def _unneeded(self, upto: int) -> int | None:
        """The oldest segment, if it holds nothing behind `upto`, nor the last frame: that has term and vote."""
        with self._moving:
            if not self._past or self._past[0][1] > upto or self._live.end <= HEADER_BYTES:
                return None
            return self._past.pop(0)[0]

    def close(self) -> None:
        """Release segments and directory; what `append` returned from is durable already."""
        self.snapshots.close()
        for segment in (self._live, *self._spares):
            segment.close()
        self._disk.close()

    def _check(self, hard_state: HardState | None, entries: Sequence[Entry]) -> None:
        """Assert what recovery will insist on."""
        before = self.hard_state
        if hard_state is not None:
            assert hard_state.term >= before.term, "a term is never taken back"
            same_term = hard_state.term == before.term
            assert not same_term or before.voted_for in (None, hard_state.voted_for), "a vote is never changed"
        if entries:
            assert 1 <= entries[0].index <= self.last_index + 1, "entries leave no gap"
            assert entries[-1].term <= (hard_state or before).term, "entries come after their term"

    def _append_frame(self, hard_state: HardState, entries: Sequence[Entry], base: Base | None) -> int:
        body = encode_body(hard_state, entries, base)
        if frame_size(len(body)) > self._live.room_bytes:
            self._next_segment(frame_size(len(body)))
        first, last = (0, 0), (0, 0)
        if entries:
            first, last = (entries[0].index, entries[0].term), (entries[-1].index, entries[-1].term)
        frame, checksum = encode_frame(
            body,
            segment_id=self._live.id,
            sequence=self._sequence + 1,
            first=first,
            last=last,
            previous=self._checksum,
        )
        try:
            self._live.write(frame)
        except OSError as error:
            self._broken = _disk_failed("the log could not be written", error)
            raise self._broken from error
        self._sequence += 1
        self._checksum = checksum
        self.hard_state = hard_state
        if base is not None:
            self._began_index = self._highest = base.index
            with self._moving:
                self._past = [(number, 0) for number, _ in self._past]
        if entries:
            self.last_index, self.last_term = last
            self._highest = max(self._highest, self.last_index)
        self.frames += 1
        return len(frame)

    def _next_segment(self, size: int) -> None:
        """Go on in the first spare that holds `size` bytes; make one if there is none."""
        with self._making:
            passed = [(self._live.number, self._highest)]
            while self._spares and self._spares[0].room_bytes < size:
                passed.append((self._spares[0].number, 0))
                self._spares.pop(0).close()
            if not self._spares:
                self._make_spare(size, wanted=lambda: True)
            self._live.close()
            with self._moving:
                self._live = self._spares.pop(0)
                self._past += passed
            self._highest = 0

    def _make_spare(self, size: int, *, wanted: Callable[[], bool]) -> None:
        number = self._numbered + 1
        capacity = max(planned_bytes(number, self._segment_bytes), HEADER_BYTES + size)
        try:
            spare = create_segment(
                self._disk,
                number=number,
                capacity=capacity,
                store_id=self.store_id,
                dice=self._dice,
                wanted=wanted,
            )
        except DiskFull:
            raise
        except StoreError as error:
            self._broken = error
            raise
        self._numbered = number
        self._spares.append(spare)
        self.full = False

    def _reserve_bytes(self, segment: Segment) -> int:
        return max(_RESERVE_BYTES_MIN, segment.capacity // _RESERVE_SHARE)


def _end(joined: Joined) -> tuple[int, int]:
    """Index and term of the last entry of the log, or of its base."""
    if joined.entries:
        return joined.entries[-1].index, joined.entries[-1].term
    return joined.base.index, joined.base.term


def _parts(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    """The entries of one frame after another; one empty part when there are none."""
    start = held = 0
    for position, entry in enumerate(entries):
        size = len(entry.data) + ENTRY_OVERHEAD_BYTES
        if held and held + size > FRAME_BODY_BYTES:
            yield entries[start:position]
            start, held = position, 0
        held += size
    yield entries[start:]


def _found_store(disk: Disk, node_id: str, cluster_name: str, dice: Dice, segment_bytes: int) -> Identity:
    """Make a new store: the first segment, then the identity, whose presence completes it."""
    if has_frames(disk) or any(is_snapshot_file(name) for name in disk.names()):
        raise StoreCorrupt(
            "there is a log but no identity file in the data directory",
            hint="this store does not vote any more; keep it for inspection and start with an empty directory",
        )
    for name in disk.names():  # a store whose making was interrupted: nobody relied on it yet
        if segment_number(name) is not None:
            disk.remove(name)
    identity = new_identity(node=node_id, cluster=cluster_name, inode=disk.inode(), dice=dice)
    first = create_segment(disk, number=1, capacity=planned_bytes(1, segment_bytes), store_id=identity.store, dice=dice)
    first.close()
    write_identity(disk, identity)
    return identity


def _disk_failed(what: str, error: OSError) -> StoreError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreError(f"{what}: {error.strerror}", hint="free space on the disk of the data directory")
    return StoreError(
        f"{what}: {error}", hint="it is never retried, the disk may have lost data: check it, then restart the replica"
    )
