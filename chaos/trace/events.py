"""A run's events in one order, and what is known about where they are missing.

Owns: the event, the merged trace, and the horizons of each process's life: up to where
absence of an event is evidence.  Must not know: files, or what checkers conclude.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from operator import attrgetter
from typing import Any, TypeVar

Derived = TypeVar("Derived")

FLUSH_MS = 250
"""A process writes its events at most this much later; what a kill may have taken with it."""


class Event:
    """One line of a trace; `f` holds the fields beyond the common ones."""

    __slots__ = ("_marks", "f", "hlc", "i", "inc", "k", "lc", "n", "t")

    def __init__(self, hlc: int, n: str, inc: str, i: int, t: float, k: str, f: dict[str, Any], lc: int = 0) -> None:
        self.hlc = hlc
        self.n = n
        self.inc = inc
        self.i = i
        self.t = t
        self.k = k
        self.f = f
        self.lc = lc
        self._marks: list[tuple[int, str]] | None = None

    @property
    def marks(self) -> list[tuple[int, str]]:
        """The (index, prefix hash) pairs that it tells, its end (`index`, `ph`) included; not to be changed."""
        if self._marks is None:
            self._marks = _marks(self.f)
        return self._marks

    @property
    def ref(self) -> str:
        """``node/incarnation/i``, the name of the event."""
        return f"{self.n}/{self.inc}/{self.i}"

    @property
    def ms(self) -> int:
        """Milliseconds of its hybrid clock."""
        return self.hlc >> 16

    def number(self, name: str) -> int:
        """A field that must be a whole number; -1 if it is not."""
        value = self.f.get(name)
        return value if type(value) is int else -1

    def text(self, name: str) -> str:
        """A field as text; "" if absent."""
        value = self.f.get(name)
        return value if isinstance(value, str) else ""

    def part(self, name: str) -> dict[str, Any]:
        """A field that is an object; empty if it is not."""
        value = self.f.get(name)
        return value if isinstance(value, dict) else {}


def _marks(fields: dict[str, Any]) -> list[tuple[int, str]]:
    found, index, ph = fields.get("marks"), fields.get("index"), fields.get("ph")
    pairs: list[tuple[int, str]] = []
    if isinstance(found, list | tuple):
        pairs = [(pair[0], pair[1]) for pair in found if len(pair) == 2 and type(pair[0]) is int]
        if pairs and pairs[-1] == (index, ph):
            return pairs
    if type(index) is int and index > 0 and ph and all(at != index for at, _ in pairs):
        pairs.append((index, str(ph)))
    return pairs


Life = tuple[str, str]
"""(node, incarnation): one life of one process."""


class LifeFacts:
    """What the trace holds of one life, and where it may be missing something."""

    def __init__(self, life: Life) -> None:
        self.life = life
        self.first_hlc = 0
        self.last_hlc = 0
        self.events = 0
        self.truncated = False
        """Its last line was cut in the middle."""
        self.dropped = 0
        """Events that its own notes admit to have dropped."""
        self.gap = False
        """Events are missing in the middle, admitted or not."""
        self.next_hlc: int | None = None
        """First event of the node's next life."""
        self.killed_hlc: int | None = None
        """When chaos killed it."""
        self.whole = False
        """Its events were kept by something that outlives it: what is not there did not happen."""

    @property
    def cut_short(self) -> bool:
        """Whether it ended without the chance to write its last events."""
        return self.truncated or self.next_hlc is not None or self.killed_hlc is not None

    def may_have_lost(self, hlc: int) -> bool:
        """Whether an event at `hlc` of this life could have happened and be missing."""
        if self.gap:
            return True
        if self.whole:
            return False
        if self.cut_short and hlc >> 16 > (self.last_hlc >> 16) - FLUSH_MS:
            end = min(each for each in (self.next_hlc, self.killed_hlc, 1 << 62) if each is not None)
            return hlc >> 16 <= (end >> 16) + FLUSH_MS
        return hlc > self.last_hlc


class Trace:
    """All events of a run, ordered by (hlc, n, inc, i)."""

    def __init__(self, events: Iterable[Event], truncated: Iterable[Life] = ()) -> None:
        by_life: dict[Life, list[Event]] = {}
        for event in events:
            by_life.setdefault((event.n, event.inc), []).append(event)
        self._index(by_life, truncated)

    @classmethod
    def of_lives(cls, by_life: dict[Life, list[Event]]) -> Trace:
        """The trace of events that are sorted by life already."""
        trace = cls.__new__(cls)
        trace._index(by_life, ())
        return trace

    def _index(self, by_life: dict[Life, list[Event]], truncated: Iterable[Life]) -> None:
        self.lives = _lives(by_life, list(truncated))
        # Lives in order and each in its own order: then a stable sort needs the hybrid clock alone.
        self.events = sorted([event for life in sorted(by_life) for event in by_life[life]], key=_BY_HLC)
        self.by_kind: dict[str, list[Event]] = {}
        for event in self.events:
            self.by_kind.setdefault(event.k, []).append(event)
        self._lives_of: dict[str, list[LifeFacts]] = {}
        for facts in sorted(self.lives.values(), key=lambda facts: facts.first_hlc):
            self._lives_of.setdefault(facts.life[0], []).append(facts)
        self._derived: dict[Callable[[Trace], Any], Any] = {}
        self._mark_kills()
        replicas = {event.n for kind in ("append", "commit", "vote", "role") for event in self.kind(kind)}
        self.voters: tuple[str, ...] = tuple(sorted(replicas))

    def __iter__(self) -> Iterator[Event]:
        return iter(self.events)

    def kind(self, *kinds: str) -> list[Event]:
        """All events of these kinds, in order."""
        found = [events for kind in kinds if (events := self.by_kind.get(kind))]
        if len(found) <= 1:
            return found[0] if found else []
        if 2 * sum(map(len, found)) > len(self.events):
            wanted = frozenset(kinds)
            return [event for event in self.events if event.k in wanted]
        return sorted((event for events in found for event in events), key=_ORDER)

    def derive(self, make: Callable[[Trace], Derived]) -> Derived:
        """What `make` concludes from this trace, worked out once however many ask."""
        if make not in self._derived:
            self._derived[make] = make(self)
        found: Derived = self._derived[make]
        return found

    @property
    def majority(self) -> int:
        """How many voters are a majority."""
        return len(self.voters) // 2 + 1

    def lives_of(self, node: str) -> list[LifeFacts]:
        """A node's lives, oldest first."""
        return self._lives_of.get(node, [])

    def is_whole(self, node: str) -> bool:
        """Whether what is not in the trace of `node` did not happen there."""
        lives = self.lives_of(node)
        return bool(lives) and all(facts.whole and not facts.gap for facts in lives)

    def may_be_missing(self, node: str, hlc: int) -> bool:
        """Whether an event of `node` around `hlc` may be missing from the trace."""
        lives = [facts for facts in self.lives_of(node) if facts.first_hlc <= hlc]
        return not lives or lives[-1].may_have_lost(hlc)

    def _mark_kills(self) -> None:
        for fault in self.kind("fault"):
            if fault.f.get("kind") != "kill":
                continue
            lives = [facts for facts in self.lives_of(fault.text("target")) if facts.first_hlc <= fault.hlc]
            if lives:
                lives[-1].killed_hlc = fault.hlc


_BY_HLC = attrgetter("hlc")
_ORDER = attrgetter("hlc", "n", "inc", "i")
_BY_NUMBER = attrgetter("hlc", "i")


def _lives(by_life: dict[Life, list[Event]], truncated: list[Life]) -> dict[Life, LifeFacts]:
    """The facts of each life; puts each life's events in its own order."""
    lives: dict[Life, LifeFacts] = {}
    for life, events in by_life.items():
        events.sort(key=_BY_NUMBER)
        facts = lives[life] = LifeFacts(life)
        facts.first_hlc, facts.last_hlc, facts.events = events[0].hlc, events[-1].hlc, len(events)
        numbers = [event.i for event in events if event.i > 0]
        if numbers and (max(numbers) != len(set(numbers)) or min(numbers) != 1):
            facts.gap = True
        for event in events:
            if event.k == "note" and event.number("dropped") > 0:
                facts.dropped += event.number("dropped")
                facts.gap = True
            elif event.k == "meta" and event.f.get("whole") is True:
                facts.whole = True
    for life in truncated:
        if life in lives:
            lives[life].truncated = True
    by_node: dict[str, list[LifeFacts]] = {}
    for facts in lives.values():
        by_node.setdefault(facts.life[0], []).append(facts)
    for each in by_node.values():
        each.sort(key=lambda facts: facts.first_hlc)
        for earlier, later in pairwise(each):
            earlier.next_hlc = later.first_hlc
    return lives
