"""What is replicated, in pages that can be held still while the state moves on.

Owns: pages and their digests, objects by number, and single values: whatever is no column of
integers (`scheduler.state.columns`).  Must not know: what a value means.

A *section* is one part of the state, cut into pages.  Freezing it hands out its pages as they
are; the first write to one afterwards goes to a copy.  So a freeze costs a step a page, whatever
the pages hold, and the frozen ones may be read in another thread.  Values must never be changed
in place: they are replaced.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from typing import Any, Final, Generic, Protocol, TypeVar, overload

import msgspec

OBJECTS_SHIFT: Final = 8
"""256 objects a page: encoding one holds the interpreter for a fraction of a millisecond."""
PAGE_BYTES_MAX: Final = 64 << 20
DIGEST_BYTES: Final = 16

_COMPRESSION: Final = 1
T = TypeVar("T")
D = TypeVar("D")


class Page:
    """One page at one moment, never changed again."""

    __slots__ = ("_digest", "_encode")

    def __init__(self, encode: Callable[[], bytes], content: bytes | None = None) -> None:
        """`content`: what `encode` will give, if it is at hand."""
        self._encode = encode
        self._digest = None if content is None else digest_of(content)

    def digest(self) -> bytes:
        """Of the page's content; worked out once."""
        if self._digest is None:
            self._digest = digest_of(self._encode())
        return self._digest

    def packed(self) -> bytes:
        """The content, compressed; its digest is worked out along the way."""
        content = self._encode()
        if self._digest is None:
            self._digest = digest_of(content)
        return zlib.compress(content, _COMPRESSION)


class Section(Protocol):
    """One part of the state."""

    def freeze(self) -> Sequence[Page]:
        """The pages as they are now."""
        ...

    def load(self, content: bytes) -> None:
        """Take in the next page of an empty section; raises ValueError or msgspec.DecodeError for what is none."""
        ...

    def encode_anew(self) -> None:
        """Forget pages as they were read: another program may have written them in another way."""
        ...


def digest_of(content: bytes) -> bytes:
    """The digest of one page."""
    return blake2b(content, digest_size=DIGEST_BYTES).digest()


def unpacked(data: bytes) -> bytes:
    """Inverse of `Page.packed`; raises ValueError for what is no page, or too large a one."""
    inflate = zlib.decompressobj()
    try:
        content = inflate.decompress(data, PAGE_BYTES_MAX)
    except zlib.error as error:
        raise ValueError(f"a page cannot be decompressed: {error}") from None
    if not inflate.eof or inflate.unused_data:
        raise ValueError("a page is cut short, too large, or has something behind it")
    return content


class Objects(Generic[T]):
    """Immutable values by small integers.

    Args:
        kind: type of the values, for reading them back.
    """

    def __init__(self, kind: Any) -> None:
        self._pages: list[dict[int, T]] = []
        self._frozen: list[Page | None] = []
        self._count = 0
        self._decoder = msgspec.msgpack.Decoder(list[tuple[int, kind]])

    def __len__(self) -> int:
        return self._count

    def __contains__(self, number: int) -> bool:
        page = number >> OBJECTS_SHIFT
        return 0 <= page < len(self._pages) and number in self._pages[page]

    def __getitem__(self, number: int) -> T:
        return self._pages[number >> OBJECTS_SHIFT][number]

    def __setitem__(self, number: int, value: T) -> None:
        page = number >> OBJECTS_SHIFT
        while len(self._pages) <= page:
            self._pages.append({})
            self._frozen.append(None)
        if self._frozen[page] is not None:
            self._own(page)
        values = self._pages[page]
        self._count -= len(values)
        values[number] = value
        self._count += len(values)

    @overload
    def get(self, number: int) -> T | None: ...

    @overload
    def get(self, number: int, default: D) -> T | D: ...

    def get(self, number: int, default: Any = None) -> Any:
        """The value of `number`, or `default`."""
        page = number >> OBJECTS_SHIFT
        return self._pages[page].get(number, default) if 0 <= page < len(self._pages) else default

    def discard(self, number: int) -> None:
        """Forget the value of `number`, if there is one."""
        page = number >> OBJECTS_SHIFT
        if 0 <= page < len(self._pages) and number in self._pages[page]:
            if self._frozen[page] is not None:
                self._own(page)
            del self._pages[page][number]
            self._count -= 1

    def items(self) -> Iterator[tuple[int, T]]:
        """(number, value) pairs, ascending."""
        for page in self._pages:
            yield from sorted(page.items())

    def snapshot(self) -> Objects[T]:
        """The same values, held still; O(pages)."""
        still: Objects[T] = object.__new__(Objects)
        self.freeze()
        still._pages, still._frozen = list(self._pages), list(self._frozen)
        still._count, still._decoder = self._count, self._decoder
        return still

    def freeze(self) -> list[Page]:
        """See `Section`."""
        for number, page in enumerate(self._frozen):
            if page is None:
                self._frozen[number] = _objects_page(self._pages[number])
        return [page for page in self._frozen if page is not None]

    def load(self, content: bytes) -> None:
        """See `Section`."""
        first = len(self._pages) << OBJECTS_SHIFT
        values = dict(self._decoder.decode(content))
        if any(not first <= number < first + (1 << OBJECTS_SHIFT) for number in values):
            raise ValueError(f"page {len(self._pages)} holds the number of another page")
        self._pages.append(values)
        self._frozen.append(_objects_page(values, content))
        self._count += len(values)

    def encode_anew(self) -> None:
        """See `Section`."""
        self._frozen = [None] * len(self._pages)

    def _own(self, page: int) -> None:
        self._pages[page] = dict(self._pages[page])
        self._frozen[page] = None


class Value(Generic[T]):
    """One small value, read whole at each freeze.

    Args:
        kind: its type, for reading it back.
        get: hands out the value of this moment; it must not change afterwards.
        put: takes a value that was read back.
    """

    def __init__(self, kind: type[T], get: Callable[[], T], put: Callable[[T], None]) -> None:
        self._get = get
        self._put = put
        self._decoder: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(kind)

    def freeze(self) -> list[Page]:
        """See `Section`."""
        return [_value_page(self._get())]

    def load(self, content: bytes) -> None:
        """See `Section`."""
        self._put(self._decoder.decode(content))

    def encode_anew(self) -> None:
        """See `Section`; nothing is kept."""


def _objects_page(values: dict[int, Any], content: bytes | None = None) -> Page:
    return Page(lambda: _encoded(sorted(values.items())), content)


def _value_page(value: Any) -> Page:
    return Page(lambda: _encoded(value))


def _encoded(value: Any) -> bytes:
    return msgspec.msgpack.encode(value, order="deterministic")
