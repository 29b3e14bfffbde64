"""One durable batch as bytes, and back.

Owns: the layout of a frame and its checks.  Must not know: files, segments, or the disk.

A frame is a fixed header, a MessagePack body ``[hard state, entries]`` (or ``[hard state, entries, base]``, where a
snapshot replaces all that came before), and zeros up to a multiple of eight bytes.  All integers are little-endian:

====== ====== =========================================================================
offset bytes  meaning
====== ====== =========================================================================
0      4      magic ``SkF1``
4      4      CRC32C of bytes 8..72: the header can be trusted without its body
8      8      random id of the segment: bytes of another segment or inside an entry never fit
16     8      sequence, from 1, one more than the frame before it
24     32     first index, first term, last index, last term of the entries; 0 without any
56     4      checksum of the frame before (0 for the very first): a chain over the whole log
60     4      length of the body
64     4      checksum: CRC32C of bytes 8..64 and the body
68     4      reserved, zero
72            body
====== ====== =========================================================================
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import google_crc32c
import msgspec
from msgspec import Struct

from raft.messages import Base, Entry, HardState

MAGIC = b"SkF1"
HEADER_BYTES = 72
ALIGNMENT_BYTES = 8

_HEADER = struct.Struct("<QQQQQQIII4x")  # bytes 8..72
_HEADER_WITHOUT_SUM = struct.Struct("<QQQQQQII")  # bytes 8..64, what the frame's own checksum covers
_U32 = struct.Struct("<I")


class Body(Struct, frozen=True, array_like=True):
    """The hard state after this frame, and the entries that replace the log from the first one's index on.

    With `base` the log before this frame is void; it begins anew behind `base`.
    """

    hard_state: HardState
    entries: tuple[Entry, ...]
    base: Base | None = None


class Header(Struct, frozen=True):
    """A header whose own checksum fits.  `length` counts the body's bytes."""

    segment_id: int
    sequence: int
    first_index: int
    first_term: int
    last_index: int
    last_term: int
    previous: int
    length: int
    checksum: int

    @property
    def size(self) -> int:
        """Bytes that the whole frame takes in its segment."""
        return frame_size(self.length)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Body)


def frame_size(length: int) -> int:
    """Bytes of a frame with a body of `length` bytes, padding included."""
    return (HEADER_BYTES + length + ALIGNMENT_BYTES - 1) // ALIGNMENT_BYTES * ALIGNMENT_BYTES


def encode_body(hard_state: HardState, entries: Sequence[Entry], base: Base | None = None) -> bytes:
    """The body's bytes; the same for every segment and sequence."""
    return _encoder.encode((hard_state, entries) if base is None else (hard_state, entries, base))


def encode_frame(
    body: bytes, *, segment_id: int, sequence: int, first: tuple[int, int], last: tuple[int, int], previous: int
) -> tuple[bytes, int]:
    """A whole frame and its checksum; `first` and `last` are (index, term), (0, 0) without entries."""
    covered = _HEADER_WITHOUT_SUM.pack(segment_id, sequence, *first, *last, previous, len(body))
    checksum = google_crc32c.extend(google_crc32c.value(covered), body)
    header = covered + _U32.pack(checksum) + bytes(4)
    padding = bytes(frame_size(len(body)) - HEADER_BYTES - len(body))
    return b"".join((MAGIC, _U32.pack(google_crc32c.value(header)), header, body, padding)), checksum


def decode_header(data: bytes, offset: int) -> Header | None:
    """The header at `offset`, or None when there is none or it is damaged."""
    raw = data[offset : offset + HEADER_BYTES]
    if len(raw) < HEADER_BYTES or raw[:4] != MAGIC:
        return None
    if _U32.unpack_from(raw, 4)[0] != google_crc32c.value(raw[8:]):
        return None
    return Header(*_HEADER.unpack_from(raw, 8))


def decode_body(data: bytes, offset: int, header: Header) -> Body | None:
    """The body of the frame at `offset`, or None when it is damaged or contradicts its header."""
    start = offset + HEADER_BYTES
    raw = data[start : start + header.length]
    if len(raw) < header.length or any(data[start + header.length : offset + header.size]):
        return None
    if google_crc32c.extend(google_crc32c.value(data[offset + 8 : offset + 64]), raw) != header.checksum:
        return None
    try:
        body = _decoder.decode(raw)
    except msgspec.DecodeError:  # also ValidationError: bytes that nobody of us wrote, with a sum that fits
        return None
    return body if _consistent(header, body.entries) else None


def _consistent(header: Header, entries: Sequence[Entry]) -> bool:
    """Whether the entries are contiguous, their terms never fall, and the header tells the same."""
    if not entries:
        return header.first_index == header.last_index == header.first_term == header.last_term == 0
    first, last = entries[0], entries[-1]
    if (first.index, first.term) != (header.first_index, header.first_term):
        return False
    if (last.index, last.term) != (header.last_index, header.last_term):
        return False
    term = first.term
    for expected, entry in enumerate(entries, first.index):
        if entry.index != expected or entry.term < term:
            return False
        term = entry.term
    return True
