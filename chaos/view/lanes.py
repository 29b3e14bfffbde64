"""Which lanes a run has, in which order, and the time axis they share.

Owns: a lane's kind, the order of lanes, an event's place on the axis.  Must not know: what is
drawn on a lane.
"""

from __future__ import annotations

import re

from msgspec import Struct

from chaos.trace.events import Event, Trace

KINDS = ("replica", "agent", "client", "proxy", "other")
AXIS_US_MAX = 1 << 52
"""Widest run that the page can show: every microsecond is exact in a double."""


class Lane(Struct, frozen=True):
    """One row of the page: a node."""

    name: str
    kind: str


def lanes_of(trace: Trace) -> list[Lane]:
    """Replicas first, then agents, callers, proxies, the rest; each kind in natural order."""
    kinds: dict[str, str] = {event.n: "other" for event in trace}
    for event in trace.kind("node"):
        if event.text("node") in kinds:
            kinds[event.text("node")] = "agent"
    for event in trace.kind("run"):
        kinds[event.n] = "agent"
    for event in trace.kind("op"):
        kinds[event.n] = "client"
    for event in trace.kind("fault", "heal"):
        if event.part("by").get("proxy"):
            kinds[event.n] = "proxy"
    for event in trace.kind("meta"):
        if event.f.get("role") == "replica":
            kinds[event.n] = "replica"
        elif event.text("process") in ("agent", "sandboxer"):
            kinds[event.n] = "agent"
    for name in trace.voters:
        kinds[name] = "replica"
    lanes = [Lane(name, kind) for name, kind in kinds.items()]
    return sorted(lanes, key=lambda lane: (KINDS.index(lane.kind), _natural(lane.name)))


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Sorts n2 before n10."""
    parts = re.findall(r"[0-9]{1,15}|[^0-9]+|[0-9]+", name)
    return [(0, int(part), "") if part.isascii() and part.isdigit() else (1, 0, part) for part in parts]


def axis(trace: Trace) -> list[int]:
    """Every event's microseconds since the run's first, in the order of the trace.

    The hybrid clock decides, so a message never arrives before it was sent; the wall clock only
    gives the microseconds within its millisecond.  Within one life time never runs backwards.
    """
    if not trace.events:
        return []
    start = trace.events[0].ms * 1000
    reached: dict[tuple[str, str], int] = {}
    placed = []
    for event in trace.events:
        at = min(max(_microseconds(event) - start, 0), AXIS_US_MAX)
        life = (event.n, event.inc)
        reached[life] = at = max(at, reached.get(life, 0))
        placed.append(at)
    return placed


def _microseconds(event: Event) -> int:
    wall = event.t * 1_000_000
    low = event.ms * 1000
    return int(wall) if low <= wall < low + 1000 else low
