"""Segment files: zero-filled ahead, written front to back, never reused.

Owns: file names, the segment header, filling ahead, where the next frame goes.
Must not know: what frames say, or recovery's judgement.

A segment is made aside, filled with zeros to its whole capacity, synced and only then
renamed into place: its frames overwrite allocated blocks (a fifth to a third less time
per `fdatasync` than a growing file), and a file shorter than its capacity has been cut.
The first 512 bytes hold the header; a random id ties frames to their segment.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable

import google_crc32c

from raft.errors import DiskFull, StoreCorrupt, StoreError, StoreTooNew
from raft.protocols import Dice, Disk, File

FORMAT_VERSION = 1
SEGMENT_BYTES = 64 << 20
"""Default capacity; the first segments are smaller so that a new replica starts at once."""
FIRST_SEGMENT_BYTES = 4 << 20
_GROWTH_BITS = 2
HEADER_BYTES = 512
SEGMENT_BYTES_MAX = 1 << 32
_FILL_CHUNK_BYTES = 256 << 10
_MAGIC = b"SkSg"
_HEADER = struct.Struct("<IQQQ16s")  # format, number, id, capacity, store id
_U32 = struct.Struct("<I")
_SUFFIX, _NEW_SUFFIX = ".seg", ".new"
_ID_BYTES = 8


def segment_name(number: int) -> str:
    """File name of segment `number`; names sort like numbers."""
    return f"log-{number:016d}{_SUFFIX}"


def segment_number(name: str) -> int | None:
    """Inverse of `segment_name`; None for any other name."""
    stem = name.removeprefix("log-").removesuffix(_SUFFIX)
    if len(stem) != 16 or not (stem.isascii() and stem.isdigit()) or name != segment_name(int(stem)):
        return None
    return int(stem)


def planned_bytes(number: int, segment_bytes: int) -> int:
    """Capacity of segment `number`: growing from the small first one to `segment_bytes`."""
    growing = FIRST_SEGMENT_BYTES << (_GROWTH_BITS * min(number - 1, 8))
    return min(segment_bytes, growing)


class Segment:
    """One open segment.

    Attributes:
        number: place in the log, from 1.
        id: random; repeated in every frame.
        capacity: bytes of the whole file.
        end: offset of the next frame.
    """

    def __init__(self, file: File, *, number: int, segment_id: int, capacity: int) -> None:
        self.file = file
        self.number = number
        self.id = segment_id
        self.capacity = capacity
        self.end = HEADER_BYTES

    @property
    def room_bytes(self) -> int:
        """Bytes left for frames."""
        return self.capacity - self.end

    def write(self, frame: bytes) -> None:
        """Write one frame and return once it is durable; raises OSError, then the segment is unusable."""
        assert len(frame) <= self.room_bytes, "a frame fits into its segment"
        self.file.write_at(self.end, frame)
        self.file.sync()
        self.end += len(frame)

    def close(self) -> None:
        """Release the file."""
        self.file.close()


class FillInterrupted(Exception):
    """A segment that nobody needs any more was not finished."""


def _always() -> bool:
    return True


def create_segment(
    disk: Disk, *, number: int, capacity: int, store_id: str, dice: Dice, wanted: Callable[[], bool] = _always
) -> Segment:
    """Make a segment aside, fill it with zeros, sync it, put it in place.

    Args:
        wanted: asked between chunks.

    Raises:
        FillInterrupted: it is not wanted any more; what was begun is removed again.
        DiskFull: there is no room; what was begun is removed again.
        StoreError: anything else failed.
    """
    name, new_name = segment_name(number), f"log-{number:016d}{_NEW_SUFFIX}"
    segment_id = int.from_bytes(dice.token(_ID_BYTES), "little")
    file: File | None = None
    try:
        if new_name in disk.names():
            disk.remove(new_name)
        file = disk.open(new_name, create=True)
        _fill(file, _header(number, segment_id, capacity, store_id), capacity, wanted)
        disk.rename(new_name, name)
        disk.sync_directory()
    except FillInterrupted:
        _abandon(disk, file, new_name)
        raise
    except OSError as error:
        _abandon(disk, file, new_name)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(
                f"no room for a log segment of {capacity} bytes", hint="free space on the disk of the data directory"
            ) from error
        raise StoreError(
            f"log segment {name} could not be made: {error}", hint="check the disk of the data directory"
        ) from error
    return Segment(file, number=number, segment_id=segment_id, capacity=capacity)


def open_segment(disk: Disk, name: str, store_id: str) -> Segment:
    """Open an existing segment and check its header and length.

    Raises:
        StoreCorrupt, StoreTooNew: it is not what was written.
        OSError: it cannot be read.
    """
    file = disk.open(name)
    try:
        raw = file.read_at(0, HEADER_BYTES)
        length = 8 + _HEADER.size
        if len(raw) < length or raw[:4] != _MAGIC or _U32.unpack_from(raw, 4)[0] != google_crc32c.value(raw[8:length]):
            raise corrupt(f"the header of {name} is damaged")
        version, number, segment_id, capacity, owner = _HEADER.unpack_from(raw, 8)
        if version > FORMAT_VERSION:
            raise StoreTooNew(
                f"{name} has format {version}; this program knows {FORMAT_VERSION}",
                hint="start the newer version of Skerry that wrote it",
            )
        if segment_name(number) != name or owner.hex() != store_id:
            raise corrupt(f"{name} was written as segment {number} of store {owner.hex()}, not of {store_id}")
        if file.size() != capacity:
            raise corrupt(f"{name} has {file.size()} bytes instead of {capacity}")
    except BaseException:
        file.close()
        raise
    return Segment(file, number=number, segment_id=segment_id, capacity=capacity)


def corrupt(why: str) -> StoreCorrupt:
    """The error of a log that is damaged beyond a torn tail."""
    return StoreCorrupt(
        f"the log is damaged beyond a torn tail: {why}",
        hint="this store is retired and never votes again; keep it for inspection, start the replica with an empty"
        " directory and let it join under a new store id",
    )


def _header(number: int, segment_id: int, capacity: int, store_id: str) -> bytes:
    covered = _HEADER.pack(FORMAT_VERSION, number, segment_id, capacity, bytes.fromhex(store_id))
    return (_MAGIC + _U32.pack(google_crc32c.value(covered)) + covered).ljust(HEADER_BYTES, b"\0")


def _fill(file: File, header: bytes, capacity: int, wanted: Callable[[], bool]) -> None:
    """Write header and zeros in chunks, each synced, so that no sync of the live segment waits for all of them."""
    file.write_at(0, header + bytes(min(_FILL_CHUNK_BYTES, capacity) - len(header)))
    file.sync()
    zeros = bytes(_FILL_CHUNK_BYTES)
    for offset in range(_FILL_CHUNK_BYTES, capacity, _FILL_CHUNK_BYTES):
        if not wanted():
            raise FillInterrupted
        file.write_at(offset, zeros[: capacity - offset])
        file.sync()


def _abandon(disk: Disk, file: File | None, name: str) -> None:
    """Remove what was begun, so that it does not hold the space; the error at hand matters more than one here."""
    try:
        if file is not None:
            file.close()
        disk.remove(name)
    except OSError:
        return
