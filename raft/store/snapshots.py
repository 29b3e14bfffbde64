"""Snapshot files: written aside, synced, renamed, checked before anything is believed.

Owns: the layout of a snapshot file, writing an own one, putting a received one together, reading both.
Must not know: what the state's bytes mean, the log, or who asks for pieces.

All integers are little-endian:

======== ==========================================================================================
part     content
======== ==========================================================================================
prelude  magic ``SkSn``, format, length and CRC32C of the header, the header (`SnapshotHeader`)
records  length (1 to 256 KiB), CRC32C and bytes of the state, again and again
trailer  length 0, CRC32C of everything before it (the file's checksum), magic ``SkSe``
======== ==========================================================================================

A file under its final name is complete and durable; ``.new`` (being written) and ``.part`` (being received) are not.
A part is checked record by record when its reception goes on after a restart: only what is intact counts.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterable, Iterator

import google_crc32c
import msgspec

from raft.errors import StoreCorrupt, StoreTooNew
from raft.messages import Snapshot, SnapshotChunk, SnapshotHeader, SnapshotId
from raft.protocols import Disk, File

FORMAT_VERSION = 1
RECORD_BYTES_MAX = 256 << 10
"""State bytes in one record; larger pieces of the state machine are cut."""
HEADER_BYTES_MAX = 1 << 20
SYNC_EVERY_BYTES = 1 << 20
"""So often a file is synced while it grows: the log's own syncs never wait for more than this."""

_PRELUDE = struct.Struct("<4sIII")
_RECORD = struct.Struct("<II")
_TRAILER = struct.Struct("<II4s")
_MAGIC, _END = b"SkSn", b"SkSe"
_PREFIX, _SUFFIX, _NEW, _PART, _DAMAGED = "snap-", ".snap", ".new", ".part", ".damaged"

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(SnapshotHeader)


class SnapshotDamaged(StoreCorrupt):
    """A snapshot file is not what was written."""


def is_snapshot_file(name: str) -> bool:
    """Whether a file in the data directory belongs to this module."""
    return name.startswith(_PREFIX) and name.endswith((_SUFFIX, _NEW, _PART, _DAMAGED))


def file_name(snapshot: SnapshotId, suffix: str = _SUFFIX) -> str:
    """Names sort like indexes."""
    return (
        f"{_PREFIX}{snapshot.index:016d}-{snapshot.term:016d}-{snapshot.size_bytes:x}-{snapshot.checksum:08x}{suffix}"
    )


class _Growing:
    """A file that grows by records, synced now and then."""

    def __init__(self, file: File) -> None:
        self._file = file
        self._unsynced = 0
        self.size = 0
        self.checksum = 0

    def add(self, *parts: bytes) -> None:
        """Append bytes."""
        data = b"".join(parts)
        self._file.write_at(self.size, data)
        self.size += len(data)
        self.checksum = google_crc32c.extend(self.checksum, data)
        self._unsynced += len(data)
        if self._unsynced >= SYNC_EVERY_BYTES:
            self._file.sync()
            self._unsynced = 0


def write_file(file: File, header: SnapshotHeader, chunks: Iterable[bytes]) -> Snapshot:
    """Write a whole snapshot into an empty file and sync it; raises OSError."""
    growing = _Growing(file)
    head = _encoder.encode(header)
    growing.add(_PRELUDE.pack(_MAGIC, FORMAT_VERSION, len(head), google_crc32c.value(head)), head)
    for chunk in chunks:
        for start in range(0, len(chunk), RECORD_BYTES_MAX):
            data = bytes(chunk[start : start + RECORD_BYTES_MAX])
            growing.add(_RECORD.pack(len(data), google_crc32c.value(data)), data)
    checksum = growing.checksum
    growing.add(_TRAILER.pack(0, checksum, _END))
    file.sync()
    return Snapshot(header, growing.size, checksum)


class _Reader:
    """Reads a file front to back and checks it; `offset` is how much of it is intact."""

    def __init__(self, file: File, name: str) -> None:
        self._file = file
        self._name = name
        self._checksum = 0
        self.offset = 0
        self.header = self._read_header()
        self.snapshot: Snapshot | None = None

    def records(self) -> Iterator[bytes]:
        """The state's bytes; `snapshot` is set after the last of them.  Raises SnapshotDamaged."""
        while True:
            length, checksum = _RECORD.unpack(self._peek(self.offset, _RECORD.size))
            if length == 0:
                self._end()
                return
            if length > RECORD_BYTES_MAX:
                raise self._damaged("a record is too long")
            raw = self._peek(self.offset, _RECORD.size + length)
            data = raw[_RECORD.size :]
            if google_crc32c.value(data) != checksum:
                raise self._damaged("the checksum of a record does not fit")
            self._took(raw)
            yield data

    def _read_header(self) -> SnapshotHeader:
        magic, version, length, checksum = _PRELUDE.unpack(self._peek(0, _PRELUDE.size))
        if magic != _MAGIC or length > HEADER_BYTES_MAX:
            raise self._damaged("it does not begin like a snapshot")
        raw = self._peek(0, _PRELUDE.size + length)
        if google_crc32c.value(raw[_PRELUDE.size :]) != checksum:
            raise self._damaged("the checksum of its header does not fit")
        if version > FORMAT_VERSION:
            raise StoreTooNew(
                f"the snapshot file {self._name} has format {version}; this program knows {FORMAT_VERSION}",
                hint="start the newer version of Skerry that wrote it",
            )
        try:
            header = _decoder.decode(raw[_PRELUDE.size :])
        except msgspec.DecodeError as error:
            raise self._damaged(f"its header does not parse: {error}") from error
        self._took(raw)
        return header

    def _end(self) -> None:
        _, checksum, magic = _TRAILER.unpack(self._peek(self.offset, _TRAILER.size))
        if magic != _END or checksum != self._checksum:
            raise self._damaged("its checksum does not fit")
        size = self.offset + _TRAILER.size
        if self._file.size() != size:
            raise self._damaged("something follows its end")
        self.snapshot = Snapshot(self.header, size, checksum)

    def _peek(self, offset: int, length: int) -> bytes:
        raw = self._file.read_at(offset, length)
        if len(raw) < length:
            raise self._damaged("it ends too soon")
        return raw

    def _took(self, raw: bytes) -> None:
        self._checksum = google_crc32c.extend(self._checksum, raw)
        self.offset += len(raw)

    def _damaged(self, why: str) -> SnapshotDamaged:
        return SnapshotDamaged(f"the snapshot file {self._name} is damaged: {why}", hint="it is not loaded")


def read_file(file: File, name: str) -> Snapshot:
    """Check a whole file.  Raises SnapshotDamaged, OSError."""
    reader = _Reader(file, name)
    for _ in reader.records():
        pass
    assert reader.snapshot is not None, "the last record was read"
    return reader.snapshot


def _intact_bytes(file: File, name: str) -> int:
    """How much of a part is intact; it goes on there."""
    offset = 0
    try:
        reader = _Reader(file, name)
        offset = reader.offset
        for _ in reader.records():
            offset = reader.offset
    except SnapshotDamaged:
        return offset
    return file.size()


class _Incoming:
    """The one snapshot that is being received."""

    def __init__(self, snapshot: SnapshotId, file: File, offset: int) -> None:
        self.snapshot = snapshot
        self.file = file
        self.offset = offset
        self.unsynced = 0


class SnapshotStore:
    """The snapshots of one data directory.

    `write`, `take`, `read` and `remove` block and belong into threads, `write` into another one than the rest.

    Attributes:
        damaged: names of files found damaged when it was opened; they were set aside.
        resumed: how often a part found after a restart, or after another one, was gone on with.
    """

    def __init__(self, disk: Disk, held: list[Snapshot], damaged: list[str]) -> None:
        self._disk = disk
        self._held = tuple(sorted(held, key=lambda each: (each.index, each.checksum), reverse=True))
        self._changing = threading.Lock()
        self._incoming: _Incoming | None = None
        self.damaged = damaged
        self.resumed = 0

    @classmethod
    def open(cls, disk: Disk) -> SnapshotStore:
        """Check every snapshot; set damaged ones aside, remove what was never finished, keep parts.  Raises OSError."""
        held: list[Snapshot] = []
        damaged: list[str] = []
        for name in disk.names():
            if not is_snapshot_file(name):
                continue
            if name.endswith(_NEW):
                disk.remove(name)
            elif name.endswith(_SUFFIX):
                found = _checked(disk, name)
                if found is None:
                    damaged.append(name)
                    disk.rename(name, name.removesuffix(_SUFFIX) + _DAMAGED)
                else:
                    held.append(found)
        disk.sync_directory()
        return cls(disk, held, damaged)

    @property
    def held(self) -> tuple[Snapshot, ...]:
        """Complete and durable ones, newest first."""
        return self._held

    # -- own ones ----------------------------------------------------------------------------------

    def write(self, header: SnapshotHeader, chunks: Iterable[bytes]) -> Snapshot:
        """Write an own snapshot; it is durable when this returns.  Raises OSError, and what `chunks` raises."""
        aside = f"{_PREFIX}{header.base.index:016d}-{header.base.term:016d}{_NEW}"
        if aside in self._disk.names():
            self._disk.remove(aside)
        file = self._disk.open(aside, create=True)
        try:
            snapshot = write_file(file, header, chunks)
        except BaseException:
            file.close()
            _drop(self._disk, aside)
            raise
        file.close()
        self._disk.rename(aside, file_name(snapshot.id))
        self._disk.sync_directory()
        self._add(snapshot)
        return snapshot

    def chunks(self, snapshot: Snapshot) -> Iterator[bytes]:
        """The state's bytes, checked as they are read.  Raises SnapshotDamaged, OSError."""
        name = file_name(snapshot.id)
        file = self._disk.open(name)
        try:
            yield from _Reader(file, name).records()
        finally:
            file.close()

    def read(self, snapshot: SnapshotId, offset: int, bytes_max: int) -> bytes:
        """A piece of the file for a peer; its beginning is given only if the whole file is intact.

        Raises:
            SnapshotDamaged: it is not, or there is no such snapshot; it is not held any more.
        """
        name = file_name(snapshot)
        try:
            file = self._disk.open(name)
        except FileNotFoundError as error:
            self._forget(snapshot)
            raise SnapshotDamaged(f"the snapshot file {name} is gone") from error
        try:
            if offset == 0:
                read_file(file, name)
            return file.read_at(offset, bytes_max)
        except SnapshotDamaged:
            self._forget(snapshot)
            self._disk.rename(name, name.removesuffix(_SUFFIX) + _DAMAGED)
            raise
        finally:
            file.close()

    def remove(self, keep: Iterable[SnapshotId]) -> None:
        """Remove all snapshots but these.  Raises OSError."""
        kept = list(keep)
        for snapshot in self._held:
            if snapshot.id not in kept:
                self._forget(snapshot.id)
                self._disk.remove(file_name(snapshot.id))

    # -- received ones -----------------------------------------------------------------------------

    def take(self, chunk: SnapshotChunk) -> tuple[int, Snapshot | None]:
        """Write a piece down if it is the next one; the offset wanted now, and the snapshot once it is complete.

        Whatever does not fit together in the end is thrown away, and wanted again from its beginning.  Raises OSError.
        """
        incoming = self._incoming
        if incoming is None or incoming.snapshot != chunk.snapshot:
            incoming = self._receive(chunk.snapshot)
        if chunk.data and chunk.offset == incoming.offset:
            incoming.file.write_at(chunk.offset, chunk.data)
            incoming.offset += len(chunk.data)
            incoming.unsynced += len(chunk.data)
            if incoming.unsynced >= SYNC_EVERY_BYTES:
                incoming.file.sync()
                incoming.unsynced = 0
        if incoming.offset < chunk.snapshot.size_bytes:
            return incoming.offset, None
        complete = self._complete(incoming)
        return (incoming.offset if complete else 0), complete

    def _receive(self, snapshot: SnapshotId) -> _Incoming:
        """Go on with a part of it, or begin one; parts of others go."""
        if self._incoming is not None:
            self._incoming.file.close()
        name = file_name(snapshot, _PART)
        for other in self._disk.names():
            if other.endswith(_PART) and other != name:
                self._disk.remove(other)
        file = self._disk.open(name, create=True)
        offset = min(_intact_bytes(file, name), snapshot.size_bytes)
        self.resumed += offset > 0
        self._incoming = _Incoming(snapshot, file, offset)
        return self._incoming

    def _complete(self, incoming: _Incoming) -> Snapshot | None:
        name = file_name(incoming.snapshot, _PART)
        self._incoming = None
        try:
            snapshot = read_file(incoming.file, name)
        except SnapshotDamaged:
            snapshot = None
        if snapshot is None or snapshot.id != incoming.snapshot:
            incoming.file.close()
            _drop(self._disk, name)
            return None
        incoming.file.sync()
        incoming.file.close()
        self._disk.rename(name, file_name(snapshot.id))
        self._disk.sync_directory()
        self._add(snapshot)
        return snapshot

    def _add(self, snapshot: Snapshot) -> None:
        with self._changing:
            held = [snapshot, *[each for each in self._held if each.id != snapshot.id]]
            self._held = tuple(sorted(held, key=lambda each: (each.index, each.checksum), reverse=True))

    def _forget(self, snapshot: SnapshotId) -> None:
        with self._changing:
            self._held = tuple(each for each in self._held if each.id != snapshot)

    def close(self) -> None:
        """Release the file at hand."""
        if self._incoming is not None:
            self._incoming.file.close()
            self._incoming = None


def _checked(disk: Disk, name: str) -> Snapshot | None:
    """The snapshot in a file under its final name; None when it is damaged."""
    file = disk.open(name)
    try:
        snapshot = read_file(file, name)
    except SnapshotDamaged:
        return None
    finally:
        file.close()
    return snapshot if file_name(snapshot.id) == name else None


def _drop(disk: Disk, name: str) -> None:
    """Remove what was begun; the error at hand, if any, matters more than one here."""
    try:
        disk.remove(name)
    except OSError:
        return
