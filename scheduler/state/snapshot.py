"""The state as bytes, and back.

Owns: the format of a frozen state, its version and its digest.  Must not know: files, threads, or
what a section holds.

A stream of frames, each a 4-byte little-endian length and a MessagePack array:
  head   [format, index, term, [[section, pages], ...]]
  pages  each [packed content], in the order of the head
  tail   [digest]
The digest is over index, term, and the name and page digests of each section: the one that `State.digest`
gives, so a state that was read back can be compared with the one that was frozen, and replicas with each
other.  A section that is not in the stream stays empty (an older program wrote it); one that is not
known here is refused, since dropping it would lose state.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import Final

import msgspec
from msgspec import Struct

from scheduler.errors import SnapshotTooNew
from scheduler.state.books import Books
from scheduler.state.paged import PAGE_BYTES_MAX, Page, unpacked
from scheduler.state.rebuild import rebuild

FORMAT: Final = 2
"""Of the stream, and of what the digest is over: whatever changes the bytes of a page is another format."""
CHUNK_BYTES: Final = 256 << 10
_LENGTH_BYTES: Final = 4
_FRAME_BYTES_MAX: Final = PAGE_BYTES_MAX


Sections = tuple[tuple[str, Sequence[Page]], ...]


class Head(Struct, frozen=True, array_like=True):
    """What follows; anything of a later format is read no further than the first field."""

    format: int
    index: int
    term: int
    sections: tuple[tuple[str, int], ...]
    """(name, pages)."""


class Tail(Struct, frozen=True, array_like=True):
    """The end of a whole stream."""

    digest: str


class FrozenState:
    """The state at one index, held still; satisfies `raft.protocols.Frozen`.

    Everything here may be called in another thread, beside commands that are applied.
    """

    def __init__(self, index: int, term: int, books: Books) -> None:
        self.index = index
        self.term = term
        self._sections: Sections = tuple((name, section.freeze()) for name, section in books.sections().items())
        self._sum: str | None = None

    def digest(self) -> str:
        """How it was worked out, a colon, and 32 hexadecimal digits over everything replicated.

        States are compared between replicas whose programs cut and encode them in the same way, and only between those.
        """
        way = blake2b(f"{FORMAT}".encode(), digest_size=4)
        for name, _ in self._sections:
            way.update(f"/{name}".encode())
        return f"{way.hexdigest()}:{self._summed()}"

    def _summed(self) -> str:
        if self._sum is None:
            self._sum = _digest(self.index, self.term, self._sections)
        return self._sum

    def chunks(self) -> Iterator[bytes]:
        """The stream, about `CHUNK_BYTES` at a time; a page's work at a time between two chunks."""
        pending = bytearray()
        for frame in self._frames():
            pending += len(frame).to_bytes(_LENGTH_BYTES, "little")
            pending += frame
            if len(pending) >= CHUNK_BYTES:
                yield bytes(pending)
                pending.clear()
        yield bytes(pending)

    def release(self) -> None:
        """Let go of the pages."""
        self._sections = ()

    def _frames(self) -> Iterator[bytes]:
        encode = msgspec.msgpack.encode
        named = tuple((name, len(pages)) for name, pages in self._sections)
        yield encode(Head(FORMAT, self.index, self.term, named))
        for _, pages in self._sections:
            for page in pages:
                yield encode([page.packed()])
        yield encode(Tail(self._summed()))


def thaw(index: int, term: int, chunks: Iterable[bytes]) -> Books:
    """Read a stream back.

    Args:
        index: the log index that the stream must be of.
        term: its term.
        chunks: the stream, cut anywhere.

    Raises:
        ValueError: this is no such state, or it is damaged.
        SnapshotTooNew: a newer program wrote it.
    """
    frames = _cut(chunks)
    try:
        head = _head(_next(frames))
        if (head.index, head.term) != (index, term):
            raise ValueError(f"this is the state at {head.index} of term {head.term}, not {index} of {term}")
        books = Books()
        _load(books, head, frames)
        tail = msgspec.msgpack.decode(_next(frames), type=Tail)
        if next(frames, None) is not None:
            raise ValueError("something follows the end of the state")
        rebuild(books, index)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"this is no state: {error}") from None
    sections = books.sections()
    found: Sections = tuple((name, sections[name].freeze()) for name, _ in head.sections)
    if _digest(index, term, found) != tail.digest:
        raise ValueError("the state does not have the digest that it was frozen with")
    if head.format < FORMAT:
        for section in sections.values():
            section.encode_anew()  # replicas compare what they would write, not what they have read
    return books


def _digest(index: int, term: int, sections: Sections) -> str:
    summary = blake2b(f"{index}:{term}".encode(), digest_size=16)
    for name, pages in sections:
        summary.update(f"/{name}:{len(pages)}".encode())
        for page in pages:
            summary.update(page.digest())
    return summary.hexdigest()


def _head(frame: bytes) -> Head:
    version = msgspec.msgpack.decode(frame)
    if isinstance(version, list) and version and isinstance(version[0], int) and version[0] > FORMAT:
        raise SnapshotTooNew(
            f"the snapshot has format {version[0]}, this program knows {FORMAT}",
            hint="start the newer program on this data directory",
        )
    return msgspec.msgpack.decode(frame, type=Head)


def _load(books: Books, head: Head, frames: Iterator[bytes]) -> None:
    sections = books.sections()
    for name, pages in head.sections:
        section = sections.get(name)
        if section is None:
            raise SnapshotTooNew(
                f"the snapshot holds {name!r}, which this program does not know",
                hint="start the newer program on this data directory",
            )
        for _ in range(pages):
            (packed,) = msgspec.msgpack.decode(_next(frames), type=tuple[bytes])
            section.load(unpacked(packed))


def _next(frames: Iterator[bytes]) -> bytes:
    frame = next(frames, None)
    if frame is None:
        raise ValueError("the state is cut short")
    return frame


def _cut(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The frames of a stream."""
    pending = bytearray()
    for chunk in chunks:
        pending += chunk
        start = 0
        while len(pending) - start >= _LENGTH_BYTES:
            length = int.from_bytes(pending[start : start + _LENGTH_BYTES], "little")
            if length > _FRAME_BYTES_MAX:
                raise ValueError(f"a frame of {length} bytes is too long")
            end = start + _LENGTH_BYTES + length
            if len(pending) < end:
                break
            yield bytes(pending[start + _LENGTH_BYTES : end])
            start = end
        del pending[:start]
    if pending:
        raise ValueError("the state is cut short")
