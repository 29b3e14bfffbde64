"""Attempts as their nodes ran them, and how one followed another.

Owns: from `run` events to spans of time.  Must not know: what is allowed (`chaos.trace.checkers`).

The times are those of the nodes' own events: a start is written when the process runs, an exit when
the node has seen that none is left.  Where a simulated kernel tells its own truth (do=began, do=ended), that counts.
On one machine they are of one clock; across machines they are as good as the clocks are alike.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from msgspec import Struct

from chaos.trace.events import Event, Trace
from chaos.trace.faults import MACHINE_DOWN, afflictions

KEEP = "keep"
SEEN = (("start", "adopt"), "exit")
TRUE = (("began",), "emptied")
"""What beginnings and the end are called, as the sandboxer saw them and as the kernel did."""


class Attempt(Struct, frozen=True):
    """One attempt on one node.

    `ended` is None if its exit is not in the trace; then `end_ms` is the trace's end if it surely ran on
    until there, and `certain` is False if its node's last events may be missing.
    """

    allocation: str
    epoch: int
    started: Event
    ended: Event | None
    end_ms: int
    certain: bool
    keeps: bool
    """Its job lets it run on without a lease (`on_disconnect: keep`)."""

    @property
    def start_ms(self) -> int:
        """When it began."""
        return self.started.ms

    @property
    def node(self) -> str:
        """Where it ran."""
        return self.started.n


def attempts(trace: Trace) -> dict[str, list[Attempt]]:
    """Every span in which an attempt ran, by allocation, in order of their beginnings.

    An attempt may run again under its token on a node whose sandboxer lost its memory: that is another span.
    """
    begins, end = TRUE if any(event.f.get("do") == "began" for event in trace.kind("run")) else SEEN
    open_: dict[tuple[str, str, int], Event] = {}
    spans: list[tuple[Event, Event | None]] = []
    for event in trace.kind("run"):
        key = (event.n, event.text("allocation"), event.number("epoch"))
        if event.f.get("do") in begins:
            open_.setdefault(key, event)
        elif event.f.get("do") == end and key in open_:
            spans.append((open_.pop(key), event))
    spans += [(started, None) for started in open_.values()]
    keeping = _keeping(trace)
    found: dict[str, list[Attempt]] = {}
    for started, ended in spans:
        attempt = _attempt(trace, started, ended, keeping)
        found.setdefault(attempt.allocation, []).append(attempt)
    return {name: sorted(mine, key=lambda a: (a.start_ms, a.epoch)) for name, mine in found.items()}


def _attempt(trace: Trace, started: Event, ended: Event | None, keeping: dict[tuple[str, int], Any]) -> Attempt:
    for fault in trace.derive(powered_off).get(started.n, ()):
        if started.hlc < fault.hlc and (ended is None or fault.hlc < ended.hlc):
            ended = fault
    last = trace.lives[started.n, started.inc].last_hlc
    certain = ended is not None or not trace.may_be_missing(started.n, last)
    end_ms = ended.ms if ended is not None else trace.events[-1].ms
    allocation, epoch = started.text("allocation"), started.number("epoch")
    keeps = started.f.get("on_disconnect", keeping.get((allocation, epoch))) == KEEP
    return Attempt(allocation, epoch, started, ended, end_ms, certain, keeps)


def _keeping(trace: Trace) -> dict[tuple[str, int], Any]:
    """What the nodes were told about attempts: the kernel does not know it."""
    told = [event for event in trace.kind("run") if "on_disconnect" in event.f]
    return {(event.text("allocation"), event.number("epoch")): event.f["on_disconnect"] for event in told}


def powered_off(trace: Trace) -> dict[str, list[Event]]:
    """Node → the faults that took its power, and with it all that ran, in order."""
    found: dict[str, list[Event]] = {}
    for each in trace.derive(afflictions):
        if each.kind in MACHINE_DOWN:
            for node in each.nodes:
                found.setdefault(node, []).append(each.fault)
    return found


def successions(trace: Trace) -> list[tuple[Attempt, Attempt]]:
    """(an attempt, the next one of the same allocation), in order of the next one's beginning."""
    pairs = [pair for found in attempts(trace).values() for pair in pairwise(found)]
    return sorted(pairs, key=lambda pair: pair[1].started.hlc)


def meetings(trace: Trace) -> list[tuple[Attempt, Attempt]]:
    """Like `successions`, and besides each attempt with whichever earlier one of its allocation ran longest."""
    pairs = []
    for found in attempts(trace).values():
        longest = found[0]
        for older, newer in pairwise(found):
            pairs.append((older, newer))
            longest = max(longest, older, key=lambda attempt: attempt.end_ms)
            if longest is not older and longest.end_ms > newer.start_ms:
                pairs.append((longest, newer))
    return sorted(pairs, key=lambda pair: pair[1].started.hlc)


def overlap_ms(older: Attempt, newer: Attempt) -> int:
    """For how long both ran."""
    return max(0, min(older.end_ms, newer.end_ms) - newer.start_ms)


def gap_ms(older: Attempt, newer: Attempt) -> int | None:
    """From the older one's end to the newer one's beginning; negative if they overlapped, None if unknown."""
    return None if older.ended is None else newer.start_ms - older.end_ms
