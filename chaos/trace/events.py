"""A run's events in one order, and what is known about where they are missing.

Owns: the event, the merged trace, and the horizons of each process's life: up to where
absence of an event is evidence.  Must not know: files, or what checkers conclude.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

FLUSH_MS = 250
"""A process writes its events at most this much later; what a kill may have taken with it."""


class Event:
    """One line of a trace; `f` holds the fields beyond the common ones."""

    __slots__ = ("f", "hlc", "i", "inc", "k", "lc", "n", "t")

    def __init__(self, hlc: int, n: str, inc: str, i: int, t: float, k: str, f: dict[str, Any], lc: int = 0) -> None:
        self.hlc = hlc
        self.n = n
        self.inc = inc
        self.i = i
        self.t = t
        self.k = k
        self.f = f
        self.lc = lc

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
        return value if isinstance(value, int) and not isinstance(value, bool) else -1

    def text(self, name: str) -> str:
        """A field as text; "" if absent."""
        value = self.f.get(name)
        return value if isinstance(value, str) else ""

    def part(self, name: str) -> dict[str, Any]:
        """A field that is an object; empty if it is not."""
        value = self.f.get(name)
        return value if isinstance(value, dict) else {}


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

    @property
    def cut_short(self) -> bool:
        """Whether it ended without the chance to write its last events."""
        return self.truncated or self.next_hlc is not None or self.killed_hlc is not None

    def may_have_lost(self, hlc: int) -> bool:
        """Whether an event at `hlc` of this life could have happened and be missing."""
        if self.gap:
            return True
        if self.cut_short and hlc >> 16 > (self.last_hlc >> 16) - FLUSH_MS:
            end = min(each for each in (self.next_hlc, self.killed_hlc, 1 << 62) if each is not None)
            return hlc >> 16 <= (end >> 16) + FLUSH_MS
        return hlc > self.last_hlc


class Trace:
    """All events of a run, ordered by (hlc, n, inc, i)."""

    def __init__(self, events: Iterable[Event], truncated: Iterable[Life] = ()) -> None:
        self.events = sorted(events, key=lambda e: (e.hlc, e.n, e.inc, e.i))
        self.by_kind: dict[str, list[Event]] = {}
        for event in self.events:
            self.by_kind.setdefault(event.k, []).append(event)
        self.lives = _lives(self.events, list(truncated))
        self._mark_kills()
        replicas = {event.n for kind in ("append", "commit", "vote", "role") for event in self.kind(kind)}
        self.voters: tuple[str, ...] = tuple(sorted(replicas))

    def __iter__(self) -> Iterator[Event]:
        return iter(self.events)

    def kind(self, *kinds: str) -> list[Event]:
        """All events of these kinds, in order."""
        if len(kinds) == 1:
            return self.by_kind.get(kinds[0], [])
        wanted = [event for kind in kinds for event in self.by_kind.get(kind, [])]
        return sorted(wanted, key=lambda e: (e.hlc, e.n, e.inc, e.i))

    @property
    def majority(self) -> int:
        """How many voters are a majority."""
        return len(self.voters) // 2 + 1

    def lives_of(self, node: str) -> list[LifeFacts]:
        """A node's lives, oldest first."""
        found = [facts for (n, _), facts in self.lives.items() if n == node]
        return sorted(found, key=lambda facts: facts.first_hlc)

    def may_be_missing(self, node: str, hlc: int) -> bool:
        """Whether an event of `node` around `hlc` may be missing from the trace."""
        lives = [facts for facts in self.lives_of(node) if facts.first_hlc <= hlc]
        return not lives or lives[-1].may_have_lost(hlc)

    def _mark_kills(self) -> None:
        for fault in self.kind("fault"):
            if fault.f.get("kind") not in ("kill", "pause"):
                continue
            lives = [facts for facts in self.lives_of(fault.text("target")) if facts.first_hlc <= fault.hlc]
            if lives and fault.f.get("kind") == "kill":
                lives[-1].killed_hlc = fault.hlc


def _lives(events: list[Event], truncated: list[Life]) -> dict[Life, LifeFacts]:
    lives: dict[Life, LifeFacts] = {}
    numbers: dict[Life, list[int]] = {}
    for event in events:
        life = (event.n, event.inc)
        facts = lives.get(life)
        if facts is None:
            facts = lives[life] = LifeFacts(life)
            facts.first_hlc = event.hlc
            numbers[life] = []
        facts.last_hlc = event.hlc
        facts.events += 1
        if event.i > 0:
            numbers[life].append(event.i)
        if event.k == "note" and event.number("dropped") > 0:
            facts.dropped += event.number("dropped")
            facts.gap = True
    for life, found in numbers.items():
        if found and (max(found) != len(set(found)) or min(found) != 1):
            lives[life].gap = True
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
