"""What was broken, whom it touched, and from when until when: the `fault` and `heal` events of a run.

Owns: reading their fields, of scenarios and of the simulator, and what follows for a link or a machine.
Must not know: how faults are made, or what must hold meanwhile.

Fields: ``id`` joins a heal to its fault; ``kind``; ``target``, names joined by commas; and, at the event or in its
``args``: ``groups`` (sides that do not hear each other) and ``fault``, a finer word than ``kind`` (a machine
without power is told as a kill).  A link's own faults (``target`` ``a~b``) are the proxy's words for what a scenario's
fault did, and touch only that link.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from chaos.trace.events import Event, Trace

FOREVER = float("inf")
APART = ("partition", "one-way-partition", "bridge", "cut")
"""Sides between which no answer comes back."""
ALONE = ("isolate",)
"""Machines cut off from all others, both ways."""
DOWN = ("kill", "power", "power-all", "wipe", "rot")
"""A replica's process is gone, for as long as the fault is in force."""
MACHINE_DOWN = ("power", "power-agent", "power-all")
"""Everything that ran on the machine is gone."""
BEYOND = ("pause", "stall", "clock-drift")
"""With these at most one *effect* is promised, no longer at most one process (DESIGN.md §6)."""
STOPPED_PROCESS = "stopped-process"
"""A pause of one process alone (SIGSTOP): its machine goes on, and what else runs there fences."""
STILL = (*BEYOND, STOPPED_PROCESS)
"""Whoever has one of these does not notice time as it passes."""


class Affliction(Struct, frozen=True):
    """One fault and its end.  Times are seconds of the trace; `until_s` is `FOREVER` if no heal was told."""

    kind: str
    nodes: tuple[str, ...]
    sides: tuple[tuple[str, ...], ...]
    link: tuple[str, str] | None
    since_s: float
    until_s: float
    fault: Event
    heal: Event | None

    def touches(self, node: str) -> bool:
        """Whether it is about this machine at all."""
        return node in self.nodes or (self.link is not None and node in self.link)

    def overlaps(self, since_s: float, until_s: float) -> bool:
        """Whether it was in force at some time of the span."""
        return self.since_s <= until_s and since_s <= self.until_s

    def lasts_through(self, since_s: float, until_s: float) -> bool:
        """Whether it was in force for the whole span."""
        return self.since_s <= since_s and until_s <= self.until_s

    def parts(self, one: str, other: str) -> bool:
        """Whether it certainly keeps two machines from a round trip for as long as it lasts."""
        if self.kind in (*ALONE, "deaf", "mute", *DOWN):
            return (one in self.nodes) != (other in self.nodes) or (one in self.nodes and self.kind in ALONE)
        if self.kind in APART and len(self.sides) > 1:
            found = [[name in side for side in self.sides] for name in (one, other)]
            return any(found[0]) and any(found[1]) and found[0] != found[1]
        return False


def afflictions(trace: Trace) -> tuple[Affliction, ...]:
    """Every fault of the run, in order."""
    heals = {event.text("id"): event for event in trace.kind("heal")}
    return tuple(_affliction(fault, heals.get(fault.text("id"))) for fault in trace.kind("fault"))


def beyond_promise(trace: Trace, nodes: Iterable[str], since_s: float, until_s: float) -> Affliction | None:
    """A pause or an unbounded clock of one of these machines within the span, if there was one."""
    wanted = set(nodes)
    for each in trace.derive(afflictions):
        if each.kind in BEYOND and each.overlaps(since_s, until_s) and any(each.touches(node) for node in wanted):
            return each
    return None


def _affliction(fault: Event, heal: Event | None) -> Affliction:
    target = fault.text("target")
    link = None
    if "~" in target:
        source, _, goal = target.partition("~")
        link = (source, goal)
    groups = fault.part("args").get("groups")
    sides = tuple(tuple(group) for group in groups) if isinstance(groups, list | tuple) else ()
    nodes = tuple(dict.fromkeys(name for side in sides for name in side))
    if not nodes and link is None:
        nodes = tuple(name for name in target.split(",") if name)
    kind = str(fault.part("args").get("fault") or fault.text("kind"))
    if kind == "pause" and fault.part("by").get("rule") == "SIGSTOP":
        kind = STOPPED_PROCESS
    until_s = heal.t if heal is not None else FOREVER
    return Affliction(kind, nodes, sides, link, fault.t, until_s, fault, heal)
