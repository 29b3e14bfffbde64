"""The sentence, and words that all narrators share.

Owns: shape and phrasing helpers.  Must not know: any kind of event.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct

from chaos.trace.events import Event

REFS_MAX = 40


class Sentence(Struct, frozen=True):
    """One factual sentence and the events (``n/inc/i``) it derives from."""

    text: str
    refs: tuple[str, ...]


class Told(Struct, frozen=True):
    """A sentence at its place in the story."""

    hlc: int
    rank: int
    sentence: Sentence


def tell(at: Event, text: str, events: Iterable[Event], *, rank: int = 0) -> Told:
    """A sentence told at the time of an event."""
    refs: dict[str, None] = {}
    for event in events:
        if len(refs) < REFS_MAX:
            refs.setdefault(event.ref)
    return Told(at.hlc, rank, Sentence(text, tuple(refs)))


def listed(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    if len(names) <= 1:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def span(start: Event, end: Event) -> str:
    """The time between two events: ``340 ms`` or ``2.3 s``."""
    ms = max(0, end.ms - start.ms)
    return f"{ms} ms" if ms < 1000 else f"{ms / 1000:.1f} s"


def counted(number: int, one: str, many: str = "") -> str:
    """``1 write``, ``3 writes``, ``no writes``."""
    plural = many or one + "s"
    if number == 0:
        return f"no {plural}"
    return f"{number} {one if number == 1 else plural}"


def amount(size_bytes: int) -> str:
    """Bytes, exact while small."""
    return f"{size_bytes} bytes" if size_bytes < 10_000 else f"{size_bytes / 1000:.0f} kB"
